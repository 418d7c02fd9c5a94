"""`visited.map`: what readers tell the evictor, and the evictor the readers, without a lock or a transaction."""

from __future__ import annotations

import mmap
import os

import numpy

from cache_runtime.store.ghosts import GHOST_BYTES, GhostMap

_HEADER_BYTES = 4096
# of capacity: ten slots for each small object of the usual size, or what was not read would look as if it was
_BYTES_PER_SLOT = 1 << 10
_MIN_SLOTS = 1 << 12
_MAX_SLOTS = 1 << 26
_SLOTS_PER_GHOST = 8
_MARKS = 255  # 0 is: not read, or passed by the hand
_LATELY_TICKS = 4


class VisitedMap:
    """One byte per slot, set by readers and cleared by the evictor's hand; and the generation of evictions.

    An object's slot is a part of its id, so nothing is allocated or freed; two objects that share one are visited
    together, which costs some precision and no correctness.

    What readers store is the current mark, which goes on from time to time: a byte tells not only that the object was
    read, but how many ticks ago. Readers learn a new mark when the generation changes.

    Attributes:
        slots: The bytes; index with an object's slot and `mask`.
        mask: Number of slots less one.
        words: `words[0]` is the generation: it changes when something was evicted, so that readers let go of its file,
            and with each tick. `words[1]` is the mark.
        ghosts: Why objects are not there.
        file_bytes: Size of the file.
    """

    __slots__ = ("_array", "file_bytes", "ghosts", "mask", "slots", "words")

    def __init__(self, path: str, *, capacity_bytes: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.fstat(fd).st_size < _HEADER_BYTES + _file_bytes(_MIN_SLOTS):
                # allocated, not sparse: storing through a mapping into a hole of a full disk kills the process
                os.posix_fallocate(fd, 0, _HEADER_BYTES + _file_bytes(_slots_for(capacity_bytes)))
            self.file_bytes = os.fstat(fd).st_size
            mapped = memoryview(mmap.mmap(fd, self.file_bytes))
        finally:
            os.close(fd)
        # a power of two, whatever someone did to the file
        count = 1 << ((len(mapped) - _HEADER_BYTES).bit_length() - 1)
        while _file_bytes(count) > len(mapped) - _HEADER_BYTES:
            count //= 2
        self.words = mapped[:16].cast("Q")
        self.slots = mapped[_HEADER_BYTES : _HEADER_BYTES + count]
        self.mask = count - 1
        start = _HEADER_BYTES + count
        self.ghosts = GhostMap(mapped[start : start + count // _SLOTS_PER_GHOST * GHOST_BYTES].cast("I"))
        self._array = numpy.frombuffer(self.slots, numpy.uint8)

    @property
    def now(self) -> int:
        """The mark that readers store now."""
        return self.words[1] % (_MARKS + 1) or 1

    def bump(self) -> None:
        """Tell all readers that something was evicted; only the holder of the evict lock may."""
        self.words[0] = (self.words[0] + 1) & 0xFFFFFFFFFFFFFFFF

    def tick(self, ticks: int) -> None:
        """Go on to the mark of a tick, counted from the first one ever."""
        mark = ticks % _MARKS + 1
        # as old as a mark can get: from now on it would be taken for a new one
        self._array[self._array == mark] = 0
        self.words[1] = mark
        self.bump()

    def is_set(self, slot: int) -> bool:
        """Say whether a reader came by since the hand did."""
        return self.slots[slot & self.mask] != 0

    def is_lately(self, slot: int) -> bool:
        """Say whether a reader came by within the last ticks, and the hand did not since."""
        mark = self.slots[slot & self.mask]
        return mark != 0 and (self.now - mark) % _MARKS <= _LATELY_TICKS

    def set(self, slot: int) -> None:
        """Mark as read."""
        self.slots[slot & self.mask] = self.now

    def clear(self, slot: int) -> None:
        """Mark as passed by the hand."""
        self.slots[slot & self.mask] = 0


def _file_bytes(slots: int) -> int:
    return slots + slots // _SLOTS_PER_GHOST * GHOST_BYTES


def _slots_for(capacity_bytes: int) -> int:
    wanted = max(_MIN_SLOTS, min(_MAX_SLOTS, capacity_bytes // _BYTES_PER_SLOT))
    return 1 << (wanted.bit_length() - 1)
