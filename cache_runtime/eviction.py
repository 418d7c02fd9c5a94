"""Making room: SIEVE over units, one evictor at a time."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.blockfiles import file_path
from cache_runtime.layout import CONDEMNED, FILE, Unit, slot_of
from cache_runtime.slabs import OpenUnit, slab_path
from cache_runtime.tables import NO_OBJECT, Entry, NoRoomError, UnitRow
from sources import ObjectId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cache_runtime.index import Index
    from cache_runtime.visited import VisitedMap

_UNITS_PER_READ = 256
_OUR_NAME = re.compile(r"[0-9a-f]{12}(\.slab|-[0-9a-f]{32})")


class UnitState(NamedTuple):
    """What the planner has to know of a unit."""

    unit: Unit
    charged: int
    visited: bool


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """What the hand does on its way.

    Attributes:
        evict: Units to evict, in this order.
        spare: Units to clear the visited mark of.
        hand: The unit at which the next plan starts.
    """

    evict: tuple[Unit, ...]
    spare: tuple[Unit, ...]
    hand: int


def plan_eviction(units: Iterable[UnitState], *, need_bytes: int) -> EvictionPlan:
    """Choose what to evict, as SIEVE does: the hand passes over what was read since it last came by, and clears it.

    Pure, and reads no further than it must. If one lap frees too little, the second begins, on which nothing that the
    first one passed is marked any more.

    Args:
        units: One lap: every unit that may be evicted, from the hand on, oldest first and around.
        need_bytes: Bytes to free; overshot by less than one unit, and missed if all units together hold less.
    """
    evict: list[Unit] = []
    spare: list[UnitState] = []
    freed = 0
    hand = 0
    for state in units:
        if freed >= need_bytes:
            break
        hand = state.unit + 1
        if state.visited:
            spare.append(state)
        else:
            evict.append(state.unit)
            freed += state.charged
    again = 0
    while freed < need_bytes and again < len(spare):
        evict.append(spare[again].unit)
        freed += spare[again].charged
        hand = spare[again].unit + 1
        again += 1
    return EvictionPlan(tuple(evict), tuple(state.unit for state in spare[again:]), hand)


class KeptRecord(NamedTuple):
    """A record that was read lately, taken out of a slab that had to go."""

    object_id: ObjectId
    data: bytes


class Evictor:
    """Carries eviction plans out. The caller holds the evict lock.

    Args:
        directory: The cache directory.
        index: Its index.
        visited: Its visited map.
        keep: Takes the visited records of an evicted slab, to append them anew.
    """

    def __init__(
        self, directory: str, index: Index, visited: VisitedMap, *, keep: Callable[[KeptRecord], None]
    ) -> None:
        self._directory = directory
        self._index = index
        self._visited = visited
        self._keep = keep

    def evict(self, need_bytes: int) -> int:
        """Free at least `need_bytes` if the evictable units hold as much; return the bytes freed."""
        self._index.free_dead_readers()
        with self._index.reading() as tables:
            hand = tables.counter(b"hand")
        plan = plan_eviction(self._lap(hand), need_bytes=need_bytes)
        for unit in plan.spare:
            self._clear(unit)
        freed = sum(self._evict_unit(unit) for unit in plan.evict)
        self._index.change(lambda tables: tables.set_counter(b"hand", plan.hand))
        return freed

    def drop(self, unit: int) -> int:
        """Forget a unit and unlink its file, whatever is in it; return the bytes that were charged."""
        row = self._index.change(lambda tables: tables.condemn(unit))
        if row is None:
            return 0
        self._unlink(unit, row)
        self._visited.bump()
        return row.charged

    def sweep(self) -> None:
        """Unlink the files that no unit owns, left by killed processes and by an index set aside.

        Files are listed before units: a unit is added before its file, so a file listed and not owned is garbage.
        """
        found = [
            os.path.join(directory, name)
            for top in ("slabs", "files")
            for directory, _, names in os.walk(os.path.join(self._directory, top))
            for name in names
            if _OUR_NAME.fullmatch(name)
        ]
        with self._index.reading() as tables:
            units = {self._path(unit, row): (unit, row) for unit, row in tables.units()}
        for path in found:
            if path not in units:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        for unit, row in units.values():
            if row.kind == CONDEMNED:
                self._unlink(unit, row)

    def _unlink(self, unit: int, row: UnitRow) -> None:
        """Give the room of a condemned unit back: only once its file is gone, or both would take it for a moment."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(unit, row))
        self._index.change(lambda tables: tables.release(unit))

    def _lap(self, hand: int) -> Iterator[UnitState]:
        """Yield the evictable units once around; read in portions, because a snapshot must not be held for long."""
        for first, end in ((hand, None), (0, hand)):
            after = first
            while portion := self._portion(after, end):
                after = portion[-1][0] + 1
                for unit, row in portion:
                    if row.kind != CONDEMNED and self._is_free(unit, row):
                        yield UnitState(unit, row.charged, self._is_visited(unit, row))

    def _portion(self, first: int, end: int | None) -> list[tuple[Unit, UnitRow]]:
        found: list[tuple[Unit, UnitRow]] = []
        with self._index.reading() as tables:
            for unit, row in tables.units(first):
                if len(found) == _UNITS_PER_READ or (end is not None and unit >= end):
                    break
                found.append((unit, row))
        return found

    def _is_free(self, unit: int, row: UnitRow) -> bool:
        """Say whether no process writes the unit."""
        try:
            file = self._lock(unit, row)
        except BlockingIOError:
            return False
        if file is not None:
            fcntl.flock(file.fd, fcntl.LOCK_UN)  # a child forked just now has a copy of the descriptor
        return True

    def _lock(self, unit: int, row: UnitRow) -> OpenUnit | None:
        """Lock a unit against its writers, for as long as the result lives; None if its file is not there.

        Raises:
            BlockingIOError: If it is being written.
        """
        try:
            file = OpenUnit(self._path(unit, row))
        except FileNotFoundError:  # its writer died before it was created
            return None
        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def _is_visited(self, unit: int, row: UnitRow) -> bool:
        if row.kind == FILE:
            return self._visited.is_set(slot_of(row.object_id))
        records = self._records(unit)
        live = sum(entry.size for _, entry in records)
        return 2 * sum(entry.size for _, entry in records if self._visited.is_set(entry.slot)) > live

    def _clear(self, unit: int) -> None:
        with self._index.reading() as tables:
            row = tables.unit(unit)
        if row is not None and row.kind == FILE:
            self._visited.clear(slot_of(row.object_id))
        for _, entry in self._records(unit) if row is not None and row.kind != FILE else ():
            self._visited.clear(entry.slot)

    def _records(self, unit: int) -> list[tuple[bytes, Entry]]:
        """List the live records of a slab."""
        with self._index.reading() as tables:
            found = ((object_id, tables.entry(object_id)) for _, object_id in tables.parts(unit))
            return [(object_id, entry) for object_id, entry in found if entry is not None and entry.unit == unit]

    def _evict_unit(self, unit: int) -> int:
        with self._index.reading() as tables:
            row = tables.unit(unit)
        if row is None:
            return 0
        try:
            file = self._lock(unit, row)
        except BlockingIOError:
            return 0
        if row.kind == FILE:
            self._visited.clear(slot_of(row.object_id))
        kept = self._visited_records(unit, file) if row.kind != FILE and file is not None else []
        freed = self.drop(unit)
        for record in kept:
            try:
                self._keep(record)
            except NoRoomError:
                break
        return freed

    def _visited_records(self, unit: int, slab: OpenUnit) -> list[KeptRecord]:
        kept = []
        for object_id, entry in self._records(unit):
            if self._visited.is_set(entry.slot):
                self._visited.clear(entry.slot)
                data = slab.read_record(object_id, start=entry.start, size=entry.size)
                if data is not None:
                    kept.append(KeptRecord(ObjectId(object_id), data))
        return kept

    def _path(self, unit: int, row: UnitRow) -> str:
        if row.object_id == NO_OBJECT:
            return slab_path(self._directory, unit)
        return file_path(self._directory, unit, row.object_id)
