"""What differs between two trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from versioning.columns import (
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
from versioning.entries import ENTRY_SCHEMA
from versioning.walking import check_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from versioning.columns import Mask
    from versioning.nodes import Node, NodeId
    from versioning.nodestore import NodeStore

ADDED, MODIFIED, DELETED, LAYOUT = "A", "M", "D", "L"
"""Operations of a diff. Layout: the content is the same, where or how it lies is not."""

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
        counts: dict[str, int] = {}
        for name, op in (("added", ADDED), ("modified", MODIFIED), ("deleted", DELETED), ("layout", LAYOUT)):
            rows = where(self.table, is_in(self.table.column("op"), pa.array([op])))
            side = "old_size" if op == DELETED else "new_size"
            counts[name] = rows.num_rows
            counts[f"{name}_bytes"] = int(compute.sum(rows.column(side)).as_py() or 0)
        return DiffSummary(**counts)


def diff_trees(nodes: NodeStore, old: NodeId, new: NodeId) -> Diff:
    """Compare two trees; reads only nodes that the other tree does not have."""
    if old == new:
        return diff_tables(ENTRY_SCHEMA.empty_table(), ENTRY_SCHEMA.empty_table())
    old_leaves, new_leaves = _unequal_leaves(nodes, old, new)
    return diff_tables(
        concat([leaf.table for leaf in old_leaves], ENTRY_SCHEMA),
        concat([leaf.table for leaf in new_leaves], ENTRY_SCHEMA),
    )


def _unequal_leaves(nodes: NodeStore, old: NodeId, new: NodeId) -> tuple[list[Node], list[Node]]:
    """Walk both trees level by level, dropping the nodes that both have."""
    left, right = [nodes.read(old)], [nodes.read(new)]
    while (level := max((node.level for node in (*left, *right)), default=0)) > 0:
        common = _ids_below(left, level) & _ids_below(right, level)
        left, right = (list(_read_below(nodes, side, level, common)) for side in (left, right))
    return left, right


def _ids_below(side: list[Node], level: int) -> set[NodeId]:
    """Return the ids of the next level's nodes: a tree that is lower than the other one waits."""
    return {each for node in side for each in (_children(node) if node.level == level else [node.id])}


def _children(node: Node) -> list[NodeId]:
    return [node.child(position) for position in range(node.table.num_rows)]


def _read_below(nodes: NodeStore, side: list[Node], level: int, common: set[NodeId]) -> Iterator[Node]:
    """Yield the next level's nodes, without those that both trees have."""
    if any(node.level < level for node in side):  # a root, alone
        yield from (node for node in side if node.id not in common)
        return
    wanted = [(node, at) for node in side for at, child in enumerate(_children(node)) if child not in common]
    children = nodes.read_all(node.child(at) for node, at in wanted)
    for (node, at), child in zip(wanted, children, strict=True):
        check_child(node, child, at)
        yield child


def diff_tables(old: pa.Table, new: pa.Table) -> Diff:
    """Compare two tables of `ENTRY_SCHEMA`, each strictly ascending by path."""
    at = positions_in(new.column("path"), old.column("path"))
    both = np.flatnonzero(at >= 0)
    before, after = take(old, at[both]), take(new, both)
    same, content = same_rows(before, after), same_content(before, after)
    ops: NDArray[Any] = np.full(new.num_rows, ADDED, dtype=object)
    ops[both] = np.where(same, "", np.where(content, LAYOUT, MODIFIED))
    old_sizes: NDArray[Any] = np.full(new.num_rows, None, dtype=object)
    old_sizes[both] = before.column("size").to_numpy()
    kept = ops != ""
    gone = np.ones(old.num_rows, dtype=np.bool_)
    gone[at[both]] = False
    entries = where(new, kept)
    table = _diff_rows(entries, list(ops[kept]), list(old_sizes[kept]))
    return Diff(sorted_by_path(concat([table, _deleted_rows(where(old, gone))], DIFF_SCHEMA)), entries)


def same_rows(left: pa.Table, right: pa.Table) -> Mask:
    """Say row by row whether two tables of `ENTRY_SCHEMA` are equal in every column."""
    same = np.ones(left.num_rows, dtype=np.bool_)
    for name in ENTRY_SCHEMA.names:
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


def _diff_rows(entries: pa.Table, ops: list[str], old_sizes: list[int | None]) -> pa.Table:
    columns = [
        single(entries.column("path")),
        pa.array(ops, pa.string()),
        pa.array(old_sizes, pa.int64()),
        single(entries.column("size")),
    ]
    return pa.Table.from_arrays(columns, schema=DIFF_SCHEMA)


def _deleted_rows(entries: pa.Table) -> pa.Table:
    columns = [
        single(entries.column("path")),
        pa.array([DELETED] * entries.num_rows, pa.string()),
        single(entries.column("size")),
        pa.nulls(entries.num_rows, pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=DIFF_SCHEMA)
