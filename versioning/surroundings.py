"""Planning a merge from one side's changes and the other side's rows around them.

What our side changed elsewhere does not matter to a merge, so those leaves are not read: with changes scattered over
a large tree that is a third of them. Spans go by once: the base's and our rows are looked up while their leaves are at
hand.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from versioning.clashes import files_above
from versioning.columns import compute, concat, is_in, single, sorted_by_path, where
from versioning.comparing import unequal_rows
from versioning.diffs import DIFF_SCHEMA, Diff, diff_tables
from versioning.entries import ENTRY_SCHEMA
from versioning.merging import MergePlan, plan_merge
from versioning.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.nodes import NodeId
    from versioning.nodestore import NodeStore

_SPANS = 16  # looked up together: so many reads under way, and no more leaves than the memory keeps


class _Part(NamedTuple):
    """Their changes within some spans, and the rows of the base and of our tree there."""

    theirs: Diff
    base: pa.Table
    ours: pa.Table


def plan_near(nodes: NodeStore, base: NodeId | None, ours: NodeId | None, theirs: NodeId | None) -> MergePlan:
    """Plan a merge of their tree into ours; the same as of `plan_merge` with all that differs.

    Args:
        nodes: Where.
        base: Root of the tree that both are compared with; None: no paths.
        ours: Our root.
        theirs: Their root.
    """
    tree = Tree(nodes, ours) if ours is not None else None
    parts = list(_parts(nodes, base, theirs, tree))
    their_changes = _joined([part.theirs for part in parts])
    before = concat([part.base for part in parts], ENTRY_SCHEMA)
    standing = concat([part.ours for part in parts], ENTRY_SCHEMA)
    if tree is not None:
        more = _around(tree, their_changes, standing)
        if len(more):
            standing = sorted_by_path(concat([standing, tree.get_many(more)], ENTRY_SCHEMA))
            older = [Tree(nodes, base).get_many(more)] if base is not None else []
            before = sorted_by_path(concat([before, *older], ENTRY_SCHEMA))
    plan = plan_merge(diff_tables(before, standing), their_changes)
    return MergePlan(plan.changes, plan.conflicts, plan.ours, plan.theirs, standing)


def _parts(nodes: NodeStore, base: NodeId | None, theirs: NodeId | None, ours: Tree | None) -> Iterator[_Part]:
    """Walk base and their tree, and look up our rows where they differ."""
    found = (
        (part, where(before, is_in(before.column("path"), part.table.column("path"))))
        for before, after in unequal_rows(nodes, base, theirs)
        if (part := diff_tables(before, after))
    )
    while several := list(islice(found, _SPANS)):
        theirs_part = _joined([part for part, _ in several])
        rows = ours.get_many(single(theirs_part.table.column("path"))) if ours is not None else None
        yield _Part(
            theirs_part,
            concat([before for _, before in several], ENTRY_SCHEMA),
            rows if rows is not None else ENTRY_SCHEMA.empty_table(),
        )


def _around(tree: Tree, theirs: Diff, standing: pa.Table) -> Any:
    """Return our paths, ascending, that something clashes with which their side could add to our tree."""
    arriving = single(theirs.new_entries.column("path"))
    arriving = arriving.filter(pa.array(~is_in(arriving, standing.column("path"))))
    found = [pa.array(files_above(tree, arriving), pa.string())]
    for name in arriving.filter(pa.array(tree.has_below(arriving))).to_pylist():
        found += [single(table.column("path")) for table in tree.scan(f"{name}/", columns=["path"])]
    paths = compute.unique(pa.concat_arrays(found))
    known = is_in(paths, pa.concat_arrays([single(theirs.table.column("path")), single(standing.column("path"))]))
    return paths.filter(pa.array(~known)).sort()


def _joined(parts: list[Diff]) -> Diff:
    return Diff(
        concat([part.table for part in parts], DIFF_SCHEMA), concat([part.new_entries for part in parts], ENTRY_SCHEMA)
    )
