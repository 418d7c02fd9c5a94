"""A mounted directory of objects, for tests: the server is a child, and this process is its user."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT_SECONDS = 30.0
MIB = 1 << 20


class Mounted:
    """A mount of `root/objects` at `root/mnt` with the cache `root/cache`.

    Attributes:
        path: Where.
        objects: What it shows.
        log: What the server logs.
    """

    def __init__(self, root: Path, **settings: Any) -> None:
        self.objects, self.path, self.log = root / "objects", root / "mnt", root / "server.log"
        self.path.mkdir(exist_ok=True)
        self._settings = {
            "objects": str(self.objects),
            "mountpoint": str(self.path),
            "cache": str(root / "cache"),
            "log": str(self.log),
            **settings,
        }

    def __enter__(self) -> Self:
        words = json.dumps(self._settings)
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.cache_runtime.mount.bytes_server", words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "mounted"
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        try:
            self._child.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(WAIT_SECONDS)
        finally:
            subprocess.run(["umount", "-l", self.path], capture_output=True, timeout=WAIT_SECONDS, check=False)
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()

    @property
    def pid(self) -> int:
        return self._child.pid

    def kill(self) -> None:
        """End the server as a crash does."""
        self._child.kill()
        self._child.wait(WAIT_SECONDS)

    def order(self, *words: Any) -> Any:
        """Give the server a command."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(words) + "\n")
        self._child.stdin.flush()
        return json.loads(self._line())

    def reading(self) -> dict[str, Any]:
        """Return the counters of what was read."""
        found: dict[str, Any] = self.order("status")["reading"]
        return found

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def expected(self, name: str) -> bytes:
        return (self.objects / name).read_bytes()

    def _line(self) -> str:
        assert self._child.stdout is not None
        ready, _, _ = select.select([self._child.stdout], [], [], WAIT_SECONDS)
        assert ready, "the server says nothing"
        return self._child.stdout.readline().strip()


def make_objects(root: Path, sizes: dict[str, int]) -> None:
    """Write files below `root/objects`; their bytes follow from their names."""
    for name, size in sizes.items():
        path = root / "objects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def can_mount() -> bool:
    """Whether this process may mount, which takes root and a device."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)
