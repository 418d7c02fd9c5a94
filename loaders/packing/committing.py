"""From stored shards to a change set: the same files in new places, or what a transform made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from loaders.packing.tasks import MEMBER_SCHEMA
from versioning import ENTRY_SCHEMA, ChangeSet, EntryKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loaders.packing.planning import Inventory
    from loaders.packing.tasks import ShardResult

pc: Any = pyarrow.compute


def changes_of(inventory: Inventory, results: Sequence[ShardResult], *, is_layout: bool) -> ChangeSet:
    """Put the places of all shards into one change set.

    Args:
        inventory: What was packed.
        results: Of all its shards.
        is_layout: Nothing but places changed. Else a file that no shard has is deleted.
    """
    results = sorted(results, key=lambda result: result.number)
    members = pa.concat_tables([MEMBER_SCHEMA.empty_table(), *(result.members for result in results)])
    starts = np.array([inventory.plan.shards[result.number][0] for result in results], np.int64)
    counts = np.array([len(result.members) for result in results], np.int64)
    rows = members["row"].to_numpy() + np.repeat(starts, counts)
    entries = _relocated(inventory.entries.take(rows), members, results, counts)
    if is_layout:  # by path, as the tree had them: numbers are sorted sooner than paths
        return ChangeSet.of_table(entries.take(np.argsort(inventory.plan.rows[rows])))
    entries = _as_made(entries, members)
    gone = pc.invert(pc.is_in(inventory.entries["path"], value_set=entries["path"].combine_chunks()))
    deleted = inventory.entries["path"].filter(gone).combine_chunks()
    return ChangeSet.of_table(entries, deleted)


def _relocated(
    entries: pa.Table, members: pa.Table, results: Sequence[ShardResult], counts: npt.NDArray[np.int64]
) -> pa.Table:
    """Return entries whose bytes lie in the shards; source, mtime and meta stay."""
    packs = [result.pack for result in results]
    number: Any = pa.array(np.repeat(np.arange(len(packs)), counts))

    def of_pack(values: list[Any], kind: pa.DataType) -> Any:
        found: Any = pa.array(values, kind)
        return found.take(number)

    return _with_columns(
        entries,
        {
            "kind": pa.repeat(str(EntryKind.PACKED), len(entries)),
            "size": members["size"],
            "oid": members["oid"],
            "crc32c": members["crc32c"],
            "store": pa.repeat("", len(entries)),
            "key": of_pack([pack.key if pack else "" for pack in packs], pa.string()),
            "version": of_pack([pack.version if pack else "" for pack in packs], pa.string()),
            "offset": members["offset"],
            "object_size": of_pack([pack.size if pack else 0 for pack in packs], pa.int64()),
        },
    )


def _as_made(entries: pa.Table, members: pa.Table) -> pa.Table:
    """Give new files their paths. What a function made comes from no source object, and no import has seen it."""
    is_new = members["path"].is_valid()
    return _with_columns(
        entries,
        {
            "path": pc.coalesce(members["path"], entries["path"]),
            "source": pc.if_else(members["is_same"], entries["source"], pa.scalar(None, pa.string())),
            "meta": pc.if_else(is_new, pa.scalar(None, pa.string()), entries["meta"]),
        },
    )


def _with_columns(entries: pa.Table, columns: dict[str, Any]) -> pa.Table:
    for name, values in columns.items():
        field = ENTRY_SCHEMA.field(name)
        entries = entries.set_column(entries.schema.get_field_index(name), field, values)
    return entries
