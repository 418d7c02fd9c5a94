"""The index's rows inside one transaction. A change checks first, then writes: changes share transactions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cache_runtime.layout import (
    CONDEMNED,
    COUNTER,
    CRC,
    ENTRY,
    FILE,
    PART_KEY,
    SEALED_SLAB,
    SLAB,
    UNIT_KEY,
    UNIT_ROW,
    Unit,
    disk_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NO_OBJECT = bytes(16)


class UnitGoneError(Exception):
    """The unit was evicted; what was written to it is lost, which is a miss."""


class NoRoomError(Exception):
    """The charge would pass a limit: `short_bytes` are to be evicted first, counted from `used_bytes`."""

    def __init__(self, short_bytes: int, *, used_bytes: int) -> None:
        super().__init__(short_bytes, used_bytes)
        self.short_bytes = short_bytes
        self.used_bytes = used_bytes


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

    def totals(self) -> tuple[int, int, int]:
        """Return how many objects, units and parts there are."""
        objects, units, parts = (int(self._txn.stat(db)["entries"]) for db in (self._objects, self._units, self._parts))
        return objects, units, parts

    def add_unit(self, kind: int, object_id: bytes = NO_OBJECT) -> Unit:
        """Add a unit that nothing is charged to yet; its number was never used before."""
        # the first one is from the clock: a process may still use the files of an index that was lost or set aside
        unit = Unit((self.counter(b"next") or time.time_ns() >> 14) + 1)
        self.set_counter(b"next", unit)
        self._put_unit(unit, UnitRow(kind, 0, object_id))
        return unit

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
        used = self._used_with(add_bytes, room)
        self._put_unit(unit, row._replace(charged=row.charged + add_bytes))
        self.set_counter(b"used", used)

    def charge_file(self, object_id: bytes, entry: Entry, add_bytes: int, room: Room) -> Unit:
        """Charge bytes to the unit of a large object, adding one if it has none; return its number.

        Args:
            object_id: The object.
            entry: Its row if it gets a new unit, whose number is filled in.
            add_bytes: Bytes to charge.
            room: What may be charged now.

        Raises:
            NoRoomError: If there is no room for them; no unit was added.
        """
        found = self.entry(object_id)
        if found is not None and found.size == entry.size:
            row = self.unit(found.unit)
            # a block that is written again after a crash or damage takes no more room than before
            fresh = add_bytes if row is None else min(add_bytes, disk_bytes(entry.size) - row.charged)
            self.charge(found.unit, fresh, room)
            return found.unit
        self._used_with(add_bytes, room)
        unit = self.add_unit(FILE, object_id)
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
        self._txn.put(PART_KEY.pack(entry.unit, entry.header), object_id, db=self._parts)
        self._txn.put(object_id, ENTRY.pack(*entry), db=self._objects)

    def publish_blocks(self, unit: int, crcs: Mapping[int, int]) -> None:
        """Make written blocks (number -> CRC) visible.

        Raises:
            UnitGoneError: If their file was evicted.
        """
        if self.unit(unit) is None:
            raise UnitGoneError
        for block, crc in crcs.items():
            self._txn.put(PART_KEY.pack(unit, block), CRC.pack(crc), db=self._parts)

    def drop_entry(self, object_id: bytes, entry: Entry) -> None:
        """Forget where an object is, unless it has been filled anew meanwhile."""
        if self.entry(object_id) == entry:
            self._txn.delete(object_id, db=self._objects)

    def drop_part(self, unit: int, number: int) -> None:
        """Forget one block."""
        self._txn.delete(PART_KEY.pack(unit, number), db=self._parts)

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

    def _used_with(self, add_bytes: int, room: Room) -> int:
        used = self.counter(b"used")
        short = max(used + add_bytes - room.limit_bytes, add_bytes - room.free_bytes)
        if short > 0:
            raise NoRoomError(short, used_bytes=used)
        return used + add_bytes

    def _unit_row(self, unit: int) -> UnitRow | None:
        value = self._txn.get(UNIT_KEY.pack(unit), db=self._units)
        return None if value is None else UnitRow(*UNIT_ROW.unpack(value))

    def _put_unit(self, unit: int, row: UnitRow) -> None:
        self._txn.put(UNIT_KEY.pack(unit), UNIT_ROW.pack(*row), db=self._units)
