"""What differs between two trees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from versioning.columns import (
    as_positions,
    compute,
    concat,
    equal_and_known,
    equal_or_both_null,
    is_in,
    positions_in,
    single,
    sorted_by_path,
    take,
    where,
)
from versioning.comparing import unequal_rows
from versioning.entries import ENTRY_SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from versioning.columns import Mask
    from versioning.nodes import NodeId
    from versioning.nodestore import NodeStore

ADDED, MODIFIED, DELETED, LAYOUT = "A", "M", "D", "L"
"""Operations of a diff. Layout: the content is the same, where or how it lies is not."""

_OPS = [ADDED, MODIFIED, DELETED, LAYOUT]
_SPANS = 16  # of paths in which trees differ, looked at together: mostly there are few rows in each

DIFF_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("path", pa.string(), nullable=False),
        pa.field("op", pa.string(), nullable=False),
        pa.field("old_size", pa.int64()),
        pa.field("new_size", pa.int64()),
    )
)


@dataclass(frozen=True, slots=True)
class DiffSummary:
    """Counts of a diff: paths, and the bytes they have on the new side (`deleted_bytes`: on the old side)."""

    added: int = 0
    modified: int = 0
    deleted: int = 0
    layout: int = 0
    added_bytes: int = 0
    modified_bytes: int = 0
    deleted_bytes: int = 0
    layout_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Diff:
    """What leads from an old tree to a new one.

    Attributes:
        table: Columns path, op ("A", "M", "D", "L"), old_size, new_size; ascending by path.
        new_entries: Table of `ENTRY_SCHEMA`: the new side of the paths with op A, M or L; ascending by path.
    """

    table: pa.Table
    new_entries: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    def __bool__(self) -> bool:
        return len(self) > 0

    def only(self, *ops: str) -> Diff:
        """Return the part with these operations, such as `only("A", "M")`: the paths with new bytes."""
        kept = where(self.table, is_in(self.table.column("op"), pa.array(ops, pa.string())))
        entries = where(self.new_entries, is_in(self.new_entries.column("path"), kept.column("path")))
        return Diff(kept, entries)

    def summary(self) -> DiffSummary:
        """Count paths and bytes by operation."""
        if not self:
            return DiffSummary()
        counts: dict[str, int] = {}
        for name, op in (("added", ADDED), ("modified", MODIFIED), ("deleted", DELETED), ("layout", LAYOUT)):
            rows = where(self.table, is_in(self.table.column("op"), pa.array([op])))
            side = "old_size" if op == DELETED else "new_size"
            counts[name] = rows.num_rows
            counts[f"{name}_bytes"] = int(compute.sum(rows.column(side)).as_py() or 0)
        return DiffSummary(**counts)


def diff_trees(nodes: NodeStore, old: NodeId | None, new: NodeId | None) -> Diff:
    """Compare two trees (None: one without paths); reads only nodes that the other tree does not have.

    Leaves are compared as they are read: memory grows with what differs, not with the trees.
    """
    pairs = (differing(before, after) for before, after in unequal_rows(nodes, old, new))
    parts: list[Diff] = []
    while several := list(islice(pairs, _SPANS)):
        parts.append(diff_tables(*(concat([pair[side] for pair in several], ENTRY_SCHEMA) for side in (0, 1))))
    return Diff(
        concat([part.table for part in parts], DIFF_SCHEMA),
        concat([part.new_entries for part in parts], ENTRY_SCHEMA),
    )


def differing(old: pa.Table, new: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows that only one of two tables of `ENTRY_SCHEMA` has, each strictly ascending by path."""
    if new.num_rows == old.num_rows and new.column("path").equals(old.column("path")):
        changed = np.flatnonzero(~same_rows(old, new))  # as in a leaf of which only contents changed: mostly few
        return _rows_at(old, changed), _rows_at(new, changed)
    at = _positions(new, old)
    both = np.flatnonzero(at >= 0)
    same = both[same_rows(_rows_at(old, at[both]), _rows_at(new, both))]
    kept_old, kept_new = np.ones(old.num_rows, dtype=np.bool_), np.ones(new.num_rows, dtype=np.bool_)
    kept_old[at[same]] = False
    kept_new[same] = False
    return where(old, kept_old), where(new, kept_new)


def diff_tables(old: pa.Table, new: pa.Table) -> Diff:
    """Compare two tables of `ENTRY_SCHEMA`, each strictly ascending by path."""
    old, new = differing(old, new)
    at = _positions(new, old)
    both = np.flatnonzero(at >= 0)
    ops = np.full(new.num_rows, _OPS.index(ADDED), dtype=np.int8)
    if len(both):
        same = same_content(_rows_at(old, at[both]), _rows_at(new, both))
        ops[both] = np.where(same, _OPS.index(LAYOUT), _OPS.index(MODIFIED))
    gone = np.ones(old.num_rows, dtype=np.bool_)
    gone[at[both]] = False
    old_sizes = np.zeros(new.num_rows, dtype=np.int64)
    old_sizes[both] = old.column("size").to_numpy()[at[both]]
    table = _diff_rows(new, ops, old_sizes, known=at >= 0)
    if not gone.any():
        return Diff(table, new)
    return Diff(sorted_by_path(concat([table, _deleted_rows(where(old, gone))], DIFF_SCHEMA)), new)


def _positions(new: pa.Table, old: pa.Table) -> NDArray[np.int64]:
    """Give for each new row its position among the old ones, or -1."""
    if not old.num_rows or not new.num_rows:
        return np.full(new.num_rows, -1, dtype=np.int64)
    return positions_in(new.column("path"), old.column("path"))


def _rows_at(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    return table if len(rows) == table.num_rows and (rows == np.arange(len(rows))).all() else take(table, rows)


def same_rows(left: pa.Table, right: pa.Table) -> Mask:
    """Say row by row whether two tables of `ENTRY_SCHEMA` are equal in every column."""
    same = np.ones(left.num_rows, dtype=np.bool_)
    for name in ENTRY_SCHEMA.names:
        if not left.column(name).equals(right.column(name)):  # far quicker than row by row, and mostly they are equal
            same &= equal_or_both_null(left.column(name), right.column(name))
    return same


def same_content(left: pa.Table, right: pa.Table) -> Mask:
    """Say row by row whether two tables of `ENTRY_SCHEMA` have the same content, meta included.

    Bytes are the same if the oids are equal; while one is unknown, if source version and size are.
    """
    sizes = equal_and_known(left.column("size"), right.column("size"))
    known = compute.and_(left.column("oid").is_valid(), right.column("oid").is_valid())
    by_oid = equal_and_known(left.column("oid"), right.column("oid"))
    by_source = equal_and_known(left.column("source"), right.column("source"))
    bytes_equal = np.where(np.asarray(single(known).to_numpy(zero_copy_only=False)), by_oid, by_source & sizes)
    result: Mask = bytes_equal.astype(np.bool_) & equal_or_both_null(left.column("meta"), right.column("meta"))
    return result


def _diff_rows(entries: pa.Table, ops: NDArray[np.int8], old_sizes: NDArray[np.int64], *, known: Mask) -> pa.Table:
    columns = [
        single(entries.column("path")),
        pa.array(_OPS, pa.string()).take(as_positions(ops.astype(np.int64))),
        as_positions(old_sizes, known),
        single(entries.column("size")),
    ]
    return pa.Table.from_arrays(columns, schema=DIFF_SCHEMA)


def _deleted_rows(entries: pa.Table) -> pa.Table:
    columns = [
        single(entries.column("path")),
        pa.repeat(pa.scalar(DELETED, pa.string()), entries.num_rows),
        single(entries.column("size")),
        pa.nulls(entries.num_rows, pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=DIFF_SCHEMA)
