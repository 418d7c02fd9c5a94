"""Files of large objects: sparse, of the object's size, filled block by block, read through one mapping."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import threading
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache_runtime.store.layout import BLOCK_BYTES, CRC, BlockRun, Unit, block_span, checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from cache_runtime.store.holding import Holding
    from cache_runtime.store.slabs import OpenUnit

_NAME = re.compile(r"([0-9a-f]{12})-([0-9a-f]{32})")
_WRITE_BYTES = 256 << 10  # see `write_blocks`
_buffers = threading.local()


class BlockFile:
    """One large object's file as this process knows it.

    Attributes:
        unit: Its unit.
        size: Bytes of the object and of the file.
        slot: Its byte in the visited map, masked.
        view: The mapped file, None while it is not mapped. Slices of it stay valid whatever happens to the file's
            name; only bytes of verified blocks may be touched.
        lent: The file held open for `sendfile`, once that was asked for; None while it is not mapped.
        verified: One byte per block, 1 when this process has checked it.
        holding: What readers of single ranges have of it.
    """

    __slots__ = ("_crcs", "holding", "lent", "path", "size", "slot", "unit", "verified", "view")

    def __init__(self, path: str, *, unit: int, size: int, slot: int) -> None:
        self.path = path
        self.unit = unit
        self.size = size
        self.slot = slot
        self.view: memoryview | None = None
        self.lent: OpenUnit | None = None
        self.holding: Holding | None = None
        self.verified = bytearray(-(-size // BLOCK_BYTES))
        self._crcs = array("I", bytes(4 * len(self.verified)))

    def cut(self, offset: int, length: int) -> memoryview | None:
        """Return a range, if the file is mapped and all of the range's blocks are verified."""
        view = self.view
        last = (offset + length - 1) // BLOCK_BYTES
        if view is None or not all(self.verified[offset // BLOCK_BYTES : last + 1]):
            return None
        return view[offset : offset + length]

    def checksums(self, run: BlockRun) -> list[int] | None:
        """Return the CRCs of some blocks, if the file is mapped and all of them are verified."""
        blocks = slice(run.first, run.last + 1)
        return self._crcs[blocks].tolist() if self.view is not None and all(self.verified[blocks]) else None

    def map(self) -> bool:
        """Map the file's object; False if the file is not as long as it was, because touching what is missing kills."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size != self.size:
                return False
            self.view = memoryview(mmap.mmap(fd, self.size, prot=mmap.PROT_READ))
        finally:
            os.close(fd)
        return True

    def is_short(self) -> bool:
        """Say whether the mapped file has been cut since; microseconds, so once for many reads."""
        view = self.view
        return view is not None and view.obj.size() < self.size  # type: ignore[attr-defined] # of the mmap

    def unmap(self) -> None:
        """Let go of the mapping and the descriptor; what was cut and lent of them stays good."""
        self.view = self.lent = None
        self.let_go()

    def let_go(self) -> None:
        """End what readers of single ranges hold: from now on they ask."""
        holding, self.holding = self.holding, None
        if holding is not None:
            holding.view = None

    def distrust(self, block: int) -> None:
        """Check a block before it is read again."""
        self.verified[block] = 0
        self.let_go()

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
        self.trust(block, crc)
        return True

    def trust(self, block: int, crc: bytes) -> None:
        """Take note that a block has its CRC."""
        (self._crcs[block],) = CRC.unpack(crc)
        self.verified[block] = 1


def file_path(directory: str, unit: int, object_id: bytes) -> str:
    """Return the path of a large object's file."""
    return f"{directory}/files/{unit & 0xFF:02x}/{unit:012x}-{object_id.hex()}"


def parse_file_name(name: str) -> tuple[Unit, bytes] | None:
    """Return the unit and the object of a file from its name, None if it is not the name of one."""
    match = _NAME.fullmatch(name)
    return None if match is None else (Unit(int(match[1], 16)), bytes.fromhex(match[2]))


def block_checksum(object_id: bytes, block: int, data: Buffer) -> int:
    """Return the CRC of a block at its place."""
    return checksum(data, object_id, CRC.pack(block))


@contextmanager
def writing(path: str, *, size: int) -> Iterator[int]:
    """Open an object's file for writing, creating it with its full size, and keep the evictor off it meanwhile.

    Args:
        path: The file.
        size: Bytes of the object.

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


def write_blocks(fd: int, data: memoryview, *, first: int) -> None:
    """Write neighbouring blocks of an object from the block `first` on; they must be unpublished.

    Short ones, for the page cache takes a write in pages of its length: for 2 MiB, a huge page each, a virtual machine
    may have to ask its host for memory, and a whole fill then takes up to three times the processor time. What lies in
    huge pages is read in 5 % less time, as long as it stays in memory.
    """
    start = first * BLOCK_BYTES
    while data:
        written = os.pwrite(fd, data[:_WRITE_BYTES], start)
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
