"""The index's rows inside one transaction. A change checks first, then writes: changes share transactions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cache_runtime.store.footers import SlabRecord
from cache_runtime.store.layout import (
    CONDEMNED,
    COUNTER,
    CRC,
    ENTRY,
    FILE,
    PART_KEY,
    PIN_PREFIX,
    SEALED_SLAB,
    SHARE_KEY,
    SLAB,
    UNIT_KEY,
    UNIT_ROW,
    Unit,
    disk_bytes,
)
from cache_runtime.store.shares import Grade, Share, ShareRow
from cache_runtime.store.sidecars import sidecar_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NO_OBJECT = bytes(16)
_SHARE = b"share"
_MAX_SHARES = 1 << 16
_NO_SHARE = Share()


class UnitGoneError(Exception):
    """The unit was evicted; what was written to it is lost, which is a miss."""


class NoRoomError(Exception):
    """The charge would pass a limit: `short_bytes` are to be evicted first, counted from `used_bytes`.

    Attributes:
        share: Number of the share whose quota it is, and whose are the `used_bytes`; None: it is the capacity.
    """

    def __init__(self, short_bytes: int, *, used_bytes: int, share: int | None = None) -> None:
        super().__init__(short_bytes, used_bytes)
        self.short_bytes = short_bytes
        self.used_bytes = used_bytes
        self.share = share


class Room(NamedTuple):
    """What may be charged: all units together up to `limit_bytes`, and no more than `free_bytes` beyond now."""

    limit_bytes: int
    free_bytes: int


class Entry(NamedTuple):
    """Row of an object, see `layout.ENTRY`."""

    unit: Unit
    header: int
    start: int
    slot: int
    size: int


class UnitRow(NamedTuple):
    """Row of a unit, see `layout.UNIT_ROW`."""

    kind: int
    charged: int
    object_id: bytes
    share: int = 0
    grade: int = Grade.NORMAL


class Tables:
    """The four tables as one transaction sees them.

    Args:
        txn: An LMDB transaction; a write transaction for the methods that change something.
        objects, units, parts, meta: The tables' handles.
    """

    __slots__ = ("_meta", "_objects", "_parts", "_txn", "_units")

    def __init__(self, txn: Any, objects: Any, units: Any, parts: Any, meta: Any) -> None:
        self._txn = txn
        self._objects = objects
        self._units = units
        self._parts = parts
        self._meta = meta

    def counter(self, name: bytes) -> int:
        """Read a number of `meta`; 0 when it was never written."""
        value = self._txn.get(name, db=self._meta)
        return 0 if value is None else int(COUNTER.unpack(value)[0])

    def set_counter(self, name: bytes, number: int) -> None:
        """Write a number of `meta`."""
        self._txn.put(name, COUNTER.pack(number), db=self._meta)

    def entry(self, object_id: bytes) -> Entry | None:
        """Read an object's row."""
        value = self._txn.get(object_id, db=self._objects)
        return None if value is None else Entry(*ENTRY.unpack(value))

    def unit(self, unit: int) -> UnitRow | None:
        """Read a unit's row; None if it was evicted."""
        row = self._unit_row(unit)
        return None if row is None or row.kind == CONDEMNED else row

    def units(self, first: int = 0) -> Iterator[tuple[Unit, UnitRow]]:
        """Yield the units from number `first` on, oldest first, condemned ones too."""
        cursor = self._txn.cursor(db=self._units)
        if cursor.set_range(UNIT_KEY.pack(first)):
            for key, value in cursor:
                yield Unit(*UNIT_KEY.unpack(key)), UnitRow(*UNIT_ROW.unpack(value))

    def part(self, unit: int, number: int) -> bytes | None:
        """Read one part of a unit: the CRC of a block, the object id of a record."""
        value: bytes | None = self._txn.get(PART_KEY.pack(unit, number), db=self._parts)
        return value

    def parts(self, unit: int, first: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield the numbers and values of a unit's parts from number `first` on, ascending."""
        cursor = self._txn.cursor(db=self._parts)
        if not cursor.set_range(PART_KEY.pack(unit, first)):
            return
        for key, value in cursor:
            found, number = PART_KEY.unpack(key)
            if found != unit:
                return
            yield number, value

    def records(self, unit: int) -> list[SlabRecord]:
        """List the live records of a slab, by their offsets."""
        found = ((header, object_id, self.entry(object_id)) for header, object_id in self.parts(unit))
        return [
            SlabRecord(object_id, header, entry.size)
            for header, object_id, entry in found
            if entry is not None and (entry.unit, entry.header) == (unit, header)
        ]

    def sample_parts(self, unit: int, numbers: Iterable[int]) -> Iterator[bytes]:
        """Yield, for each of some numbers, the value of the unit's first part from that number on, if there is one."""
        cursor = self._txn.cursor(db=self._parts)
        for number in numbers:
            if cursor.set_range(PART_KEY.pack(unit, number)) and PART_KEY.unpack(cursor.key())[0] == unit:
                yield cursor.value()

    def totals(self) -> tuple[int, int, int]:
        """Return how many objects, units and parts there are."""
        objects, units, parts = (int(self._txn.stat(db)["entries"]) for db in (self._objects, self._units, self._parts))
        return objects, units, parts

    def commits(self) -> int:
        """Return which commit of the index this is."""
        return int(self._txn.id())

    def share_row(self, number: int) -> ShareRow:
        """Read a share's row; one that is not there has no limits."""
        value = self._txn.get(SHARE_KEY.pack(_SHARE, number), db=self._meta)
        return ShareRow(_NO_SHARE) if value is None else ShareRow.unpack(value)

    def share_rows(self) -> dict[int, ShareRow]:
        """Read all shares, by number."""
        keys = self._meta_from(_SHARE)
        return {SHARE_KEY.unpack(key)[1]: ShareRow.unpack(value) for key, value in keys}

    def share_number(self, name: str) -> int | None:
        """Return a share's number, None if it is not there."""
        return next((number for number, row in self.share_rows().items() if row.share.name == name), None)

    def enlist(self, share: Share) -> int:
        """Add a share, or give it new terms; return its number."""
        rows = self.share_rows()
        number = next((number for number, row in rows.items() if row.share.name == share.name), None)
        if number is None:
            number = 0 if not share.name else max(rows, default=0) + 1
            if number >= _MAX_SHARES:
                return 0
        row = rows.get(number, ShareRow(share))
        if rows.get(number) is None or row.share != share:
            self._put_share(number, row._replace(share=share))
        return number

    def mark_refused(self, number: int, tick: int) -> None:
        """Note when a share was refused something."""
        row = self.share_row(number)
        if row.refused_tick != tick:
            self._put_share(number, row._replace(refused_tick=tick))

    def is_pinned(self, object_id: bytes) -> bool:
        """Say whether an object is pinned, cached or not."""
        return any(True for _ in self.pin_labels(object_id))

    def pin_labels(self, object_id: bytes) -> Iterator[bytes]:
        """Yield the labels that an object is pinned under."""
        start = PIN_PREFIX + object_id
        return (key[len(start) :] for key, _ in self._meta_from(start))

    def pins(self, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield object id and label of the pins, by object id, from behind one of them on (id and label joined)."""
        first = len(PIN_PREFIX)
        keys = (key[first:] for key, _ in self._meta_from(PIN_PREFIX, after))
        return ((key[:16], key[16:]) for key in keys if key != after)

    def pin(self, object_id: bytes, label: bytes) -> None:
        """Pin an object under a label; twice is as good as once."""
        if self._txn.put(PIN_PREFIX + object_id + label, b"", overwrite=False, db=self._meta):
            self.set_counter(b"pins", self.counter(b"pins") + 1)

    def unpin(self, object_id: bytes, label: bytes) -> None:
        """Take a pin off."""
        if self._txn.delete(PIN_PREFIX + object_id + label, db=self._meta):
            self.set_counter(b"pins", self.counter(b"pins") - 1)

    def add_unit(self, kind: int, object_id: bytes = NO_OBJECT, *, share: int = 0, grade: int = Grade.NORMAL) -> Unit:
        """Add a unit that nothing is charged to yet; its number was never used before."""
        # the first one is from the clock: a process may still use the files of an index that was lost or set aside
        unit = Unit((self.counter(b"next") or time.time_ns() >> 14) + 1)
        self.set_counter(b"next", unit)
        self._put_unit(unit, UnitRow(kind, 0, object_id, share, grade))
        return unit

    def regrade(self, unit: int, grade: Grade) -> None:
        """Give a unit another grade, if it is still there."""
        row = self.unit(unit)
        if row is not None and row.grade != grade:
            share = self.share_row(row.share).charged(row.grade, -row.charged)
            self._put_share(row.share, share.charged(grade, row.charged))
            self._put_unit(unit, row._replace(grade=grade))

    def restore_unit(self, unit: int, row: UnitRow) -> None:
        """Add a unit of a lost index again, with the number and the charge that it had."""
        self._put_unit(unit, row)
        self._put_share(row.share, self.share_row(row.share).charged(row.grade, row.charged))
        self.set_counter(b"used", self.counter(b"used") + row.charged)
        self.set_counter(b"next", max(self.counter(b"next"), unit, time.time_ns() >> 14))

    def restore_file(self, object_id: bytes, entry: Entry, crcs: Mapping[int, int]) -> None:
        """Make the file of a large object visible again, with some blocks (number -> CRC)."""
        self._txn.put(object_id, ENTRY.pack(*entry), db=self._objects)
        self.publish_blocks(entry.unit, crcs)

    def seal(self, unit: int) -> None:
        """Mark a slab as full, if it is still there."""
        row = self.unit(unit)
        if row is not None and row.kind == SLAB:
            self._put_unit(unit, row._replace(kind=SEALED_SLAB))

    def charge(self, unit: int, add_bytes: int, room: Room) -> None:
        """Charge bytes to a unit, before they are written.

        Raises:
            UnitGoneError: If it was evicted.
            NoRoomError: If there is no room for them.
        """
        row = self.unit(unit)
        if row is None:
            raise UnitGoneError
        self._check_quota(row.share, add_bytes)
        used = self._used_with(add_bytes, room)
        self._put_unit(unit, row._replace(charged=row.charged + add_bytes))
        self._put_share(row.share, self.share_row(row.share).charged(row.grade, add_bytes))
        self.set_counter(b"used", used)

    def charge_file(
        self,
        object_id: bytes,
        entry: Entry,
        add_bytes: int,
        room: Room,
        *,
        share: int = 0,
        grade: int = Grade.NORMAL,
    ) -> Unit:
        """Charge bytes to the unit of a large object, adding one if it has none; return its number.

        Args:
            object_id: The object.
            entry: Its row if it gets a new unit, whose number is filled in.
            add_bytes: Bytes to charge.
            room: What may be charged now.
            share: Number of the share of a new unit.
            grade: Grade of a new unit.

        Raises:
            NoRoomError: If there is no room for them; no unit was added.
        """
        found = self.entry(object_id)
        beside = disk_bytes(sidecar_bytes(entry.size))
        if found is not None and found.size == entry.size:
            row = self.unit(found.unit)
            # a block that is written again after a crash or damage takes no more room than before
            fresh = add_bytes if row is None else min(add_bytes, disk_bytes(entry.size) + beside - row.charged)
            self.charge(found.unit, fresh, room)
            if row is not None and grade > row.grade:  # a guest that this node now owns, or pins
                self.regrade(found.unit, Grade(grade))
            return found.unit
        add_bytes += beside
        self._check_quota(share, add_bytes)
        self._used_with(add_bytes, room)
        unit = self.add_unit(FILE, object_id, share=share, grade=grade)
        self._txn.put(object_id, ENTRY.pack(*entry._replace(unit=unit)), db=self._objects)
        self.charge(unit, add_bytes, room)
        return unit

    def publish_record(self, object_id: bytes, entry: Entry) -> None:
        """Make a written record visible.

        Raises:
            UnitGoneError: If its slab was evicted.
        """
        if self.unit(entry.unit) is None:
            raise UnitGoneError
        self._put_record(object_id, entry)

    def publish_records(self, unit: int, records: Iterable[tuple[bytes, Entry]], room: Room) -> None:
        """Make written records (object id and row) of one slab visible.

        Args:
            unit: The slab.
            records: What was written to it.
            room: Looked at again because the index grows, too.

        Raises:
            UnitGoneError: If the slab was evicted.
            NoRoomError: If the index has taken the room.
        """
        if self.unit(unit) is None:
            raise UnitGoneError
        self._used_with(0, room)
        for object_id, entry in records:
            self._put_record(object_id, entry)

    def publish_blocks(self, unit: int, crcs: Mapping[int, int]) -> None:
        """Make written blocks (number -> CRC) visible.

        Raises:
            UnitGoneError: If their file was evicted.
        """
        if self.unit(unit) is None:
            raise UnitGoneError
        for block, crc in crcs.items():
            self._txn.put(PART_KEY.pack(unit, block), CRC.pack(crc), db=self._parts)

    def drop_entry(self, object_id: bytes, entry: Entry | None) -> None:
        """Forget the record of a small object, unless it has been filled anew meanwhile."""
        if entry is not None and self.entry(object_id) == entry:
            self._txn.delete(object_id, db=self._objects)
            if entry.start:
                self.drop_part(entry.unit, entry.header)

    def drop_part(self, unit: int, number: int) -> None:
        """Forget one block."""
        self._txn.delete(PART_KEY.pack(unit, number), db=self._parts)

    def drop_bad(self, object_id: bytes, unit: int, number: int) -> None:
        """Forget a damaged block or record, but not what the object was filled anew with meanwhile."""
        entry = self.entry(object_id)
        if entry is not None and entry.unit == unit and entry.start and entry.header == number:
            self._txn.delete(object_id, db=self._objects)
        self.drop_part(unit, number)

    def condemn(self, unit: int) -> UnitRow | None:
        """Forget all that is in a unit, and return its row; None if it is gone.

        What is charged to it stays charged until `release`: its file still takes the room.
        """
        row = self.unit(unit)
        if row is None:
            return None
        parts = list(self.parts(unit))
        for number, _ in parts:
            self.drop_part(unit, number)
        for object_id in [row.object_id] if row.kind == FILE else [value for _, value in parts]:
            entry = self.entry(object_id)
            if entry is not None and entry.unit == unit:
                self._txn.delete(object_id, db=self._objects)
        self._put_unit(unit, row._replace(kind=CONDEMNED))
        return row

    def release(self, unit: int) -> None:
        """Forget a condemned unit, and uncharge its bytes; twice is as good as once."""
        row = self._unit_row(unit)
        if row is not None:
            self._txn.delete(UNIT_KEY.pack(unit), db=self._units)
            self.set_counter(b"used", self.counter(b"used") - row.charged)
            self._put_share(row.share, self.share_row(row.share).charged(row.grade, -row.charged))

    def uncharge(self, unit: int, charged: int) -> None:
        """Lower what is charged to a unit that will not grow any more."""
        row = self.unit(unit)
        if row is not None and charged < row.charged:
            spare = row.charged - charged
            self._put_unit(unit, row._replace(charged=charged))
            self._put_share(row.share, self.share_row(row.share).charged(row.grade, -spare))
            self.set_counter(b"used", self.counter(b"used") - spare)

    def _check_quota(self, share: int, add_bytes: int) -> None:
        row = self.share_row(share)
        quota = row.share.quota_bytes
        if quota is not None and add_bytes > 0 and row.used + add_bytes > quota:
            raise NoRoomError(row.used + add_bytes - quota, used_bytes=row.used, share=share)

    def _used_with(self, add_bytes: int, room: Room) -> int:
        used = self.counter(b"used")
        short = max(used + add_bytes - room.limit_bytes, add_bytes - room.free_bytes)
        if short > 0:
            raise NoRoomError(short, used_bytes=used)
        return used + add_bytes

    def _put_record(self, object_id: bytes, entry: Entry) -> None:
        if not self._txn.put(object_id, ENTRY.pack(*entry), overwrite=False, db=self._objects):
            self.drop_entry(object_id, self.entry(object_id))  # the record that it takes the place of
            self._txn.put(object_id, ENTRY.pack(*entry), db=self._objects)
        self._txn.put(PART_KEY.pack(entry.unit, entry.header), object_id, db=self._parts)

    def _unit_row(self, unit: int) -> UnitRow | None:
        value = self._txn.get(UNIT_KEY.pack(unit), db=self._units)
        return None if value is None else UnitRow(*UNIT_ROW.unpack(value))

    def _meta_from(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor(db=self._meta)
        if not cursor.set_range(prefix + after):
            return
        for key, value in cursor:
            if not key.startswith(prefix):
                return
            yield key, value

    def _put_share(self, number: int, row: ShareRow) -> None:
        self._txn.put(SHARE_KEY.pack(_SHARE, number), row.pack(), db=self._meta)

    def _put_unit(self, unit: int, row: UnitRow) -> None:
        self._txn.put(UNIT_KEY.pack(unit), UNIT_ROW.pack(*row), db=self._units)
