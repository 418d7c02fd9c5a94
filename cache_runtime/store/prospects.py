"""When what is cached is needed again, as far as readers announced it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.store.coming import NOTHING_COMING, read_coming
from cache_runtime.store.layout import FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache_runtime.store.index import Index
    from cache_runtime.store.layout import Unit
    from cache_runtime.store.tables import Entry, Tables, UnitRow

SAMPLES = 32
"""Records of a slab that stand for all."""
_ROWS_PER_READ = 256


class Prospects:
    """What readers of the node announced, by unit.

    Args:
        directory: The cache directory.
        index: Its index.

    Attributes:
        coming: By object, as `look` found it.
    """

    def __init__(self, directory: str, index: Index) -> None:
        self._directory = directory
        self._index = index
        self.coming = NOTHING_COMING
        self._passed: frozenset[bytes] = frozenset()

    def look(self) -> None:
        """Read what is announced now; the caller holds the evict lock."""
        self.coming = read_coming(self._directory)
        self._passed = frozenset(self.coming.passed)

    def of(self, unit: Unit, row: UnitRow) -> tuple[int | None, bool]:
        """Return the bytes that are read before a unit is, None if it was not announced; and whether it was passed.

        A slab was announced if most of it was.
        """
        uses = self.coming.uses
        if row.kind == FILE:
            return uses.get(row.object_id), row.object_id in self._passed
        if not uses:
            return None, False
        with self._index.reading() as tables:
            numbers = range(0, row.charged, max(1, row.charged // SAMPLES))
            records = live_records(tables, unit, tables.sample_parts(unit, numbers))
            found = [uses.get(object_id) for object_id, _ in records]
        distances = [distance for distance in found if distance is not None]
        return min(distances) if 2 * len(distances) > len(found) else None, False

    def passed_files(self) -> Iterator[tuple[Unit, UnitRow]]:
        """Yield the files of what was passed, those that go first first."""
        ids = self.coming.passed
        for first in range(0, len(ids), _ROWS_PER_READ):
            with self._index.reading() as tables:
                entries = [tables.entry(object_id) for object_id in ids[first : first + _ROWS_PER_READ]]
                rows = [(entry.unit, tables.unit(entry.unit)) for entry in entries if entry is not None]
            yield from ((unit, row) for unit, row in rows if row is not None and row.kind == FILE)


def live_records(tables: Tables, unit: int, object_ids: Iterable[bytes]) -> Iterator[tuple[bytes, Entry]]:
    """Yield those of some records of a slab that are not replaced by others."""
    for object_id in object_ids:
        entry = tables.entry(object_id)
        if entry is not None and entry.unit == unit:
            yield object_id, entry
