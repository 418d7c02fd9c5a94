"""Making room: carries eviction plans out, one evictor at a time."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.blockfiles import file_path
from cache_runtime.store.ghosts import MissReason
from cache_runtime.store.layout import CONDEMNED, FILE, Unit, slot_of
from cache_runtime.store.prospects import SAMPLES, Prospects, live_records
from cache_runtime.store.shares import Grade
from cache_runtime.store.sidecars import sidecar_path
from cache_runtime.store.sieve import EvictionClass, UnitState, eviction_classes, plan_eviction
from cache_runtime.store.slabs import OpenUnit, Record, slab_path
from cache_runtime.store.tables import NO_OBJECT, Entry, NoRoomError, UnitRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cache_runtime.store.index import Index
    from cache_runtime.store.shares import Fill
    from cache_runtime.store.tables import Tables
    from cache_runtime.store.visited import VisitedMap

_UNITS_PER_READ = 256
_PASSED_TURNS = 8  # of so many evictions one does not begin with what was passed: what nobody reads goes too
_OUR_NAME = re.compile(r"[0-9a-f]{12}(\.slab|-[0-9a-f]{32})")


class KeptRecord(NamedTuple):
    """A record that was read lately, taken out of a slab that had to go, and the share and grade of that."""

    record: Record
    share: int
    grade: int


class Evictor:
    """Carries eviction plans out. The caller holds the evict lock.

    Args:
        directory: The cache directory.
        index: Its index.
        visited: Its visited map.
        keep: Takes the visited records of an evicted slab, to append them anew.
        grow_bytes: How much one transaction may make the index grow: it writes each page it changes to a new place.
    """

    def __init__(
        self,
        directory: str,
        index: Index,
        visited: VisitedMap,
        *,
        keep: Callable[[KeptRecord], None],
        grow_bytes: int,
    ) -> None:
        self._directory = directory
        self._index = index
        self._visited = visited
        self._keep = keep
        self._per_change = max(16, grow_bytes // (2 * 4096))  # a row in each of two tables
        self._cyclic: frozenset[int] = frozenset()
        self._prospects = Prospects(directory, index)
        self._turns = 0

    def evict(
        self, need_bytes: int, *, slack_bytes: int = 0, fill: Fill | None = None, within_share: bool = False
    ) -> int:
        """Free bytes as `eviction_classes` allows; return how many were freed.

        Args:
            need_bytes: Bytes that a fill has to have: if less may go, nothing goes, for it would help nobody.
            slack_bytes: Bytes to free beyond, if they may go.
            fill: Whom it is for; None: whoever asks, and then less than needed is better than nothing.
            within_share: Whether the room is wanted for the share's quota.
        """
        self._index.free_dead_readers()
        with self._index.reading() as tables:
            rows = tables.share_rows()
            classes = eviction_classes(rows, fill, within_share=within_share)
            hands = {found.name: tables.counter(b"hand" + found.name) for found in classes}
        self._cyclic = frozenset(number for number, row in rows.items() if row.share.cycle_bytes)
        self._prospects.look()
        self._turns += 1
        plan = plan_eviction(
            classes,
            lambda found: self._lap(found, hands[found.name]),
            need_bytes=need_bytes + slack_bytes,
            passed=self._passed,
            passed_first=self._turns % _PASSED_TURNS != 0,
            comes_after=-1 if fill is None else self._prospects.coming.uses.get(fill.object_id),
        )
        if fill is not None and plan.freed_bytes < need_bytes:
            return 0
        try:
            for unit in plan.spare:
                self._clear(unit)
            freed = sum(self._evict_unit(unit) for unit in plan.evict)
        finally:
            self._visited.bump()  # marks were used up, and readers mark a small object once in a generation

        def move_hands(tables: Tables) -> None:
            for name, hand in plan.hands.items():
                tables.set_counter(b"hand" + name, hand)

        self._index.change(move_hands)
        return freed

    def evict_share(self, number: int) -> int:
        """Evict all units of a share that are not pinned and not being written; return the bytes freed."""
        with self._index.reading() as tables:
            units = [unit for unit, row in tables.units() if row.share == number and row.kind != CONDEMNED]
        return sum(self._evict_unit(unit, keep=False) for unit in units)

    def evict_objects(self, object_ids: Iterable[bytes]) -> int:
        """Evict objects that are not pinned; return the bytes freed.

        The bytes of small ones are freed with the last record of their slab.
        """
        units: dict[Unit, bool] = {}
        gone = list(object_ids)

        def forget(tables: Tables, object_id: bytes) -> None:
            entry = tables.entry(object_id)
            row = None if entry is None else tables.unit(entry.unit)
            if entry is None or row is None or tables.is_pinned(object_id):
                return
            units[entry.unit] = row.kind == FILE
            if row.kind != FILE:
                tables.drop_entry(object_id, entry)

        def forget_some(tables: Tables, first: int) -> None:
            for object_id in gone[first : first + self._per_change]:
                forget(tables, object_id)

        for first in range(0, len(gone), self._per_change):
            self._index.change(partial(forget_some, first=first))
        self._visited.ghosts.note(gone, MissReason.EVICTED)
        self._visited.bump()
        return sum(
            self._evict_unit(unit, keep=False) for unit, is_file in units.items() if is_file or not self.records(unit)
        )

    def drop(self, unit: int) -> int:
        """Forget a unit and unlink its file, whatever is in it; return the bytes that were charged."""
        return self._remove(unit, self._index.change(lambda tables: tables.condemn(unit)))

    def sweep(self) -> None:
        """Unlink the files that no unit owns, left by killed processes and by an index set aside.

        Files are listed before units: a unit is added before its file, so a file listed and not owned is garbage.
        """
        found = [
            os.path.join(directory, name)
            for top in ("slabs", "files", "checksums")
            for directory, _, names in os.walk(os.path.join(self._directory, top))
            for name in names
            if _OUR_NAME.fullmatch(name)
        ]
        with self._index.reading() as tables:
            units = dict(tables.units())
        owned = {path for unit, row in units.items() for path in self._paths(unit, row)}
        for path in found:
            if path not in owned:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        for unit, row in units.items():
            if row.kind == CONDEMNED:
                self._unlink(unit, row)

    @contextmanager
    def quiet(self, unit: int) -> Iterator[UnitRow | None]:
        """Keep writers off a unit meanwhile; None if it is gone or being written."""
        with self._index.reading() as tables:
            row = tables.unit(unit)
        file = None
        if row is not None:
            try:
                file = self._lock(unit, row)
            except BlockingIOError:
                row = None
        try:
            yield row
        finally:
            if file is not None:
                fcntl.flock(file.fd, fcntl.LOCK_UN)  # a child forked meanwhile has a copy of the descriptor

    def records(self, unit: int) -> list[tuple[bytes, Entry]]:
        """List the live records of a slab."""
        with self._index.reading() as tables:
            return list(live_records(tables, unit, (object_id for _, object_id in tables.parts(unit))))

    def read_record(self, unit: int, object_id: bytes, entry: Entry) -> Record | None:
        """Read a record, whole and checked; None if it is gone or damaged."""
        try:
            slab = OpenUnit(slab_path(self._directory, unit))
        except FileNotFoundError:
            return None
        return _read(slab, object_id, entry)

    def _remove(self, unit: int, row: UnitRow | None) -> int:
        if row is None:
            return 0
        self._unlink(unit, row)
        self._visited.bump()
        return row.charged

    def _unlink(self, unit: int, row: UnitRow) -> None:
        """Give the room of a condemned unit back: only once its file is gone, or both would take it for a moment."""
        for path in self._paths(unit, row):
            with suppress(FileNotFoundError):
                os.unlink(path)
        self._index.change(lambda tables: tables.release(unit))

    def _lap(self, found: EvictionClass, hand: int) -> Iterator[UnitState]:
        """Yield the evictable units once around; read in portions, because a snapshot must not be held for long."""
        for first, end in ((hand, None), (0, hand)):
            after = first
            while portion := self._portion(after, end):
                after = portion[-1][0] + 1
                for unit, row in portion:
                    if row.kind != CONDEMNED and found.takes(row.share, row.grade):
                        visited = self._is_visited(unit, row)
                        if (visited and row.share in found.spared) or self._is_free(unit, row):
                            yield self._state(unit, row, visited=visited)

    def _state(self, unit: Unit, row: UnitRow, *, visited: bool) -> UnitState:
        distance, passed = self._prospects.of(unit, row)
        return UnitState(unit, row.charged, visited, row.share, row.grade, distance, passed and not visited)

    def _passed(self) -> Iterator[UnitState]:
        """Yield the files of what was announced and passed, and was not read since."""
        for unit, row in self._prospects.passed_files():
            if not self._is_visited(unit, row) and self._is_free(unit, row):
                yield self._state(unit, row, visited=False)

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
        """Say whether a unit was visited; a slab is if more than half of its bytes were.

        In a share that is read in rounds all of a slab is read in a round: it is taken if a quarter was not, because
        the rest is appended anew.
        """
        cyclic = row.share in self._cyclic
        is_marked = self._visited.is_lately if cyclic else self._visited.is_set
        if row.kind == FILE:
            return is_marked(slot_of(row.object_id))
        numbers = range(0, row.charged, max(1, row.charged // SAMPLES))
        with self._index.reading() as tables:
            slots = [entry.slot for _, entry in live_records(tables, unit, tables.sample_parts(unit, numbers))]
        marked = sum(map(is_marked, slots))
        return 4 * marked >= 3 * len(slots) > 0 if cyclic else 2 * marked > len(slots)

    def _clear(self, unit: int) -> None:
        with self._index.reading() as tables:
            row = tables.unit(unit)
        if row is None or row.share in self._cyclic:
            return
        if row.kind == FILE:
            self._visited.clear(slot_of(row.object_id))
            return
        for _, entry in self.records(unit):
            self._visited.clear(entry.slot)

    def _evict_unit(self, unit: int, *, keep: bool = True) -> int:
        with self._index.reading() as tables:
            row = tables.unit(unit)
        if row is None:
            return 0
        try:
            file = self._lock(unit, row)
        except BlockingIOError:
            return 0
        records = self.records(unit) if row.kind != FILE else []
        # one that goes although it was visited goes whole: to keep its records would free next to nothing
        is_worth = keep and row.kind != FILE and row.grade != Grade.GUEST and not self._is_visited(unit, row)
        kept = self._visited_records(row, file, records) if is_worth and file is not None else []
        if row.kind == FILE and row.share not in self._cyclic:
            self._visited.clear(slot_of(row.object_id))
        for first in range(0, len(records), self._per_change):
            some = records[first : first + self._per_change]
            self._index.change(partial(_forget_unpinned, unit=unit, records=some))
        freed = self._remove(unit, self._index.change(lambda tables: _condemn_unpinned(tables, unit)))
        if freed:
            gone = [object_id for object_id, _ in records] if row.kind != FILE else [row.object_id]
            self._visited.ghosts.note(gone, MissReason.EVICTED)
        for record in kept if freed else ():
            try:
                self._keep(record)
            except NoRoomError:
                break
        return freed

    def _visited_records(
        self, row: UnitRow, slab: OpenUnit, records: Iterable[tuple[bytes, Entry]]
    ) -> list[KeptRecord]:
        """Read what of a slab is worth to be appended anew; its marks are used up by it."""
        kept = []
        cyclic = row.share in self._cyclic
        for object_id, entry in records:
            marked = self._visited.is_lately(entry.slot) if cyclic else self._visited.is_set(entry.slot)
            if marked or object_id in self._prospects.coming.uses:
                if not cyclic:
                    self._visited.clear(entry.slot)
                record = _read(slab, object_id, entry)
                if record is not None:
                    kept.append(KeptRecord(record, row.share, row.grade))
        return kept

    def _paths(self, unit: int, row: UnitRow) -> list[str]:
        path = self._path(unit, row)
        return [path] if row.object_id == NO_OBJECT else [path, sidecar_path(self._directory, unit, row.object_id)]

    def _path(self, unit: int, row: UnitRow) -> str:
        if row.object_id == NO_OBJECT:
            return slab_path(self._directory, unit)
        return file_path(self._directory, unit, row.object_id)


def _read(slab: OpenUnit, object_id: bytes, entry: Entry) -> Record | None:
    data = slab.read_record(object_id, start=entry.start, size=entry.size)
    return None if data is None else Record(object_id, data)


def _forget_unpinned(tables: Tables, unit: int, records: Iterable[tuple[bytes, Entry]]) -> None:
    row = tables.unit(unit)
    if row is None or row.grade == Grade.PINNED:
        return
    for object_id, entry in records:
        tables.drop_entry(object_id, entry)


def _condemn_unpinned(tables: Tables, unit: int) -> UnitRow | None:
    row = tables.unit(unit)
    return None if row is None or row.grade == Grade.PINNED else tables.condemn(unit)
