"""What the file of a large object says about itself, for the day on which the index is lost: a trailer behind its size.

    disk_bytes(size)     TRAILER_ROW of each block: the block's CRC, and the crc32c of object id, number and CRC
    TRAILER_TAIL         magic, object id, size, grade, the share's name and its length; then the crc32c of that

The trailer begins on a page of its own: the object's bytes are mapped alone. A row is written behind its block. Each is
checked by itself, for several processes write them; zeros are no row.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.layout import BLOCK_BYTES, CRC, checksum, disk_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAILER_TAIL = Struct("<4s16sQBB2x256s")
TRAILER_ROW = Struct("<II")
TRAILER_MAGIC = b"FBT2"
_TAIL_BYTES = TRAILER_TAIL.size + CRC.size


class Trailer(NamedTuple):
    """What a file says of itself: its object, the CRCs of the blocks in it, and whose they are."""

    object_id: bytes
    size: int
    crcs: Mapping[int, int]
    share: str
    grade: int


def trailer_bytes(size: int) -> int:
    """Return the length of the trailer of an object of `size` bytes."""
    return -(-size // BLOCK_BYTES) * TRAILER_ROW.size + _TAIL_BYTES


def file_bytes(size: int) -> int:
    """Return the length of the file of an object of `size` bytes."""
    return disk_bytes(size) + trailer_bytes(size)


def write_tail(fd: int, object_id: bytes, *, size: int, share: str, grade: int) -> None:
    """Give a new file its full length, and write whose it is."""
    name = share.encode()
    tail = TRAILER_TAIL.pack(TRAILER_MAGIC, object_id, size, grade, len(name), name)
    os.pwrite(fd, tail + CRC.pack(checksum(tail)), file_bytes(size) - _TAIL_BYTES)


def write_rows(fd: int, object_id: bytes, *, size: int, crcs: Mapping[int, int]) -> None:
    """Write the rows of neighbouring blocks, ascending, that were just written."""
    rows = b"".join(TRAILER_ROW.pack(crc, _row_check(object_id, block, crc)) for block, crc in crcs.items())
    os.pwrite(fd, rows, disk_bytes(size) + next(iter(crcs)) * TRAILER_ROW.size)


def read_trailer(fd: int, object_id: bytes) -> Trailer | None:
    """Read what the file of an object says of itself; None if it is not, whole, that object's file.

    Raises:
        OSError: If the disk fails.
    """
    length = os.fstat(fd).st_size
    tail = os.pread(fd, _TAIL_BYTES, max(0, length - _TAIL_BYTES))
    if len(tail) != _TAIL_BYTES or checksum(tail[: TRAILER_TAIL.size]) != CRC.unpack_from(tail, TRAILER_TAIL.size)[0]:
        return None
    magic, found_id, size, grade, name_bytes, name = TRAILER_TAIL.unpack_from(tail)
    if (magic, found_id) != (TRAILER_MAGIC, object_id) or file_bytes(size) != length:
        return None
    raw = os.pread(fd, trailer_bytes(size) - _TAIL_BYTES, disk_bytes(size))
    rows = enumerate(TRAILER_ROW.iter_unpack(raw[: len(raw) // TRAILER_ROW.size * TRAILER_ROW.size]))
    crcs = {block: crc for block, (crc, check) in rows if check == _row_check(object_id, block, crc)}
    return Trailer(object_id, size, crcs, name[:name_bytes].decode(), grade)


def _row_check(object_id: bytes, block: int, crc: int) -> int:
    return checksum(CRC.pack(crc), object_id, CRC.pack(block))
