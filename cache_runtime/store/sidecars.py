"""What the file of a large object says about itself, for the day on which the index is lost: a small file beside it.

    SIDECAR_HEAD         magic, object id, size, grade, the share's name and its length; then the crc32c of that
    SIDECAR_ROW          of each block: the block's CRC, and the crc32c of object id, number and CRC

The object's own file has the object's bytes and nothing else, so that the kernel may read it for others (a mount): such
reads end where the file does, whatever size somebody else tells. A row is written behind its block. Each is checked by
itself, for several processes write them; zeros are no row.

An object that is written whole at once needs no sidecar, for to make a file takes longer than to write some bytes: an
extended attribute of its file says the same, where the file system has them.

    user.forebay         ATTRIBUTE_HEAD, the share's name, the CRC of each block; then the crc32c of object id and that
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.layout import BLOCK_BYTES, CRC, checksum

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SIDECAR_HEAD = Struct("<4s16sQBB2x256s")
SIDECAR_ROW = Struct("<II")
SIDECAR_MAGIC = b"FBC3"
ATTRIBUTE = "user.forebay"
ATTRIBUTE_HEAD = Struct("<4sQBB")
HEAD_BYTES = SIDECAR_HEAD.size + CRC.size
_NO_ATTRIBUTES = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EPERM})
"""There is none, the file system has none, or has no more room for it in the file."""


class FileOwner(NamedTuple):
    """Whose a file is: its object, the object's size, and the share and grade of its first fill."""

    object_id: bytes
    size: int
    share: str
    grade: int


class Sidecar(NamedTuple):
    """What is said of a file: whose it is, and the CRCs of the blocks in it."""

    owner: FileOwner
    crcs: Mapping[int, int]


def sidecar_path(directory: str, unit: int, object_id: bytes) -> str:
    """Return the path of the sidecar of a large object's file."""
    return f"{directory}/checksums/{unit & 0xFF:02x}/{unit:012x}-{object_id.hex()}"


def sidecar_bytes(size: int) -> int:
    """Return the length of the sidecar of an object of `size` bytes."""
    return HEAD_BYTES + -(-size // BLOCK_BYTES) * SIDECAR_ROW.size


def write_sidecar(path: str, owner: FileOwner, crcs: Mapping[int, int]) -> None:
    """Write the rows of neighbouring blocks, ascending, that were just written; in a new sidecar first whose it is."""
    rows = b"".join(SIDECAR_ROW.pack(crc, row_check(owner.object_id, block, crc)) for block, crc in crcs.items())
    first = next(iter(crcs))
    fd = _open(path)
    try:
        if os.fstat(fd).st_size < HEAD_BYTES:
            head = _pack_head(owner)
            os.pwrite(fd, head + rows if first == 0 else head, 0)
            if first == 0:
                return
        os.pwrite(fd, rows, HEAD_BYTES + first * SIDECAR_ROW.size)
    finally:
        os.close(fd)


def write_attribute(fd: int, owner: FileOwner, crcs: Iterable[int]) -> bool:
    """Write the CRCs of all blocks, in their order, to the file itself; False if its file system does not take that."""
    name = owner.share.encode()
    head = ATTRIBUTE_HEAD.pack(SIDECAR_MAGIC, owner.size, owner.grade, len(name))
    value = b"".join([head, name, *map(CRC.pack, crcs)])
    try:
        os.setxattr(fd, ATTRIBUTE, value + CRC.pack(checksum(value, owner.object_id)))
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return False
        raise
    return True


def read_attribute(fd: int, object_id: bytes) -> Sidecar | None:
    """Read what the file of an object says by itself; None if it says nothing, or if that does not check."""
    try:
        raw = os.getxattr(fd, ATTRIBUTE)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return None
        raise
    value = raw[: -CRC.size]
    if len(value) < ATTRIBUTE_HEAD.size or CRC.pack(checksum(value, object_id)) != raw[-CRC.size :]:
        return None
    magic, size, grade, name_bytes = ATTRIBUTE_HEAD.unpack_from(value)
    name, rows = value[ATTRIBUTE_HEAD.size :][:name_bytes], value[ATTRIBUTE_HEAD.size + name_bytes :]
    if magic != SIDECAR_MAGIC or len(rows) != -(-size // BLOCK_BYTES) * CRC.size:
        return None
    crcs = dict(enumerate(crc for (crc,) in CRC.iter_unpack(rows)))
    return Sidecar(FileOwner(object_id, size, name.decode(), grade), crcs)


def read_sidecar(path: str, object_id: bytes) -> Sidecar | None:
    """Read what is said of the file of an object; None if nothing is, or of another object.

    Raises:
        OSError: If the disk fails.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return None
    head = raw[: SIDECAR_HEAD.size]
    if len(raw) < HEAD_BYTES or CRC.unpack_from(raw, SIDECAR_HEAD.size)[0] != checksum(head):
        return None
    magic, found_id, size, grade, name_bytes, name = SIDECAR_HEAD.unpack(head)
    if (magic, found_id) != (SIDECAR_MAGIC, object_id) or not HEAD_BYTES < len(raw) <= sidecar_bytes(size):
        return None
    owner = FileOwner(object_id, size, name[:name_bytes].decode(), grade)
    return Sidecar(owner, parse_rows(object_id, raw[HEAD_BYTES:]))


def parse_rows(object_id: bytes, raw: bytes) -> dict[int, int]:
    """Return the CRC of each block whose row passes its check."""
    rows = enumerate(SIDECAR_ROW.iter_unpack(raw[: len(raw) // SIDECAR_ROW.size * SIDECAR_ROW.size]))
    return {block: crc for block, (crc, check) in rows if check == row_check(object_id, block, crc)}


def row_check(object_id: bytes, block: int, crc: int) -> int:
    """Return the crc32c of a row."""
    return checksum(CRC.pack(crc), object_id, CRC.pack(block))


def _pack_head(owner: FileOwner) -> bytes:
    name = owner.share.encode()
    head = SIDECAR_HEAD.pack(SIDECAR_MAGIC, owner.object_id, owner.size, owner.grade, len(name), name)
    return head + CRC.pack(checksum(head))


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
