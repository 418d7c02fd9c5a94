"""Files of large objects: sparse, of the object's size, filled block by block, read through one mapping."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache_runtime.layout import BLOCK_BYTES, CRC, BlockRun, block_span, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

_buffers = threading.local()


class BlockFile:
    """One large object's file as this process knows it.

    Attributes:
        unit: Its unit.
        size: Bytes of the object and of the file.
        slot: Its byte in the visited map, masked.
        view: The mapped file, None while it is not mapped. Slices of it stay valid whatever happens to the file's
            name; only bytes of verified blocks may be touched.
        verified: One byte per block, 1 when this process has checked it.
    """

    __slots__ = ("path", "size", "slot", "unit", "verified", "view")

    def __init__(self, path: str, *, unit: int, size: int, slot: int) -> None:
        self.path = path
        self.unit = unit
        self.size = size
        self.slot = slot
        self.view: memoryview | None = None
        self.verified = bytearray(-(-size // BLOCK_BYTES))

    def cut(self, offset: int, length: int) -> memoryview | None:
        """Return a range, if the file is mapped and all of the range's blocks are verified."""
        view = self.view
        last = (offset + length - 1) // BLOCK_BYTES
        if view is None or not all(self.verified[offset // BLOCK_BYTES : last + 1]):
            return None
        return view[offset : offset + length]

    def map(self) -> bool:
        """Map the file; False if it does not have the object's size, because touching what is missing kills."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size != self.size:
                return False
            self.view = memoryview(mmap.mmap(fd, self.size, prot=mmap.PROT_READ))
        finally:
            os.close(fd)
        return True

    def check_block(self, object_id: bytes, block: int, crc: bytes) -> bool:
        """Read a block and compare it with its CRC.

        It is read, not touched in the mapping: a short file or a failing disk is then an answer, not a signal.
        """
        start, length = block_span(BlockRun(block, block), self.size)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = _read_block(fd, start, length)
        finally:
            os.close(fd)
        if data is None or CRC.pack(block_checksum(object_id, block, data)) != crc:
            return False
        self.verified[block] = 1
        return True


def file_path(directory: str, unit: int, object_id: bytes) -> str:
    """Return the path of a large object's file."""
    return f"{directory}/files/{unit & 0xFF:02x}/{unit:012x}-{object_id.hex()}"


def block_checksum(object_id: bytes, block: int, data: Buffer) -> int:
    """Return the CRC of a block at its place."""
    return checksum(data, object_id, CRC.pack(block))


@contextmanager
def writing(path: str, *, size: int) -> Iterator[int]:
    """Open an object's file for writing, creating it with its full size, and keep the evictor off it meanwhile.

    Raises:
        BlockingIOError: If the evictor has it.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        yield fd
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has a copy of the descriptor
        os.close(fd)


def write_all(fd: int, data: memoryview, start: int) -> None:
    """Write bytes at an offset, however many calls it takes. Only unpublished blocks may be written."""
    while data:
        written = os.pwrite(fd, data, start)
        data, start = data[written:], start + written


def _read_block(fd: int, start: int, length: int) -> memoryview | None:
    """Read into this thread's buffer (a fresh 4 MiB costs more than the copy); None if the file ends before."""
    try:
        buffer: memoryview = _buffers.block
    except AttributeError:
        buffer = _buffers.block = memoryview(bytearray(BLOCK_BYTES))
    got = 0
    while got < length:
        count = os.preadv(fd, [buffer[got:length]], start + got)
        if count == 0:
            return None
        got += count
    return buffer[:length]
