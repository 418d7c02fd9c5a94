"""Memory that worker processes write batches into: a file in memory that has no name, so a crash leaves nothing."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque

from loaders.running.leases import leased

_PAGE = 1 << 16


class SlabRing:
    """A fixed number of slabs of one size, in one memfd. All of it is allocated here: no later write can fail for room.

    Args:
        count: Slabs.
        size: Bytes of each, at least.

    Attributes:
        handle: File descriptor, to send to workers.
        size: Bytes of each.
        count: Slabs.

    Raises:
        OSError: If there is not that much memory.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = -(-size // _PAGE) * _PAGE
        self.handle = new_memory_file("forebay-batches", count * self.size)
        self._closing = weakref.finalize(self, os.close, self.handle)  # a loader may be dropped without `close`
        self._memory = memoryview(mmap.mmap(self.handle, count * self.size))
        self._free = deque(range(count))

    def take(self) -> tuple[int, memoryview] | None:
        """Return a free slab and its number, None if all are in use; it is free when nothing refers to it any more."""
        try:
            number = self._free.popleft()  # no lock: see `ArrayPool.empty`
        except IndexError:
            return None
        free = self._free
        slab = self._memory[number * self.size : (number + 1) * self.size]
        return number, leased(slab, lambda: free.append(number))

    def close(self) -> None:
        """Close the descriptor; the memory lives as long as slabs are in use here or in a worker."""
        self._closing()
        self.handle = -1


class OpenSlabs:
    """A worker's view of a ring.

    Args:
        handle: What was sent; closed here.
        size: Bytes of a slab.
    """

    def __init__(self, handle: int, size: int) -> None:
        self._size = size
        try:
            self._memory = memoryview(mmap.mmap(handle, os.fstat(handle).st_size))
        finally:
            os.close(handle)

    def slab(self, number: int) -> memoryview:
        """Return one slab."""
        return self._memory[number * self._size : (number + 1) * self._size]


def new_memory_file(name: str, size: int) -> int:
    """Return the descriptor of memory without a path, allocated: a write beyond of what a machine has is a SIGBUS.

    Raises:
        OSError: If there is not that much memory.
    """
    handle = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(handle, 0, size)
    except BaseException:
        os.close(handle)
        raise
    return handle
