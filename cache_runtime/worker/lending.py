"""Cached bytes as files for sendfile, with their checksums."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.protocol import BlockSums, blocks_of, covers_blocks
from cache_runtime.store.layout import RECORD_HEADER, SMALL_BYTES

if TYPE_CHECKING:
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shelf import Lent
    from sources import ObjectRef


class CachedRange(NamedTuple):
    """A range that is cached: where it lies, and the checksums of its blocks if it consists of whole ones.

    Attributes:
        view: Its bytes in a mapping of the file, if it has one and they seem to be in memory. What the socket takes at
            once is written from there: the kernel copies 4 MiB in less time than `sendfile` needs for its 1024 pages.
    """

    lent: Lent
    sums: BlockSums | None
    view: memoryview | None = None

    def fileno(self) -> int:
        """Return the descriptor, as `loop.sendfile` asks for it; it is open for as long as this lives."""
        return self.lent.fd

    @property
    def length(self) -> int:
        """Bytes of the range."""
        return self.lent.length

    def read(self, start: int, length: int) -> bytes:
        """Read some of the range; less at the end of a file that was cut."""
        return os.pread(self.lent.fd, length, self.lent.offset + start)


def find_range(store: NodeStore, ref: ObjectRef, offset: int, length: int) -> CachedRange | None:
    """Return a range if all of it is cached and passed its check; reads and checks what was not yet: for a thread."""
    lent = store.lend(ref, offset, length)
    if lent is None:
        return None
    # a send that waits for the disk would do so page by page
    os.posix_fadvise(lent.fd, lent.offset, length, os.POSIX_FADV_WILLNEED)
    return _with_sums(store, ref, lent, offset)


def find_hot_range(store: NodeStore, ref: ObjectRef, offset: int, length: int) -> CachedRange | None:
    """Return a range if that takes microseconds: it was checked before and seems to be in memory.

    For the event loop, where a switch to a thread and back costs as much as all else that is done for a small answer.
    """
    lent = store.lend(ref, offset, length, checked_only=True)
    if lent is None or not (_is_hot(lent.fd, lent.offset) and _is_hot(lent.fd, lent.offset + length - 1)):
        return None
    found = _with_sums(store, ref, lent, offset)
    return found if ref.size <= SMALL_BYTES else found._replace(view=store.find(ref, offset, length))


def _with_sums(store: NodeStore, ref: ObjectRef, lent: Lent, offset: int) -> CachedRange:
    whole = covers_blocks(ref.size, offset, lent.length)
    return CachedRange(lent, _find_sums(store, ref, lent, offset) if whole else None)


def _is_hot(fd: int, offset: int) -> bool:
    """Look whether the page at an offset is in memory."""
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # some file systems have no such reads
            return False
        raise


def _find_sums(store: NodeStore, ref: ObjectRef, lent: Lent, offset: int) -> BlockSums | None:
    """Return the checksums that were stored with whole blocks; None if they were evicted just now."""
    if ref.size <= SMALL_BYTES:
        header = os.pread(lent.fd, RECORD_HEADER.size, lent.offset - RECORD_HEADER.size)
        return BlockSums(0, (RECORD_HEADER.unpack(header)[3],))
    run = blocks_of(ref.size, offset, lent.length)
    crcs = store.checksums(ref, run)
    return None if crcs is None else BlockSums(run.first, tuple(crcs))
