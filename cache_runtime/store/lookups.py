"""What of some objects the index knows, without a look at their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.store.layout import CRC, SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache_runtime.store.index import Index
    from cache_runtime.store.layout import BlockRun
    from cache_runtime.store.tables import Tables
    from sources import ObjectRef

_IDS_PER_SNAPSHOT = 4096


def stored_checksums(index: Index, ref: ObjectRef, run: BlockRun) -> list[int] | None:
    """See `BlockStore.checksums`."""
    with index.reading() as tables:
        entry = tables.entry(ref.id)
        if entry is None or entry.size != ref.size:
            return None
        crcs = [tables.part(entry.unit, block) for block in range(run.first, run.last + 1)]
    return None if None in crcs else [int(CRC.unpack(crc)[0]) for crc in crcs if crc is not None]


def missing_among(index: Index, wanted: Sequence[tuple[ObjectRef, Iterable[int]]]) -> list[list[int]]:
    """See `BlockStore.missing_among`."""
    with index.reading() as tables:
        return [_missing(tables, ref, blocks) for ref, blocks in wanted]


def missing_ids(index: Index, object_ids: Sequence[bytes]) -> Iterator[bytes]:
    """Yield those of some ids of which nothing is cached; read in portions, for others wait for a snapshot."""
    for start in range(0, len(object_ids), _IDS_PER_SNAPSHOT):
        part = object_ids[start : start + _IDS_PER_SNAPSHOT]
        with index.reading() as tables:
            gone = [object_id for object_id in part if tables.entry(object_id) is None]
        yield from gone


def _missing(tables: Tables, ref: ObjectRef, blocks: Iterable[int]) -> list[int]:
    entry = tables.entry(ref.id)
    if entry is None or entry.size != ref.size:
        return list(blocks)
    if ref.size <= SMALL_BYTES:
        return []
    return [block for block in blocks if tables.part(entry.unit, block) is None]
