"""What a slab says about itself, for the day on which the index is lost: a footer behind the last record of a full one.

    entries...           FOOTER_ENTRY of each record, in the order of their offsets
    share                name of the share, UTF-8
    FOOTER_TAIL          at the end of the file: magic, entries, bytes of the share's name, grade, crc32c of all of it

A slab that is not full has none, and neither has one whose writer was killed: their records are searched for.
"""

from __future__ import annotations

import mmap
import os
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.layout import CRC, RECORD_HEADER, RECORD_MAGIC, SMALL_BYTES, checksum
from cache_runtime.store.shares import Grade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOOTER_ENTRY = Struct("<16sII")
FOOTER_TAIL = Struct("<4sIIB3xI")
FOOTER_MAGIC = b"FBF2"
_TAIL_SEED = FOOTER_TAIL.size - CRC.size


class SlabRecord(NamedTuple):
    """A record of a slab: whose it is, the offset of its header, and the bytes of the object."""

    object_id: bytes
    header: int
    size: int


class SlabContent(NamedTuple):
    """What was found in a slab, and whose it is as far as a footer tells."""

    records: Sequence[SlabRecord]
    share: str = ""
    grade: int = Grade.NORMAL


def footer_bytes(records: int, *, share: str = "") -> int:
    """Return the length of a footer."""
    return records * FOOTER_ENTRY.size + len(share.encode()) + FOOTER_TAIL.size


def pack_footer(records: Sequence[SlabRecord], *, share: str, grade: int) -> bytes:
    """Return the bytes of a footer."""
    name = share.encode()
    head = b"".join([*(FOOTER_ENTRY.pack(*record) for record in records), name])
    tail = FOOTER_TAIL.pack(FOOTER_MAGIC, len(records), len(name), grade, 0)[:_TAIL_SEED]
    return head + tail + CRC.pack(checksum(head + tail))


def read_slab(fd: int) -> SlabContent:
    """Find a slab's records: from its footer, whose bytes are checked on their first read, or else by reading it all.

    Raises:
        OSError: If the disk fails.
    """
    size = os.fstat(fd).st_size
    return _read_footer(fd, size) or SlabContent(list(_search(fd, size)))


def _read_footer(fd: int, size: int) -> SlabContent | None:
    tail = os.pread(fd, FOOTER_TAIL.size, max(0, size - FOOTER_TAIL.size))
    if len(tail) != FOOTER_TAIL.size:
        return None
    magic, count, name_bytes, grade, crc = FOOTER_TAIL.unpack(tail)
    start = size - FOOTER_TAIL.size - name_bytes - count * FOOTER_ENTRY.size
    if magic != FOOTER_MAGIC or start < 0:
        return None
    head = os.pread(fd, size - FOOTER_TAIL.size - start, start)
    if checksum(head + tail[:_TAIL_SEED]) != crc:
        return None
    entries = [SlabRecord(*entry) for entry in FOOTER_ENTRY.iter_unpack(head[: count * FOOTER_ENTRY.size])]
    return SlabContent(entries, head[count * FOOTER_ENTRY.size :].decode(), grade)


def _search(fd: int, size: int) -> Iterator[SlabRecord]:
    """Yield the records that are whole, also those behind one that was never written or is damaged."""
    if size == 0:
        return
    with mmap.mmap(-1, size) as buffer:
        # read, not mapped: a failing disk is then an error, not a signal
        end = _read_into(fd, memoryview(buffer))
        at = buffer.find(RECORD_MAGIC, 0, end)
        while at >= 0:
            record = _whole_record(buffer, at, end)
            if record is not None:
                yield record
                at += RECORD_HEADER.size + record.size
            else:
                at += 1
            at = buffer.find(RECORD_MAGIC, at, end)


def _whole_record(buffer: mmap.mmap, at: int, end: int) -> SlabRecord | None:
    if at + RECORD_HEADER.size > end:
        return None
    _, object_id, size, crc = RECORD_HEADER.unpack_from(buffer, at)
    start = at + RECORD_HEADER.size
    if size > SMALL_BYTES or start + size > end or checksum(buffer[start : start + size], object_id) != crc:
        return None
    return SlabRecord(object_id, at, size)


def _read_into(fd: int, view: memoryview) -> int:
    with view:
        got = 0
        while got < len(view):
            with view[got:] as rest:
                count = os.preadv(fd, [rest], got)
            if count == 0:
                break
            got += count
        return got
