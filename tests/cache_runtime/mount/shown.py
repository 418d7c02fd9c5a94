"""A directory shown by a mount, for tests: the server is a child that is killed if a test hangs in its mount."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.services.fuse import missing
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WAIT_SECONDS = 60.0
"""The server is killed then: who waits for it gets ENOTCONN."""


class Shown:
    """The files of a directory, or those that a list names, at a mount point.

    Attributes:
        path: Where.
        server: Who shows them.
    """

    def __init__(self, root: Path, path: Path, options: dict[str, Any], prefix: Sequence[str]) -> None:
        self.path = path
        self.log = path.with_name(path.name + ".log")
        module = "tests.cache_runtime.mount.serving"
        words = [*prefix, sys.executable, "-m", module, str(root), str(path), json.dumps(options)]
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )

    def line(self) -> str:
        assert self.server.stdout is not None
        ready, _, _ = select.select([self.server.stdout], [], [], WAIT_SECONDS)
        line = self.server.stdout.readline().strip() if ready else ""
        assert line, self.log.read_text()
        return line

    def order(self, command: str) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(command + "\n")
        self.server.stdin.flush()

    def status(self) -> dict[str, Any]:
        self.order("status")
        status: dict[str, Any] = json.loads(self.line())
        return status

    def end(self) -> None:
        self.server.kill()
        self.server.wait(WAIT_SECONDS)
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.stdout.close()


@contextmanager
def shown(root: Path, path: Path, *, prefix: Sequence[str] = (), **options: Any) -> Iterator[Shown]:
    """Mount, and unmount whatever happens."""
    require(missing())
    path.mkdir(exist_ok=True)
    mount = Shown(root, path, options, prefix)
    watch = threading.Timer(WAIT_SECONDS, mount.server.kill)
    watch.start()
    try:
        assert mount.line() == "mounted", mount.log.read_text()
        yield mount
    finally:
        watch.cancel()
        mount.end()
        subprocess.run(["umount", "-l", path], capture_output=True, timeout=20, check=False)
