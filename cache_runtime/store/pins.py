"""Pins: objects that are never evicted. They need not be cached yet; what is filled for one is pinned at once.

The index tells what is pinned. The file of pins (`pinfile.py`) is for the day on which that is lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheShareError
from cache_runtime.store.layout import FILE, Unit, pins_path
from cache_runtime.store.locks import PIN_LOCK
from cache_runtime.store.pinfile import add_pins, read_pins, write_pins
from cache_runtime.store.shares import MAX_LABEL_BYTES, Fill, Grade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache_runtime.store.filling import Filler
    from cache_runtime.store.index import Index
    from cache_runtime.store.locks import RangeLocks
    from cache_runtime.store.slabs import Record
    from cache_runtime.store.tables import Entry, Tables

_PER_CHANGE = 1024
_PIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class PinStatus:
    """What is pinned under one label.

    Attributes:
        label: The label.
        objects: Objects pinned under it.
        cached_objects: Those of which anything is cached.
    """

    label: str
    objects: int
    cached_objects: int


class Pins:
    """Pins objects of a store; large ones by the grade of their file, small ones by moving them into pinned slabs.

    Args:
        directory: The cache directory.
        index: The store's index.
        filler: Its writing half.
        locks: Its locks.
    """

    def __init__(self, directory: str, index: Index, filler: Filler, locks: RangeLocks) -> None:
        self._path = pins_path(directory)
        self._index = index
        self._filler = filler
        self._locks = locks

    def pin(self, object_ids: Sequence[bytes], label: str) -> int:
        """Do `BlockStore.pin`."""
        name = _pack(label)
        return sum(self._pin(batch, name) for batch in _batches(object_ids))

    def unpin(self, label: str) -> int:
        """Do `BlockStore.unpin`."""
        name = _pack(label)
        with self._locks.fixed(PIN_LOCK, seconds=_PIN_SECONDS):
            taken = self._unpin(name)
            rest = ((found, ids) for found, ids in read_pins(self._path) if found != name)
            write_pins(self._path, rest)
        if taken:
            self._filler.release()  # a slab that is written to cannot change its grade
            self._release_slabs()
            self._filler.refusals.forget()
        return taken

    def _unpin(self, label: bytes) -> int:
        taken, after = 0, b""
        while pins := self._portion(after):
            after = b"".join(pins[-1])
            gone = [object_id for object_id, found in pins if found == label]
            taken += len(gone)
            if gone:
                self._index.change(partial(_unpin, object_ids=gone, label=label))
        return taken

    def status(self) -> tuple[PinStatus, ...]:
        """Do `BlockStore.pins`."""
        objects: Counter[bytes] = Counter()
        cached: Counter[bytes] = Counter()
        after = b""
        while pins := self._portion(after):
            after = b"".join(pins[-1])
            with self._index.reading() as tables:
                for object_id, label in pins:
                    objects[label] += 1
                    cached[label] += tables.entry(object_id) is not None
        return tuple(
            PinStatus(label.decode(), objects=objects[label], cached_objects=cached[label]) for label in sorted(objects)
        )

    def _portion(self, after: bytes) -> list[tuple[bytes, bytes]]:
        with self._index.reading() as tables:
            return list(islice(tables.pins(after), _PER_CHANGE))

    def _pin(self, object_ids: Sequence[bytes], label: bytes) -> int:
        """Pin some objects, and move the small ones; return how many are cached and pinned now."""
        with self._locks.fixed(PIN_LOCK, seconds=_PIN_SECONDS):
            with self._index.reading() as tables:
                new = [found for found in dict.fromkeys(object_ids) if label not in tables.pin_labels(found)]
            if new:
                add_pins(self._path, label, new)
            firm, loose = self._index.change(partial(_pin, object_ids=object_ids, label=label))
        return firm + self._move(loose)

    def _move(self, found: Sequence[tuple[int, bytes, Entry]]) -> int:
        """Append records anew to pinned slabs of their shares; return how many had room."""
        by_share: dict[int, list[Record]] = {}
        for share, object_id, entry in found:
            record = self._filler.evictor.read_record(entry.unit, object_id, entry)
            if record is not None:
                by_share.setdefault(share, []).append(record)
        with self._index.reading() as tables:
            shares = {number: tables.share_row(number).share for number in by_share}
        return sum(
            self._filler.append_all(Fill(number, shares[number], Grade.PINNED), records)
            for number, records in by_share.items()
        )

    def _release_slabs(self) -> None:
        """Let pinned slabs be evicted again; what is still pinned in them is moved to others first."""
        with self._index.reading() as tables:
            slabs = [unit for unit, row in tables.units() if row.grade == Grade.PINNED and row.kind != FILE]
        for unit in slabs:
            self._release_slab(unit)

    def _release_slab(self, unit: Unit) -> None:
        with self._filler.evictor.quiet(unit) as row:
            if row is None:  # gone, or another process writes it: it is looked at with the next label
                return
            records = self._filler.evictor.records(unit)
            with self._index.reading() as tables:
                pinned = [(row.share, object_id, entry) for object_id, entry in records if tables.is_pinned(object_id)]
            if (len(pinned) < len(records) or not records) and self._move(pinned) == len(pinned):
                self._index.change(lambda tables: tables.regrade(unit, Grade.NORMAL))


def _pin(tables: Tables, object_ids: Sequence[bytes], label: bytes) -> tuple[int, list[tuple[int, bytes, Entry]]]:
    """Return how many of the objects are in pinned units now, and where the small ones are that are not."""
    firm, loose = 0, []
    for object_id in object_ids:
        tables.pin(object_id, label)
        entry = tables.entry(object_id)
        row = None if entry is None else tables.unit(entry.unit)
        if entry is None or row is None:
            continue
        if row.kind == FILE:
            tables.regrade(entry.unit, Grade.PINNED)
        if row.kind == FILE or row.grade == Grade.PINNED:
            firm += 1
        else:
            loose.append((row.share, object_id, entry))
    return firm, loose


def _unpin(tables: Tables, object_ids: Sequence[bytes], label: bytes) -> None:
    for object_id in object_ids:
        tables.unpin(object_id, label)
        entry = tables.entry(object_id)
        row = None if entry is None else tables.unit(entry.unit)
        if entry is not None and row is not None and row.kind == FILE and not tables.is_pinned(object_id):
            tables.regrade(entry.unit, Grade.NORMAL)


def _pack(label: str) -> bytes:
    name = label.encode()
    if not 0 < len(name) <= MAX_LABEL_BYTES:
        raise CacheShareError(label, f"labels are 1 to {MAX_LABEL_BYTES} bytes of UTF-8")
    return name


def _batches(object_ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (object_ids[start : start + _PER_CHANGE] for start in range(0, len(object_ids), _PER_CHANGE))
