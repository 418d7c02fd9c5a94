"""What a listing of a source changes in a tree, without reading a byte of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from sources import LISTING_SCHEMA
from versioning.changes import ChangeSet
from versioning.columns import (
    as_bytes,
    as_mask,
    concat,
    equal_and_known,
    first_above,
    is_in,
    positions_in,
    single,
    take,
    where,
)
from versioning.entries import ENTRY_SCHEMA, EntryKind
from versioning.errors import InvalidNameError

compute: Any = pyarrow.compute
_COMPARED: pa.Schema = pa.schema(
    [ENTRY_SCHEMA.field(name) for name in ("path", "kind", "size", "store", "key", "source")]
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sources import StoreId
    from versioning.columns import Mask
    from versioning.trees import Tree


def stage_import(
    tree: Tree | None, listing: Iterable[pa.RecordBatch], *, store: StoreId, source_prefix: str, target: str
) -> ChangeSet:
    """Return what a zero-copy import of a listing changes below a directory of the dataset.

    An object is unchanged if the tree's entry has the same source version and size, and either was packed since or
    points at this object (so packing makes no changes, and a source that moved does). Entries below `target` that were
    imported and are listed no more are deleted; entries that were added from disk stay. Keys that end in "/" are
    directory markers and are skipped.

    Args:
        tree: The version to compare with; None: an empty dataset.
        listing: Batches of `sources.LISTING_SCHEMA`: every object below `source_prefix`, in any order, each once.
        store: Id of the store that was listed.
        source_prefix: What the keys start with; it is cut off.
        target: Directory in the dataset, "" or ending in "/"; put in front instead.

    Raises:
        InvalidNameError: For a key that cannot be a path, or is not below `source_prefix`.
    """
    if target and not target.endswith("/"):
        raise InvalidNameError(target, what="import target", reason='it must be "" or end in "/"')
    listed = ChangeSet.of_table(_listed_entries(listing, store, source_prefix, target)).upserts
    if tree is None:
        return ChangeSet(listed, pa.array([], pa.string()))
    changed = np.ones(listed.num_rows, dtype=np.bool_)
    gone: list[pa.Array[Any]] = [pa.array([], pa.string())]
    keys, start = as_bytes(listed.column("path")), 0
    # Leaf by leaf, and none stays: a tree may be larger than the memory.
    for present in tree.scan(target, columns=_COMPARED.names, keep=False):
        end = first_above(keys, as_bytes(present.column("path"))[-1].as_py(), start)
        run = listed.slice(start, end - start)
        at = positions_in(run.column("path"), present.column("path"))
        both = np.flatnonzero(at >= 0)
        changed[start + both[_same_object(take(present, at[both]), take(run, both))]] = False
        imported = where(present, present.column("source").is_valid().to_numpy())
        gone.append(single(where(imported, ~is_in(imported.column("path"), run.column("path"))).column("path")))
        start = end
    return ChangeSet(where(listed, changed), pa.concat_arrays(gone))


def _same_object(before: pa.Table, after: pa.Table) -> Mask:
    """Say row by row whether what was imported is what is listed; see `stage_import`."""
    same = equal_and_known(before.column("source"), after.column("source"))
    same &= equal_and_known(before.column("size"), after.column("size"))
    same_place = equal_and_known(before.column("store"), after.column("store"))
    same_place &= equal_and_known(before.column("key"), after.column("key"))
    return same & (same_place | ~equal_and_known(before.column("kind"), after.column("kind")))


def _listed_entries(batches: Iterable[pa.RecordBatch], store: StoreId, source_prefix: str, target: str) -> pa.Table:
    listed = concat([pa.Table.from_batches(list(batches), LISTING_SCHEMA)], LISTING_SCHEMA)
    key = listed.column("key")
    listed = where(listed, ~as_mask(compute.ends_with(key, "/")))
    key = listed.column("key")
    below = as_mask(compute.starts_with(key, source_prefix))
    if not below.all():
        stray = key[int(np.flatnonzero(~below)[0])].as_py()
        raise InvalidNameError(stray, what="source key", reason=f"it is not below {source_prefix}")
    count = listed.num_rows
    columns = {
        "path": compute.binary_join_element_wise(target, compute.utf8_slice_codeunits(key, len(source_prefix)), ""),
        "kind": pa.repeat(str(EntryKind.EXTERNAL), count),
        "size": listed.column("size"),
        "oid": pa.nulls(count, pa.binary(32)),
        "crc32c": pa.nulls(count, pa.uint32()),
        "store": pa.repeat(str(store), count),
        "key": key,
        "version": listed.column("version"),
        "offset": pa.repeat(0, count),
        "object_size": listed.column("size"),
        "source": listed.column("version"),
        "mtime_ns": listed.column("mtime_ns"),
        "meta": pa.nulls(count, pa.string()),
    }
    return pa.table(columns, schema=ENTRY_SCHEMA)
