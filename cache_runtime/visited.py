"""`visited.map`: what readers tell the evictor, and the evictor the readers, without a lock or a transaction."""

from __future__ import annotations

import mmap
import os

_HEADER_BYTES = 4096
_BYTES_PER_SLOT = 16 << 10  # of capacity: one slot for each small object of the usual size
_MIN_SLOTS = 1 << 12
_MAX_SLOTS = 1 << 24


class VisitedMap:
    """One byte per slot, set by readers and cleared by the evictor's hand; and the generation of evictions.

    An object's slot is a part of its id, so nothing is allocated or freed; two objects that share one are visited
    together, which costs some precision and no correctness.

    Attributes:
        slots: The bytes; index with an object's slot and `mask`.
        mask: Number of slots less one.
        words: `words[0]` is the generation: it changes when something was evicted, so that readers let go of its file.
        file_bytes: Size of the file.
    """

    __slots__ = ("file_bytes", "mask", "slots", "words")

    def __init__(self, path: str, *, capacity_bytes: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.fstat(fd).st_size <= _HEADER_BYTES:
                # allocated, not sparse: storing through a mapping into a hole of a full disk kills the process
                os.posix_fallocate(fd, 0, _HEADER_BYTES + _slots_for(capacity_bytes))
            self.file_bytes = os.fstat(fd).st_size
            mapped = memoryview(mmap.mmap(fd, self.file_bytes))
        finally:
            os.close(fd)
        self.words = mapped[:8].cast("Q")
        self.slots = mapped[_HEADER_BYTES:]
        self.mask = (1 << (len(self.slots).bit_length() - 1)) - 1  # a power of two, whatever someone did to the file

    def bump(self) -> None:
        """Tell all readers that something was evicted; only the holder of the evict lock may."""
        self.words[0] = (self.words[0] + 1) & 0xFFFFFFFFFFFFFFFF

    def is_set(self, slot: int) -> bool:
        """Say whether a reader came by since the hand did."""
        return self.slots[slot & self.mask] != 0

    def set(self, slot: int) -> None:
        """Mark as read."""
        self.slots[slot & self.mask] = 1

    def clear(self, slot: int) -> None:
        """Mark as passed by the hand."""
        self.slots[slot & self.mask] = 0


def _slots_for(capacity_bytes: int) -> int:
    wanted = max(_MIN_SLOTS, min(_MAX_SLOTS, capacity_bytes // _BYTES_PER_SLOT))
    return 1 << (wanted.bit_length() - 1)
