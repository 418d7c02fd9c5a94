"""Slabs: files that small objects are appended to whole, read by all processes, each written by one."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import threading
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.footers import FOOTER_ENTRY, SlabRecord, footer_bytes, pack_footer
from cache_runtime.store.layout import RECORD_HEADER, RECORD_MAGIC, SLAB, Unit, checksum, disk_bytes
from cache_runtime.store.shares import Grade
from cache_runtime.store.tables import UnitGoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from cache_runtime.store.index import Index
    from cache_runtime.store.tables import Room, Tables


_NAME = re.compile(r"([0-9a-f]{12})\.slab")


_MAX_WRITERS = 4
MAX_RECORDS = 500
"""Most records of one append: two buffers each, and the system takes 1024 in a call."""


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
        view: A mapping of its first bytes, once there is one. Give it to the kernel, and never look into it: a file
            that was cut ends the process that does.
    """

    __slots__ = ("fd", "view")

    def __init__(self, path: str, flags: int = os.O_RDONLY) -> None:
        self.view: memoryview | None = None
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o666)

    def __del__(self) -> None:
        with suppress(AttributeError):  # the constructor failed
            os.close(self.fd)

    def map(self, end: int) -> memoryview | None:
        """Map the file up to `end` or further; None if it is shorter or cannot be mapped."""
        try:
            size = os.fstat(self.fd).st_size
            if size < end:
                return None
            self.view = memoryview(mmap.mmap(self.fd, size, prot=mmap.PROT_READ))
        except OSError:
            return None
        return self.view

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


def parse_slab_name(name: str) -> Unit | None:
    """Return the unit of a slab from its file's name, None if it is not the name of one."""
    match = _NAME.fullmatch(name)
    return None if match is None else Unit(int(match[1], 16))


class Record(NamedTuple):
    """A small object to be appended; its CRC where it is known already."""

    object_id: bytes
    data: Buffer
    crc: int | None = None


class SlabWriter:
    """Append records to the one slab that this process has locked; a full one is sealed and the next one opened.

    Args:
        directory: The cache directory.
        index: Its index.
        slab_bytes: Size that no slab passes.
        room: Tells what may be charged now.
        home: Number of the share and grade of its slabs, and the share's name.
    """

    def __init__(
        self,
        directory: str,
        index: Index,
        *,
        slab_bytes: int,
        room: Callable[[], Room],
        home: tuple[int, int, str] = (0, Grade.NORMAL, ""),
    ) -> None:
        self._directory = directory
        self._index = index
        self._slab_bytes = slab_bytes
        self._room = room
        self._share, self._grade, self._name = home
        self._lock = threading.Lock()
        self._slab: OpenUnit | None = None
        self._unit = Unit(0)
        self._end = 0
        self._charged = 0
        self._records: list[SlabRecord] = []  # for the footer

    def append(self, records: Sequence[Record]) -> list[RecordPlace]:
        """Write records to one slab, the first ones of them that fit, and at least one; return where they are.

        They are nothing until their places are published in the index.

        Args:
            records: At least one, at most `MAX_RECORDS`.

        Raises:
            NoRoomError: If the capacity has no room for them.
            OSError: If the disk fails.
        """
        parts: list[Buffer] = []
        for object_id, data, crc in records:
            size = memoryview(data).nbytes
            found = checksum(data, object_id) if crc is None else crc
            parts += (RECORD_HEADER.pack(RECORD_MAGIC, object_id, size, found), data)
        sizes = [RECORD_HEADER.size + memoryview(data).nbytes for data in parts[1::2]]
        with self._lock:
            slab, count = self._slab_with_room(sizes)
            starts = list(accumulate(sizes[:count], initial=self._end))
            places = [RecordPlace(self._unit, start, start + RECORD_HEADER.size) for start in starts[:-1]]
            self._end = starts[-1]
            self._records += [
                SlabRecord(record.object_id, place.header, size - RECORD_HEADER.size)
                for record, place, size in zip(records, places, sizes, strict=False)
            ]
        if os.pwritev(slab.fd, parts[: 2 * count], starts[0]) != starts[-1] - starts[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), slab_path(self._directory, places[0].unit))
        return places

    def release(self) -> None:
        """Unlock the slab; the next append takes it over again, or another process does."""
        with self._lock:
            self._slab = None

    def forget_parent(self) -> None:
        """Leave the slab to the parent of this fork; the next append opens another one."""
        self._lock = threading.Lock()
        self._slab = None

    def _slab_with_room(self, sizes: list[int]) -> tuple[OpenUnit, int]:
        """Return a slab, and for how many of some records there are bytes charged behind its end."""
        while True:
            if self._slab is None:
                self._slab = self._take_over() or self._create()
            count, needed = self._fitting(sizes)
            if count == 0:
                self._write_footer(self._slab)
                self._slab = self._create()
                continue
            if needed <= self._charged:
                return self._slab, count
            step = max(needed - self._charged, min(self._slab_bytes // 16, self._slab_bytes - self._charged))
            try:
                self._charge(disk_bytes(step))
            except UnitGoneError:  # removed by hand, or evicted before its file was there
                with suppress(FileNotFoundError):
                    os.unlink(slab_path(self._directory, self._unit))  # no unit has this number again
                self._slab = None

    def _fitting(self, sizes: list[int]) -> tuple[int, int]:
        """Return how many records fit into the slab, and the size that it has to be charged for with its footer."""
        count, needed = 0, self._end + footer_bytes(len(self._records), share=self._name)
        for size in sizes:
            if needed + size + FOOTER_ENTRY.size > self._slab_bytes:
                break
            count, needed = count + 1, needed + size + FOOTER_ENTRY.size
        return count, needed

    def _charge(self, step: int) -> None:
        unit, room = self._unit, self._room()
        self._index.change(lambda tables: tables.charge(unit, step, room))
        self._charged += step

    def _write_footer(self, slab: OpenUnit) -> None:
        """End a full slab; records that other threads still write are in the footer, and checked when they are read."""
        os.pwrite(slab.fd, pack_footer(self._records, share=self._name, grade=self._grade), self._end)

    def _create(self) -> OpenUnit:
        full = self._unit

        def start_slab(tables: Tables) -> Unit:
            tables.seal(full)
            return tables.add_unit(SLAB, share=self._share, grade=self._grade)

        while True:
            unit = self._index.change(start_slab)
            try:
                slab = OpenUnit(slab_path(self._directory, unit), os.O_RDWR | os.O_CREAT | os.O_EXCL)
                fcntl.flock(slab.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileExistsError, BlockingIOError):
                # a power cut undid the commit that counted it, or the evictor was faster: take the next number
                continue
            self._unit, self._end, self._charged, self._records = unit, 0, 0, []
            return slab

    def _take_over(self) -> OpenUnit | None:
        """Open a slab with room whose writer has ended: the lock went with it."""
        with self._index.reading() as tables:
            mine = (self._share, self._grade)
            growing = [unit for unit, row in tables.units() if row.kind == SLAB and (row.share, row.grade) == mine]
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
            # evicted, sealed or regraded before we had the lock
            if row is None or (row.kind, row.share, row.grade) != (SLAB, self._share, self._grade):
                return False
            records = tables.records(unit)
        self._unit, self._end, self._charged, self._records = unit, end, row.charged, records
        return True


class SlabWriters:
    """The slabs that this process writes, at most a few: each has a part that is charged and not yet written.

    Args:
        new_writer: Makes the writer of a share's number and a grade.
    """

    def __init__(self, new_writer: Callable[[int, int], SlabWriter]) -> None:
        self._new_writer = new_writer
        self._lock = threading.Lock()
        self._writers: dict[tuple[int, int], SlabWriter] = {}

    def writer(self, share: int, grade: int) -> SlabWriter:
        """Return the writer for a share and a grade; the one used least recently makes room for a new one."""
        with self._lock:
            writer = self._writers.pop((share, grade), None) or self._new_writer(share, grade)
            self._writers[share, grade] = writer  # the last one now
            released = self._writers.pop(next(iter(self._writers))) if len(self._writers) > _MAX_WRITERS else None
        if released is not None:
            released.release()
        return writer

    def release(self) -> None:
        """Unlock all slabs."""
        with self._lock:
            writers = list(self._writers.values())
        for writer in writers:
            writer.release()

    def forget_parent(self) -> None:
        """Leave the slabs to the parent of this fork."""
        self._lock = threading.Lock()
        for writer in self._writers.values():
            writer.forget_parent()
