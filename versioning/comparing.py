"""Walking two trees side by side, past everything that they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from versioning.columns import first_above
from versioning.entries import ENTRY_SCHEMA
from versioning.walking import check_child

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from versioning.nodes import Node, NodeId
    from versioning.nodestore import NodeStore


class _Child(NamedTuple):
    """A child that is not read yet, by its place in its parent."""

    parent: Node
    position: int

    @property
    def id(self) -> NodeId:
        return self.parent.child(self.position)


def unequal_rows(nodes: NodeStore, old: NodeId | None, new: NodeId | None) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the rows of two trees (None: no rows) span by span, without the leaves that both have.

    The tables of a pair cover the same span of paths, so rows of different pairs have nothing to do with each other;
    the spans ascend. Reads some leaves ahead and holds no others.
    """
    if old == new:
        return
    left, right = (_Rows(leaves) for leaves in _unequal_leaves(nodes, old, new))
    while bounds := [side.last_key for side in (left, right) if side.last_key is not None]:
        bound = min(bounds)
        yield left.up_to(bound), right.up_to(bound)


class _Rows:
    """The rows of some leaves in order, handed out up to a bound."""

    def __init__(self, leaves: Iterable[Node]) -> None:
        self._leaves = iter(leaves)
        self._position = 0
        self._leaf = next(self._leaves, None)

    @property
    def last_key(self) -> bytes | None:
        """The last path of the leaf at hand; None at the end."""
        return self._leaf.last_key if self._leaf is not None else None

    def up_to(self, bound: bytes) -> pa.Table:
        """Return the rows not handed out yet whose paths are `<= bound`, which is at most `last_key`."""
        leaf, start = self._leaf, self._position
        if leaf is None:
            return ENTRY_SCHEMA.empty_table()
        self._position = first_above(leaf.keys, bound, start)
        if self._position < len(leaf.keys):
            return leaf.table.slice(start, self._position - start)
        self._leaf, self._position = next(self._leaves, None), 0
        return leaf.table.slice(start)


def _unequal_leaves(nodes: NodeStore, old: NodeId | None, new: NodeId | None) -> tuple[Iterator[Node], Iterator[Node]]:
    """Walk both trees level by level, dropping what both have; the leaves are read as they are asked for."""
    left, right = ([nodes.read(root)] if root is not None else [] for root in (old, new))
    while (level := max((node.level for node in (*left, *right)), default=0)) > 1:
        common = _ids_below(left, level) & _ids_below(right, level)
        left, right = (list(_below(nodes, side, level, common)) for side in (left, right))
    common = _ids_below(left, level) & _ids_below(right, level)
    return _below(nodes, left, level, common), _below(nodes, right, level, common)


def _ids_below(side: list[Node], level: int) -> set[NodeId]:
    """Return the ids of the next level's nodes: a tree that is lower than the other one waits."""
    return {each for node in side for each in (node.children() if node.level == level > 0 else [node.id])}


def _below(nodes: NodeStore, side: list[Node], level: int, common: set[NodeId]) -> Iterator[Node]:
    """Yield the next level's nodes, without those that both trees have and without rows."""
    if level == 0 or any(node.level < level for node in side):  # a root, alone
        yield from (node for node in side if node.id not in common and node.table.num_rows)
        return
    wanted = [
        _Child(node, position) for node in side for position, child in enumerate(node.children()) if child not in common
    ]
    children = nodes.read_all(child.id for child in wanted)
    for child, read in zip(wanted, children, strict=True):
        check_child(child.parent, read, child.position)
        yield read
