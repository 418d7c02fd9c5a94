"""Leaves that a merge takes whole from their tree: only they changed anything there, so nobody reads or hashes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from versioning.columns import as_bytes, compute, first_above, is_in, single
from versioning.diffs import differing
from versioning.walking import leaf_place

if TYPE_CHECKING:
    from versioning.changes import ChangeSet
    from versioning.diffs import Diff
    from versioning.nodes import ChildRow, Node, NodeId
    from versioning.nodestore import NodeStore


class Arrival(NamedTuple):
    """What a merge brings in.

    Attributes:
        base: Root of the tree that both sides are compared with.
        theirs: Root of their tree.
        diff: What leads from the one to the other.
    """

    base: NodeId
    theirs: NodeId
    diff: Diff

    def apart(self, changes: ChangeSet) -> Any:
        """Return the paths, ascending, at which a change set does something else than this; as a binary array."""
        rows = differing(self.diff.new_entries, changes.upserts)
        gone = single(self.diff.only("D").table.column("path")), single(changes.deleted)
        paths = [
            *(single(table.column("path")) for table in rows),
            gone[0].filter(pa.array(~is_in(gone[0], gone[1]))),
            gone[1].filter(pa.array(~is_in(gone[1], gone[0]))),
        ]
        return as_bytes(compute.unique(pa.concat_arrays(paths)).sort())


class TakenLeaf(NamedTuple):
    """A leaf of ours, and the row of what stands in its place."""

    gone: NodeId
    row: ChildRow


class Taking:
    """Finds the leaves of our tree that become leaves of theirs.

    Args:
        nodes: Where to read inner nodes.
        ours: The root of our tree.
        arrival: What is merged.
        changes: What is done to our tree.
    """

    def __init__(self, nodes: NodeStore, ours: Node, arrival: Arrival, changes: ChangeSet) -> None:
        self._nodes = nodes
        self._tops = ours, nodes.read(arrival.base), nodes.read(arrival.theirs)
        self._apart = arrival.apart(changes)

    def at(self, key: bytes) -> TakenLeaf | None:
        """Return which of our leaves goes as a whole, of those that hold or would hold a path; None: it is edited.

        Ours must be as it was in the base, and theirs must begin and end where it does. The last leaf of a tree has no
        end: what comes behind it belongs to it.
        """
        ours, base, theirs = (leaf_place(self._nodes, top, key) for top in self._tops)
        if ours is None or base is None or theirs is None or ours.is_last or theirs.is_last:
            return None
        if base.id != ours.id or (ours.low, ours.high) != (theirs.low, theirs.high):
            return None
        start = 0 if ours.low is None else first_above(self._apart, ours.low)
        if start < first_above(self._apart, ours.high, start):
            return None
        return TakenLeaf(ours.id, theirs.row)
