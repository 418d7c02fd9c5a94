"""Making an index from what slabs and files say about themselves, where the old one is lost or not to be trusted."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.blockfiles import parse_file_name
from cache_runtime.store.footers import SlabContent, read_slab
from cache_runtime.store.index import Index
from cache_runtime.store.layout import FILE, RECORD_HEADER, SEALED_SLAB, Unit, disk_bytes, pins_path, slot_of
from cache_runtime.store.pinfile import read_pins
from cache_runtime.store.shares import Grade, Share
from cache_runtime.store.sidecars import Sidecar, read_attribute, read_sidecar, sidecar_bytes, sidecar_path
from cache_runtime.store.slabs import OpenUnit, parse_slab_name
from cache_runtime.store.tables import NO_OBJECT, Entry, UnitRow
from cache_runtime.store.trailers import cut_trailer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache_runtime.store.tables import Tables

_log = logging.getLogger(__name__)
_UNREADABLE = (BlockingIOError, FileNotFoundError)  # a living process writes it; removed by hand just now


class FoundUnit(NamedTuple):
    """A file that may be a unit's; `object_id` is None for a slab."""

    unit: Unit
    object_id: bytes | None
    path: str


def rebuild_index(directory: str, *, reason: str) -> None:
    """Put a new index in the place of the one that is there or not; what does not check is left out of it.

    Bytes are checked on their first read, as ever, or now where there is no footer. Left out is, too, what a living
    process writes: it finds the new index and begins a new slab. Killed on its way, it leaves the old index. Pins come
    from their file; a slab is pinned whole if anything in it is. Shares get their terms back from the next fill.

    Args:
        directory: The cache directory; the caller holds the open lock.
        reason: Why the old one is not used, for the log.

    Raises:
        OSError, lmdb.Error: If the disk fails.
        CacheTimeoutError: If another process holds the write lock for 5 seconds.
    """
    path = os.path.join(directory, "index.lmdb")
    began = time.monotonic()
    _remove(f"{path}.new", f"{path}.new-lock")
    index = Index(f"{path}.new")
    try:
        for label, object_ids in read_pins(pins_path(directory)):
            index.change(partial(_restore_pins, object_ids=object_ids, label=label))
        # the newest first: what an older one holds of the same objects was to be unlinked
        kept = sum(_restore(index, found, directory) for found in reversed(find_units(directory)))
        with index.reading() as tables:
            objects, units, _ = tables.totals()
        index.replace(path)
    finally:
        index.close()
        _remove(f"{path}.new", f"{path}.new-lock")
    _log.warning(
        "cache index rebuilt path=%s reason=%s units=%d objects=%d bytes=%d seconds=%.2f",
        path,
        reason,
        units,
        objects,
        kept,
        time.monotonic() - began,
    )


def find_units(directory: str) -> list[FoundUnit]:
    """List the files of units, oldest first."""
    found = [*_find_slabs(f"{directory}/slabs"), *_find_files(f"{directory}/files")]
    return sorted(found, key=lambda unit: unit.unit)


def _find_slabs(top: str) -> Iterator[FoundUnit]:
    for name in os.listdir(top):
        unit = parse_slab_name(name)
        if unit is not None:
            yield FoundUnit(unit, None, f"{top}/{name}")


def _find_files(top: str) -> Iterator[FoundUnit]:
    for directory, _, names in os.walk(top):
        for name in names:
            parsed = parse_file_name(name)
            if parsed is not None:
                yield FoundUnit(*parsed, f"{directory}/{name}")


def _restore(index: Index, found: FoundUnit, directory: str) -> int:
    """Add a unit to the new index; return its bytes on disk, 0 if it was left out."""
    try:
        file = OpenUnit(found.path)
        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        charged = os.fstat(file.fd).st_blocks * 512
        if found.object_id is None:
            content = read_slab(file.fd)
            return index.change(lambda tables: _restore_slab(tables, found.unit, content, charged))
        beside = sidecar_path(directory, found.unit, found.object_id)
        sidecar = _sidecar_of(file.fd, beside, found.object_id) or cut_trailer(found.path, beside, found.object_id)
        if sidecar is None or not sidecar.crcs:
            return 0
        charged = os.fstat(file.fd).st_blocks * 512 + disk_bytes(sidecar_bytes(sidecar.owner.size))  # as a fill does
        return index.change(lambda tables: _restore_file(tables, found.unit, sidecar, charged))
    except _UNREADABLE:
        return 0
    except OSError as error:
        _log.warning("left out of the new index path=%s error=%s", found.path, error)
        return 0


def _restore_pins(tables: Tables, object_ids: Sequence[bytes], label: bytes) -> None:
    for object_id in object_ids:
        tables.pin(object_id, label)


def _restore_slab(tables: Tables, unit: Unit, content: SlabContent, charged: int) -> int:
    records = [record for record in content.records if tables.entry(record.object_id) is None]
    if not records:
        return 0
    share = tables.enlist(Share(content.share))
    grade = _grade(tables, content.grade, [record.object_id for record in records])
    tables.restore_unit(unit, UnitRow(SEALED_SLAB, charged, NO_OBJECT, share, grade))
    for object_id, header, size in records:
        start = header + RECORD_HEADER.size
        tables.publish_record(object_id, Entry(unit, header, start, slot=slot_of(object_id), size=size))
    return charged


def _sidecar_of(fd: int, path: str, object_id: bytes) -> Sidecar | None:
    """Read what is said of a file; None if it has another length than its object, too: it may be of format 2."""
    sidecar = read_attribute(fd, object_id) or read_sidecar(path, object_id)
    return sidecar if sidecar is not None and os.fstat(fd).st_size == sidecar.owner.size else None


def _restore_file(tables: Tables, unit: Unit, sidecar: Sidecar, charged: int) -> int:
    object_id = sidecar.owner.object_id
    if tables.entry(object_id) is not None:
        return 0
    share = tables.enlist(Share(sidecar.owner.share))
    grade = _grade(tables, sidecar.owner.grade, [object_id])
    tables.restore_unit(unit, UnitRow(FILE, charged, object_id, share, grade))
    entry = Entry(unit, 0, 0, slot=slot_of(object_id), size=sidecar.owner.size)
    tables.restore_file(object_id, entry, sidecar.crcs)
    return charged


def _grade(tables: Tables, recorded: int, object_ids: Iterable[bytes]) -> Grade:
    """Return the grade of a unit; what it says itself is from the day on which it was made."""
    if any(tables.is_pinned(object_id) for object_id in object_ids):
        return Grade.PINNED
    return Grade.GUEST if recorded == Grade.GUEST else Grade.NORMAL


def _remove(*paths: str) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
