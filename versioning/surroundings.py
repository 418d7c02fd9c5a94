"""Planning a merge from one side's changes and the other side's rows around them.

What our side changed elsewhere does not matter to a merge, so those leaves are not read: with changes scattered over
a large tree that is a third of them. Spans go by once: the base's and our rows are looked up while their leaves are at
hand.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning.clashes import files_above
from versioning.columns import compute, concat, is_in, single, sorted_by_path
from versioning.comparing import unequal_rows
from versioning.diffs import diff_tables, differing
from versioning.entries import ENTRY_SCHEMA
from versioning.merging import plan_merge
from versioning.taking import Arrival
from versioning.trees import Tree

if TYPE_CHECKING:
    from versioning.diffs import Diff
    from versioning.merging import MergePlan
    from versioning.nodes import NodeId
    from versioning.nodestore import NodeStore

_SPANS = 16  # looked up together: so many reads under way, and no more leaves than the memory keeps


def plan_near(nodes: NodeStore, base: NodeId | None, ours: NodeId | None, theirs: NodeId | None) -> MergePlan:
    """Plan a merge of their tree into ours; the same as of `plan_merge` with all that differs.

    Args:
        nodes: Where.
        base: Root of the tree that both are compared with; None: no paths.
        ours: Our root.
        theirs: Their root.
    """
    tree = Tree(nodes, ours) if ours is not None else None
    before, after, standing = (concat(rows, ENTRY_SCHEMA) for rows in _rows_near(nodes, base, theirs, tree))
    their_changes = diff_tables(before, after)
    if tree is not None:
        more = _around(tree, their_changes, standing)
        if len(more):
            standing = sorted_by_path(concat([standing, tree.get_many(more)], ENTRY_SCHEMA))
            older = [Tree(nodes, base).get_many(more)] if base is not None else []
            before = sorted_by_path(concat([before, *older], ENTRY_SCHEMA))
    plan = plan_merge(diff_tables(before, standing), their_changes)
    arrival = Arrival(base, theirs, their_changes) if base is not None and theirs is not None else None
    return replace(plan, standing=standing, arrival=arrival)


def _rows_near(
    nodes: NodeStore, base: NodeId | None, theirs: NodeId | None, ours: Tree | None
) -> tuple[list[pa.Table], ...]:
    """Return the rows of the base, of their tree and of ours where the first two differ, in pieces.

    Memory grows with what differs: a leaf is looked at once, while it is at hand.
    """
    found = (differing(before, after) for before, after in unequal_rows(nodes, base, theirs))
    pieces: tuple[list[pa.Table], ...] = ([], [], [])
    while several := list(islice(found, _SPANS)):
        sides = [concat([pair[side] for pair in several], ENTRY_SCHEMA) for side in (0, 1)]
        for piece, rows in zip(pieces, sides, strict=False):
            piece.append(rows)
        if ours is not None:
            pieces[2].append(ours.get_many(_paths_of(*sides)))
    return pieces


def _paths_of(*tables: pa.Table) -> Any:
    """Return the paths of some tables, strictly ascending."""
    return compute.unique(pa.concat_arrays([single(table.column("path")) for table in tables])).sort()


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
