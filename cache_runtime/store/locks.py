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
    from collections.abc import Iterator, Sequence

    from cache_runtime.store.layout import BlockRun

_FLOCK = Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_FILL_BASE = 1 << 32  # fills lock bytes from here on, fixed locks those below
OPEN_LOCK = 0
EVICT_LOCK = 1
WRITE_LOCK = 2
PIN_LOCK = 3
_LONG = 0.0005, 0.02  # seconds between tries, at first and at most: for locks held while bytes are fetched
_BRIEF = 0.00005, 0.001  # for those held for a commit
_UNLOCK = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)


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
        """Hold OPEN_LOCK, EVICT_LOCK or PIN_LOCK.

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
        start, length = _fill_range(object_id, run)
        with self._hold(start, length, seconds):
            yield

    @contextmanager
    def claim(self, fills: Sequence[tuple[bytes, BlockRun]]) -> Iterator[list[bool]]:
        """Hold those of many fills (object id and blocks) that are free now; say of each whether it is held."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._held.add(fd)
        try:
            yield [_request(fd, fcntl.F_WRLCK, *_fill_range(*fill)) for fill in fills]
        finally:
            _request(fd, fcntl.F_UNLCK, 0, 0)
            self._held.discard(fd)
            os.close(fd)

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


def _fill_range(object_id: bytes, run: BlockRun) -> tuple[int, int]:
    # 40 bits of the id and 22 of the block: two objects meet in one of 10^12 cases, and then merely wait
    return _FILL_BASE + (int.from_bytes(object_id[:5], "little") << 22) + (
        run.first & 0x3FFFFF
    ), run.last - run.first + 1


class ByteLock:
    """One fixed byte, locked often and briefly: its descriptor stays open. For one thread at a time.

    Args:
        path: The file; created when it is not there.
        byte: One of the fixed locks.
    """

    def __init__(self, path: str, byte: int) -> None:
        self._path = path
        self._byte = byte
        self._fd = -1

    @contextmanager
    def hold(self, *, seconds: float) -> Iterator[None]:
        """Hold the byte against other processes.

        Raises:
            CacheTimeoutError: If it was not free within `seconds`.
        """
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _wait_for(self._fd, self._byte, 1, seconds, self._path, pauses=_BRIEF)
            yield
        finally:
            # called as it is: a function of ours could be interrupted at its first line, with the byte locked for ever
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _UNLOCK)

    def close(self) -> None:
        """Close the descriptor; in the child of a fork it is the parent's, whose lock is not held then."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _wait_for(
    fd: int, start: int, length: int, seconds: float, path: str, *, pauses: tuple[float, float] = _LONG
) -> None:
    deadline = time.monotonic() + seconds
    pause, longest = pauses
    while not _request(fd, fcntl.F_WRLCK, start, length):
        if time.monotonic() > deadline:
            raise CacheTimeoutError(path, seconds=seconds)
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


def _request(fd: int, kind: int, start: int, length: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except (BlockingIOError, PermissionError):  # POSIX allows EACCES for EAGAIN
        return False
    return True
