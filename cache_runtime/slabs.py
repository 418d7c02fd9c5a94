"""Slabs: files that small objects are appended to whole, read by all processes, each written by one."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.layout import RECORD_HEADER, RECORD_MAGIC, SLAB, Unit, checksum, disk_bytes
from cache_runtime.tables import UnitGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from cache_runtime.index import Index
    from cache_runtime.tables import Room, Tables


class RecordPlace(NamedTuple):
    """Where a record is: its unit, and the offsets of its header and of its bytes."""

    unit: Unit
    header: int
    start: int


class OpenUnit:
    """The open file of a unit.

    The descriptor is closed with the last reference, so whoever holds it never reads another file under a
    reused number, and the bytes of an unlinked one stay readable.

    Attributes:
        fd: Descriptor of the file.
    """

    __slots__ = ("fd",)

    def __init__(self, path: str, flags: int = os.O_RDONLY) -> None:
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o666)

    def __del__(self) -> None:
        with suppress(AttributeError):  # the constructor failed
            os.close(self.fd)

    def read_record(self, object_id: bytes, *, start: int, size: int) -> bytes | None:
        """Read a record whole and check it: None if it is not, byte for byte, the object's record."""
        raw = os.pread(self.fd, RECORD_HEADER.size + size, start - RECORD_HEADER.size)
        if len(raw) != RECORD_HEADER.size + size:
            return None
        magic, found_id, found_size, crc = RECORD_HEADER.unpack_from(raw)
        data = raw[RECORD_HEADER.size :]
        if (magic, found_id, found_size) != (RECORD_MAGIC, object_id, size) or checksum(data, object_id) != crc:
            return None
        return data


def slab_path(directory: str, unit: int) -> str:
    """Return a slab's path."""
    return f"{directory}/slabs/{unit:012x}.slab"


class SlabWriter:
    """Append records to the one slab that this process has locked; a full one is sealed and the next one opened.

    Args:
        directory: The cache directory.
        index: Its index.
        slab_bytes: Size that no slab passes.
        room: Tells what may be charged now.
    """

    def __init__(self, directory: str, index: Index, *, slab_bytes: int, room: Callable[[], Room]) -> None:
        self._directory = directory
        self._index = index
        self._slab_bytes = slab_bytes
        self._room = room
        self._lock = threading.Lock()
        self._slab: OpenUnit | None = None
        self._unit = Unit(0)
        self._end = 0
        self._charged = 0

    def append(self, object_id: bytes, data: Buffer) -> RecordPlace:
        """Write one record; it is nothing until its place is published in the index.

        Raises:
            NoRoomError: If the capacity has no room for it.
            OSError: If the disk fails.
        """
        size = memoryview(data).nbytes
        total = RECORD_HEADER.size + size
        header = RECORD_HEADER.pack(RECORD_MAGIC, object_id, size, checksum(data, object_id))
        with self._lock:
            slab = self._slab_with_room(total)
            place = RecordPlace(self._unit, self._end, self._end + RECORD_HEADER.size)
            self._end += total
        if os.pwritev(slab.fd, [header, data], place.header) != total:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), slab_path(self._directory, place.unit))
        return place

    def release(self) -> None:
        """Unlock the slab; the next append takes it over again, or another process does."""
        with self._lock:
            self._slab = None

    def forget_parent(self) -> None:
        """Leave the slab to the parent of this fork; the next append opens another one."""
        self._lock = threading.Lock()
        self._slab = None

    def _slab_with_room(self, total: int) -> OpenUnit:
        """Return a slab with `total` bytes charged behind its end."""
        while True:
            if self._slab is None:
                self._slab = self._take_over() or self._create()
            elif self._end + total > self._slab_bytes:
                self._slab = self._create()
            if self._end + total <= self._charged:
                return self._slab
            step = disk_bytes(max(self._end + total - self._charged, self._slab_bytes // 16))
            try:
                self._charge(step)
            except UnitGoneError:  # removed by hand, or evicted before its file was there
                with suppress(FileNotFoundError):
                    os.unlink(slab_path(self._directory, self._unit))  # no unit has this number again
                self._slab = None

    def _charge(self, step: int) -> None:
        unit, room = self._unit, self._room()
        self._index.change(lambda tables: tables.charge(unit, step, room))
        self._charged += step

    def _create(self) -> OpenUnit:
        full = self._unit

        def start_slab(tables: Tables) -> Unit:
            tables.seal(full)
            return tables.add_unit(SLAB)

        while True:
            unit = self._index.change(start_slab)
            try:
                slab = OpenUnit(slab_path(self._directory, unit), os.O_RDWR | os.O_CREAT | os.O_EXCL)
                fcntl.flock(slab.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileExistsError, BlockingIOError):
                # a power cut undid the commit that counted it, or the evictor was faster: take the next number
                continue
            self._unit, self._end, self._charged = unit, 0, 0
            return slab

    def _take_over(self) -> OpenUnit | None:
        """Open a slab with room whose writer has ended: the lock went with it."""
        with self._index.reading() as tables:
            growing = [unit for unit, row in tables.units() if row.kind == SLAB]
        for unit in growing:
            with suppress(FileNotFoundError, BlockingIOError):  # just being created or evicted; its writer lives
                slab = OpenUnit(slab_path(self._directory, unit), os.O_RDWR)
                fcntl.flock(slab.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._adopt(unit, slab):
                    return slab
        return None

    def _adopt(self, unit: Unit, slab: OpenUnit) -> bool:
        end = os.fstat(slab.fd).st_size  # behind all that was written, published or not
        if end > self._slab_bytes * 3 // 4:
            self._index.change(lambda tables: tables.seal(unit))
            return False
        with self._index.reading() as tables:
            row = tables.unit(unit)
            if row is None or row.kind != SLAB:  # evicted or sealed before we had the lock
                return False
        self._unit, self._end, self._charged = unit, end, row.charged
        return True
