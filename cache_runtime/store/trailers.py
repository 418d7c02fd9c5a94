"""Files of format 2, which had behind the object's bytes what is in a sidecar now; see `sidecars.py`.

At `disk_bytes(size)` a row of each block, as in a sidecar; then `TRAILER_TAIL`: magic, object id, size, grade, length
and name of the share; then the crc32c of that.
"""

from __future__ import annotations

import os
from struct import Struct

from cache_runtime.store.layout import BLOCK_BYTES, CRC, checksum, disk_bytes
from cache_runtime.store.sidecars import SIDECAR_ROW, FileOwner, Sidecar, parse_rows, write_sidecar

TRAILER_TAIL = Struct("<4s16sQBB2x256s")
TRAILER_MAGIC = b"FBT2"
_TAIL_BYTES = TRAILER_TAIL.size + CRC.size


def cut_trailer(path: str, sidecar: str, object_id: bytes) -> Sidecar | None:
    """Move what a file says of itself into its sidecar; None if it is not, whole, a file of format 2 of that object.

    The sidecar comes first: whoever is killed between the two steps leaves a file that still has its trailer.

    Raises:
        OSError: If the disk fails.
    """
    found = _read_trailer(path, object_id)
    if found is not None and found.crcs:
        for block, crc in found.crcs.items():
            write_sidecar(sidecar, found.owner, {block: crc})
        os.truncate(path, found.owner.size)
    return found


def _read_trailer(path: str, object_id: bytes) -> Sidecar | None:
    with open(path, "rb") as file:
        fd = file.fileno()
        length = os.fstat(fd).st_size
        tail = os.pread(fd, _TAIL_BYTES, max(0, length - _TAIL_BYTES))
        crc = tail[TRAILER_TAIL.size :]
        if len(tail) != _TAIL_BYTES or CRC.pack(checksum(tail[: TRAILER_TAIL.size])) != crc:
            return None
        magic, found_id, size, grade, name_bytes, name = TRAILER_TAIL.unpack_from(tail)
        rows_bytes = -(-size // BLOCK_BYTES) * SIDECAR_ROW.size
        if (magic, found_id, disk_bytes(size) + rows_bytes + _TAIL_BYTES) != (TRAILER_MAGIC, object_id, length):
            return None
        rows = os.pread(fd, rows_bytes, disk_bytes(size))
    return Sidecar(FileOwner(object_id, size, name[:name_bytes].decode(), grade), parse_rows(object_id, rows))
