"""Finding nodes in a tree by path, reading only the nodes on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from versioning.columns import first_above, first_not_below
from versioning.errors import CorruptRepositoryError
from versioning.nodes import ChildRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.nodes import Node, NodeId
    from versioning.nodestore import NodeStore


def find_node(nodes: NodeStore, top: Node, level: int, key: bytes, *, after: bool = False) -> tuple[Node, bool] | None:
    """Find the node of a level that holds `key`, or would hold it.

    Args:
        nodes: Where to read.
        top: The tree's root.
        level: At most the root's.
        key: A path's bytes.
        after: Find the first node whose last path is `> key` instead; None if there is none.

    Returns:
        The first node whose last path is `>= key`, or else the level's last node; and whether it is the last.
    """
    node, last = top, True
    while node.level > level:
        position = first_above(node.keys, key) if after else first_not_below(node.keys, key)
        if position == len(node.keys):
            if after:
                return None
            position -= 1
        last = last and position == len(node.keys) - 1
        node = descend(nodes, node, position)
    if after and node.last_key <= key:
        return None
    return node, last


def id_at(nodes: NodeStore, top: Node, level: int, key: bytes) -> NodeId | None:
    """Return the id of a level's node that holds `key`, or would hold it; None behind the last, or above the root.

    Reads nodes above that level only.
    """
    node = top
    while node.level > level:
        position = first_not_below(node.keys, key)
        if position == len(node.keys):
            return None
        if node.level == level + 1:
            return node.child(position)
        node = descend(nodes, node, position)
    return node.id if node.level == level else None


class LeafPlace(NamedTuple):
    """Where a leaf is: its row in its parent, and the last path before it (None: it is the first)."""

    parent: Node
    position: int
    low: bytes | None
    is_last: bool

    @property
    def id(self) -> NodeId:
        """The leaf's id."""
        return self.parent.child(self.position)

    @property
    def high(self) -> bytes:
        """Its last path."""
        key: bytes = self.parent.keys[self.position].as_py()
        return key

    @property
    def row(self) -> ChildRow:
        """Its row."""
        columns = (self.parent.table.column(name)[self.position].as_py() for name in ChildRow._fields)
        return ChildRow(*columns)


def leaf_place(nodes: NodeStore, top: Node, key: bytes) -> LeafPlace | None:
    """Return the place of the leaf that holds `key`, or would hold it; None if the tree is one leaf.

    Reads inner nodes only.
    """
    node, low, is_last = top, None, True
    while node.level > 0:
        position = min(first_not_below(node.keys, key), len(node.keys) - 1)
        is_last = is_last and position == len(node.keys) - 1
        if position:
            low = node.keys[position - 1].as_py()
        if node.level == 1:
            return LeafPlace(node, position, low, is_last)
        node = descend(nodes, node, position)
    return None


def descend(nodes: NodeStore, node: Node, position: int) -> Node:
    """Return an inner node's child, which must be one level below.

    Raises:
        CorruptRepositoryError: If it is not; a foreign tree could otherwise make us walk in circles.
    """
    child = nodes.read(node.child(position))
    check_child(node, child, position)
    return child


def check_child(node: Node, child: Node, position: int) -> None:
    """Check that a child is one level below and ends where its parent says; as `descend`."""
    if child.level != node.level - 1 or not len(child.keys) or child.keys[-1] != node.keys[position]:
        raise CorruptRepositoryError(f"trees/{child.id.hex()}", reason="it does not fit into its parent")


class KeyRun(NamedTuple):
    """Keys that lie, or would lie, in one leaf: the leaf's place, and their positions `[start, stop)`."""

    parent: Node
    position: int
    start: int
    stop: int

    @property
    def leaf(self) -> NodeId:
        """The leaf's id."""
        return self.parent.child(self.position)


def key_runs(nodes: NodeStore, top: Node, keys: Any, start: int = 0, stop: int | None = None) -> Iterator[KeyRun]:
    """Yield which leaves hold, or would hold, sorted keys, in order; reads inner nodes only.

    Args:
        nodes: Where to read.
        top: An inner node.
        keys: Strictly ascending binary array.
        start: First position that counts; `stop` is the one behind the last.
        stop: As `start`.
    """
    stop = len(keys) if stop is None else stop
    while start < stop:
        position = min(first_not_below(top.keys, keys[start].as_py()), len(top.keys) - 1)
        end = stop
        if position < len(top.keys) - 1:
            end = min(stop, first_above(keys, top.keys[position].as_py(), start))
        if top.level == 1:
            yield KeyRun(top, position, start, end)
        else:
            yield from key_runs(nodes, descend(nodes, top, position), keys, start, end)
        start = end


def leaf_ids(nodes: NodeStore, top: Node, low: bytes, high: bytes | None) -> Iterator[NodeId]:
    """Yield the ids of the leaves that may hold paths in `[low, high)` (None: to the end), in order.

    Reads no leaf, unless the tree is one.
    """
    if top.level == 0:
        yield top.id
        return
    start = first_not_below(top.keys, low)
    for position in range(start, len(top.keys)):
        if position > start and high is not None and top.keys[position - 1].as_py() >= high:
            return
        if top.level == 1:
            yield top.child(position)
        else:
            yield from leaf_ids(nodes, descend(nodes, top, position), low, high)
