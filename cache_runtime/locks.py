"""Locks between threads and processes: byte ranges of one empty file, freed by the kernel when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from struct import Struct
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.layout import BlockRun

_FLOCK = Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_FILL_BASE = 1 << 32  # fills lock bytes from here on, fixed locks those below
OPEN_LOCK = 0
EVICT_LOCK = 1


class RangeLocks:
    """Lock ranges of a file by open file description, so that threads exclude each other as processes do.

    Args:
        path: The file; created when it is not there, always empty.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: set[int] = set()

    @contextmanager
    def fixed(self, byte: int, *, seconds: float) -> Iterator[None]:
        """Hold OPEN_LOCK or EVICT_LOCK.

        Raises:
            CacheTimeoutError: If it was not free within `seconds`.
        """
        with self._hold(byte, 1, seconds):
            yield

    @contextmanager
    def fill(self, object_id: bytes, run: BlockRun, *, seconds: float) -> Iterator[None]:
        """Hold some blocks of an object against other fillers of any of them.

        Raises:
            CacheTimeoutError: If they were not free within `seconds`.
        """
        # 40 bits of the id and 22 of the block: two objects meet in one of 10^12 cases, and then merely wait
        start = _FILL_BASE + (int.from_bytes(object_id[:5], "little") << 22) + (run.first & 0x3FFFFF)
        with self._hold(start, run.last - run.first + 1, seconds):
            yield

    def forget_parent(self) -> None:
        """Close the locks that a fork copied: they stay the parent's, and end with it."""
        for fd in self._held:
            os.close(fd)
        self._held = set()

    @contextmanager
    def _hold(self, start: int, length: int, seconds: float) -> Iterator[None]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._held.add(fd)
        try:
            _wait_for(fd, start, length, seconds, self._path)
            yield
        finally:
            # unlock by hand: a child forked meanwhile has a copy of the descriptor, closing ours would not free it
            _request(fd, fcntl.F_UNLCK, 0, 0)
            self._held.discard(fd)
            os.close(fd)


def _wait_for(fd: int, start: int, length: int, seconds: float, path: str) -> None:
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while not _request(fd, fcntl.F_WRLCK, start, length):
        if time.monotonic() > deadline:
            raise CacheTimeoutError(path, seconds=seconds)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def _request(fd: int, kind: int, start: int, length: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except (BlockingIOError, PermissionError):  # POSIX allows EACCES for EAGAIN
        return False
    return True
