"""`worker.json` in a cache directory: which worker serves it now.

The file is locked by the worker for as long as it lives, so what a killed one left behind is not believed. Only the
standard library is used here: every reader of a cache directory asks.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from struct import Struct
from typing import TYPE_CHECKING

from cache_runtime.errors import WorkerConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLOCK = Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_MAX_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker that serves a cache directory: its name among the members, its URL, its process."""

    name: str
    url: str
    pid: int


@contextmanager
def announced(directory: Path, worker: RunningWorker) -> Iterator[None]:
    """Tell this node's readers of a worker until the end of the block, or of the process.

    Raises:
        WorkerConfigError: If another worker serves the directory, or the file cannot be written.
    """
    path = directory / "worker.json"
    try:
        # never replaced by another file, which would leave the lock on the old one
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise WorkerConfigError(f"{path}: {error.strerror}") from error
    try:
        _lock(fd, path)
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(worker)).encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def find_worker(directory: Path | str) -> RunningWorker | None:
    """Return the worker that serves a cache directory now; None if none does, or it is just starting."""
    try:
        fd = os.open(os.path.join(directory, "worker.json"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        # asked only, not taken: a reader must not be in the way of a worker that starts
        held = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK
        found = os.pread(fd, _MAX_BYTES, 0) if held else b""
    except OSError:
        return None
    finally:
        os.close(fd)
    with suppress(ValueError, KeyError, TypeError):
        document = json.loads(found)
        return RunningWorker(str(document["name"]), str(document["url"]), int(document["pid"]))
    return None


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError as error:
        if isinstance(error, BlockingIOError | PermissionError):  # POSIX allows EACCES for EAGAIN
            raise WorkerConfigError(f"another worker serves {path.parent}; stop it, or give each its own") from error
        raise WorkerConfigError(f"{path}: {error.strerror}") from error
