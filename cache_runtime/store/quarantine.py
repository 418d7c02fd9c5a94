"""Forgetting what failed its check, so that the next read fetches it anew, and counting it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cache_runtime.store.ghosts import MissReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache_runtime.store.eviction import Evictor
    from cache_runtime.store.index import Index
    from cache_runtime.store.reading import StoreReader
    from cache_runtime.store.scrubbing import BadPart
    from cache_runtime.store.shelf import Shelf
    from cache_runtime.store.tables import Entry, Tables
    from cache_runtime.store.visited import VisitedMap
    from sources import ObjectRef

_log = logging.getLogger(__name__)


class Quarantine:
    """Forgets damaged parts of a store.

    Args:
        store: The store; its counters are used, and the records that it has checked forgotten.
        index: Its index.
        visited: Its visited map, for the ghosts.
        evictor: Drops whole units.
        shelf: What it has open.
    """

    def __init__(
        self,
        store: StoreReader,
        index: Index,
        visited: VisitedMap,
        evictor: Evictor,
        *,
        shelf: Shelf,
    ) -> None:
        self._store = store
        self._index = index
        self._ghosts = visited.ghosts
        self._evictor = evictor
        self._shelf = shelf

    def forget(self, ref: ObjectRef, change: Callable[[Tables], None]) -> None:
        """Forget a block or record that a reader found damaged."""
        self._index.change(change)
        self._note(ref.id)
        _log.warning("cached bytes failed their check and are fetched anew object=%s id=%s", ref.uri, ref.id.hex())

    def forget_file(self, ref: ObjectRef, entry: Entry) -> None:
        """Forget a large object whose file is missing or short; one that was evicted just now is forgotten already."""
        self._shelf.drop(ref.id)
        if self._evictor.drop(entry.unit):
            self._note(ref.id)
            _log.warning("cached file is missing or short, fetched anew object=%s id=%s", ref.uri, ref.id.hex())

    def forget_part(self, part: BadPart) -> None:
        """Forget a block or record that a scrub found damaged."""
        file = self._shelf.files.get(part.object_id)
        if file is not None and file.unit == part.unit:
            file.distrust(part.number)
        self._store.family_marks.discard(part.unit, part.number)
        self._store.forget_record(part.object_id)
        self._index.change(lambda tables: tables.drop_bad(part.object_id, part.unit, part.number))
        self._note(part.object_id)
        _log.warning("cached bytes failed their check and are forgotten id=%s", part.object_id.hex())

    def forget_unit(self, unit: int) -> None:
        """Forget a unit that a scrub could not read."""
        if self._evictor.drop(unit):
            self._store.stats.corrupt_blocks += 1
            _log.warning("cached file cannot be read, forgotten directory=%s unit=%012x", self._store.directory, unit)

    def _note(self, object_id: bytes) -> None:
        self._ghosts.note([object_id], MissReason.CORRUPT)
        self._store.stats.corrupt_blocks += 1
