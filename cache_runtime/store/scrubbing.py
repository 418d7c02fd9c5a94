"""Reading what is cached from the disk itself, in the background, to find damage before a reader does."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.blockfiles import block_checksum, file_path
from cache_runtime.store.directfiles import DirectFile
from cache_runtime.store.layout import (
    BLOCK_BYTES,
    CONDEMNED,
    CRC,
    FILE,
    RECORD_HEADER,
    RECORD_MAGIC,
    BlockRun,
    block_span,
    checksum,
)
from cache_runtime.store.slabs import slab_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from cache_runtime.store.footers import SlabRecord
    from cache_runtime.store.index import Index
    from cache_runtime.store.tables import UnitRow

_UNITS_PER_READ = 256
_MAX_NAMED = 1000


class BadPart(NamedTuple):
    """A block or record whose bytes failed their check: its object, unit, and block number or the record's offset."""

    object_id: bytes
    unit: int
    number: int


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What a scrub found.

    Attributes:
        checked_bytes: Bytes read and checked.
        checked_parts: Blocks and records checked.
        bad_parts: Of these, forgotten because their bytes failed the check; the next read fetches them anew.
        bad_units: Slabs and files that could not be read or were missing; forgotten whole.
        bad_objects: Ids of the objects with bad parts, the first 1000.
        seconds: How long it took.
        complete: False if it was stopped.
    """

    checked_bytes: int = 0
    checked_parts: int = 0
    bad_parts: int = 0
    bad_units: int = 0
    bad_objects: tuple[bytes, ...] = ()
    seconds: float = 0.0
    complete: bool = True

    def __add__(self, other: ScrubReport) -> ScrubReport:
        return ScrubReport(
            self.checked_bytes + other.checked_bytes,
            self.checked_parts + other.checked_parts,
            self.bad_parts + other.bad_parts,
            self.bad_units + other.bad_units,
            (self.bad_objects + other.bad_objects)[:_MAX_NAMED],
            self.seconds + other.seconds,
            self.complete and other.complete,
        )


class Scrubber:
    """Checks each published block and record of a directory once, past the page cache where the file system allows it.

    Args:
        directory: The cache directory.
        index: Its index.
        forget: Forgets a bad block or record.
        drop: Forgets a unit that cannot be read, and unlinks its file.
        bytes_per_second: Most bytes to read in a second; None: as many as the disk gives.
        stop: Set to end the scrub after the current few MiB.
        on_progress: Called after each unit with what was found so far.
    """

    def __init__(
        self,
        directory: str,
        index: Index,
        *,
        forget: Callable[[BadPart], None],
        drop: Callable[[int], object],
        bytes_per_second: float | None,
        stop: threading.Event | None,
        on_progress: Callable[[ScrubReport], None] | None,
    ) -> None:
        self._directory = directory
        self._index = index
        self._forget = forget
        self._drop = drop
        self._rate = bytes_per_second
        self._stop = stop if stop is not None else threading.Event()
        self._on_progress = on_progress
        self._began = time.monotonic()
        self._bytes = self._parts = self._bad_units = 0
        self._bad: list[BadPart] = []

    def run(self, only: Collection[bytes] | None = None) -> ScrubReport:
        """Check all units that are there now, or only those objects.

        Raises:
            lmdb.Error: If the index cannot be read.
        """
        for unit, row in self._units() if only is None else self._units_of(only):
            if self._stop.is_set():
                break
            try:
                self._check_unit(unit, row, only)
            except OSError as error:
                self._lose(unit, error)
            if self._on_progress is not None:
                self._on_progress(self._report())
        return self._report()

    def _report(self) -> ScrubReport:
        objects = dict.fromkeys(part.object_id for part in self._bad)
        return ScrubReport(
            checked_bytes=self._bytes,
            checked_parts=self._parts,
            bad_parts=len(self._bad),
            bad_units=self._bad_units,
            bad_objects=tuple(objects)[:_MAX_NAMED],
            seconds=time.monotonic() - self._began,
            complete=not self._stop.is_set(),
        )

    def _units(self) -> Iterator[tuple[int, UnitRow]]:
        """Yield the units, read in portions, because a snapshot must not be held for long."""
        first = 0
        while True:
            with self._index.reading() as tables:
                portion = [found for _, found in zip(range(_UNITS_PER_READ), tables.units(first), strict=False)]
            if not portion:
                return
            yield from ((unit, row) for unit, row in portion if row.kind != CONDEMNED)
            first = portion[-1][0] + 1

    def _units_of(self, object_ids: Iterable[bytes]) -> Iterator[tuple[int, UnitRow]]:
        with self._index.reading() as tables:
            entries = [tables.entry(object_id) for object_id in object_ids]
            units = {entry.unit: tables.unit(entry.unit) for entry in entries if entry is not None}
        yield from ((unit, row) for unit, row in units.items() if row is not None)

    def _check_unit(self, unit: int, row: UnitRow, only: Collection[bytes] | None) -> None:
        if row.kind == FILE:
            self._check_file(unit, row.object_id)
        else:
            with self._index.reading() as tables:
                records = tables.records(unit)
            self._check_slab(unit, [record for record in records if only is None or record.object_id in only])

    def _check_file(self, unit: int, object_id: bytes) -> None:
        with self._index.reading() as tables:
            entry = tables.entry(object_id)
            crcs = list(tables.parts(unit))
        if entry is None or entry.unit != unit or not crcs:
            return
        with DirectFile(file_path(self._directory, unit, object_id)) as file:
            for block, crc in crcs:
                start, length = block_span(BlockRun(block, block), entry.size)
                data = self._read(file, start, length)
                if data is None:
                    return
                good = len(data) == length and CRC.pack(block_checksum(object_id, block, data)) == crc
                self._count(BadPart(object_id, unit, block), good=good)

    def _check_slab(self, unit: int, records: list[SlabRecord]) -> None:
        if not records:
            return
        with DirectFile(slab_path(self._directory, unit)) as file:
            for window in windows(records):
                start = window[0].header
                data = self._read(file, start, _end(window[-1]) - start)
                if data is None:
                    return
                for record in window:
                    raw = data[record.header - start : _end(record) - start]
                    self._count(BadPart(record.object_id, unit, record.header), good=is_record(record, raw))

    def _read(self, file: DirectFile, start: int, length: int) -> memoryview | None:
        """Read at the wanted pace; None if the scrub is to stop."""
        if self._rate is not None:
            self._stop.wait(max(0.0, self._bytes / self._rate - (time.monotonic() - self._began)))
        if self._stop.is_set():
            return None
        data = file.read(start, length)
        self._bytes += len(data)
        return data

    def _count(self, part: BadPart, *, good: bool) -> None:
        self._parts += 1
        if not good and self._is_published(part):
            self._bad.append(part)
            self._forget(part)

    def _is_published(self, part: BadPart) -> bool:
        """Look whether a bad part was not evicted, or forgotten by a reader, while it was read."""
        with self._index.reading() as tables:
            return tables.part(part.unit, part.number) is not None

    def _lose(self, unit: int, error: OSError) -> None:
        with self._index.reading() as tables:
            gone = tables.unit(unit) is None
        if gone:  # evicted while it was read
            return
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise error
        self._bad_units += 1
        self._drop(unit)


def windows(records: Iterable[SlabRecord], *, limit: int = BLOCK_BYTES) -> Iterator[list[SlabRecord]]:
    """Join records, ascending by their offsets, into windows of at most `limit` bytes, or of one record."""
    window: list[SlabRecord] = []
    for record in records:
        if window and _end(record) - window[0].header > limit:
            yield window
            window = []
        window.append(record)
    if window:
        yield window


def is_record(record: SlabRecord, raw: memoryview) -> bool:
    """Say whether bytes are, one by one, those of a record."""
    if len(raw) != RECORD_HEADER.size + record.size:
        return False
    magic, object_id, size, crc = RECORD_HEADER.unpack_from(raw)
    return (magic, object_id, size) == (RECORD_MAGIC, record.object_id, record.size) and crc == checksum(
        raw[RECORD_HEADER.size :], object_id
    )


def _end(record: SlabRecord) -> int:
    return record.header + RECORD_HEADER.size + record.size
