"""Writing trees: from rows in order, and from a tree and a set of changes.

Both give the same tree for the same rows, whatever the history: an edit cuts anew from the start of the first node
that a change touches until a cut falls on the end of an old node; from there on the old nodes are what a build would
give. What an edit did to one level is a change set for the level above it: keys of nodes that went, rows of nodes
that came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning.columns import as_bytes, compute, first_above, single
from versioning.nodes import ChildRow, Node, NodeId, child_row, node_of, parent_table, schema_of
from versioning.nodestore import NodeStore, NodeWriter
from versioning.splicing import Run, spliced
from versioning.taking import Taking
from versioning.walking import find_node, id_at, key_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from versioning.changes import ChangeSet
    from versioning.taking import Arrival


@dataclass(frozen=True, eq=False)
class LevelChanges:
    """Changes to the rows of one level: rows to put in place and keys to delete, each strictly ascending, disjoint."""

    upserts: pa.Table
    deleted: Any

    def __len__(self) -> int:
        return self.upserts.num_rows + len(self.deleted)


def build_tree(nodes: NodeStore, tables: Iterable[pa.Table]) -> NodeId:
    """Write the tree of some rows and return its root.

    Holds the rows of about one leaf in memory, whatever the number of tables.

    Args:
        nodes: Where to write.
        tables: Of `ENTRY_SCHEMA`; strictly ascending by path, within and from one to the next.
    """
    with NodeWriter(nodes) as writer:
        return _build_levels(writer, tables, 0)


def edit_tree(
    nodes: NodeStore,
    root: NodeId,
    changes: ChangeSet,
    *,
    held: Sequence[NodeId] = (),
    arrival: Arrival | None = None,
) -> NodeId:
    """Write the tree that a change set makes of another tree, and return its root.

    Reads and writes O(changed leaves + depth) nodes.

    Args:
        nodes: Where.
        root: Of the tree to edit.
        changes: What to change.
        held: Roots of trees that must stay as long as the result does, so that their nodes need not be written again.
        arrival: Of a merge, if their tree is held: of where only they changed something, no leaf is read.
    """
    top = nodes.read(root)
    if top.level == 0 and top.rows == 0:
        return build_tree(nodes, [changes.upserts])
    pending = LevelChanges(changes.upserts, changes.deleted)
    others = [nodes.read(each) for each in held]
    taking = Taking(nodes, top, arrival, changes) if arrival is not None and arrival.theirs in held else None
    with NodeWriter(nodes) as writer:
        for level in range(top.level + 1):
            edit = _LevelEdit(nodes, writer, top, level, others, taking if level == 0 else None)
            pending = edit.apply(pending)
            if not len(pending):
                return root
        rows = edit.level_rows()  # the root was one node, so its edit has seen its whole level
        if rows.num_rows != 1:
            return _build_levels(writer, [rows], top.level + 1) if rows.num_rows else _build_levels(writer, [], 0)
    return _collapse(nodes, NodeId(rows.column("child")[0].as_py()))


def _build_levels(writer: NodeWriter, tables: Iterable[pa.Table], level: int) -> NodeId:
    """Build from the rows of a level up to a level that is a single node."""
    rows = _build_level(writer, tables, level)
    while rows.num_rows > 1:
        level += 1
        rows = _build_level(writer, [rows], level)
    return NodeId(rows.column("child")[0].as_py())


def _build_level(writer: NodeWriter, tables: Iterable[pa.Table], level: int) -> pa.Table:
    """Write the nodes of a level; return the rows of the level above."""
    done: list[ChildRow] = []
    rest = schema_of(level).empty_table()
    for table in tables:
        # Not into one piece: each node makes one of its own rows, and most lie in one table already.
        complete, rest = writer.complete(pa.concat_tables([rest, table]) if rest.num_rows else table, level)
        for node in complete:
            writer.write(node)
            done.append(child_row(node))
    if rest.num_rows or not done:  # the level's last node, or the one leaf of an empty tree
        last = node_of(rest, level)
        writer.write(last)
        done.append(child_row(last))
    return parent_table(done, level + 1)


def _collapse(nodes: NodeStore, root: NodeId) -> NodeId:
    """Descend to the lowest level that is a single node."""
    node = nodes.read(root)
    while node.level > 0 and node.table.num_rows == 1:
        node = nodes.read(node.child(0))
    return node.id


class _LevelEdit:
    """Edits one level of a tree. Changes are taken from left to right, run by run of adjacent affected nodes."""

    def __init__(
        self,
        nodes: NodeStore,
        writer: NodeWriter,
        top: Node,
        level: int,
        others: Sequence[Node],
        taking: Taking | None,
    ) -> None:
        self._nodes = nodes
        self._writer = writer
        self._top = top
        self._level = level
        self._others = others
        self._taking = taking
        self._went: dict[NodeId, bytes] = {}
        self._came: dict[NodeId, ChildRow] = {}
        self._ahead: Iterator[Node] = iter(())

    def apply(self, changes: LevelChanges) -> LevelChanges:
        """Write the level's new nodes; return the change set of the level above."""
        upserts = _Cursor(changes.upserts.column("path"))
        deletes = _Cursor(changes.deleted)
        self._ahead = self._reading_ahead(changes)
        while (key := _smaller(upserts.next_key(), deletes.next_key())) is not None:
            if self._taking is not None and (taken := self._taking.at(key)) is not None:
                self._went[taken.gone] = last = taken.row.path.encode()
                self._came[NodeId(taken.row.child)] = taken.row
                for cursor in (upserts, deletes):
                    cursor.advance(last)
            else:
                self._edit_run(key, changes, upserts, deletes)
        return self._changes_above()

    def _reading_ahead(self, changes: LevelChanges) -> Iterator[Node]:
        """Read the leaves that changes touch into memory, some ahead of the edit."""
        if self._level > 0 or self._top.level == 0 or len(changes) < 2:
            return iter(())
        paths = pa.concat_arrays([single(changes.upserts.column("path")), single(changes.deleted)])
        keys = as_bytes(paths.take(compute.array_sort_indices(paths)))
        runs = key_runs(self._nodes, self._top, keys)
        return self._nodes.read_all(
            run.leaf for run in runs if self._taking is None or self._taking.at(keys[run.start].as_py()) is None
        )

    def _edit_run(self, key: bytes, changes: LevelChanges, upserts: _Cursor, deletes: _Cursor) -> None:
        """Cut anew from the node that holds `key` until a cut falls on the end of an old node."""
        rule = self._nodes.spec.rule(self._level)
        rest = Run.of_node(schema_of(self._level).empty_table(), rule)
        found = find_node(self._nodes, self._top, self._level, key)
        while found is not None:
            node, last = found
            next(self._ahead, None)
            self._went[node.id] = node.last_key
            bound = None if last else node.last_key
            put = changes.upserts.slice(*upserts.advance(bound))
            gone = changes.deleted.slice(*deletes.advance(bound))
            run = spliced(Run.of_node(node.table, rule), put, gone)
            if not rest.rows.num_rows and not len(gone) and run.rows.num_rows == node.table.num_rows:
                self._emit([node_of(run.rows, self._level)])  # the same paths, so the same cuts
                return
            run = rest.then(run)
            complete, left = self._writer.complete(run.rows, self._level, silent=run.silent)
            self._emit(complete)
            if left.num_rows == 0:
                return
            rest = run.last(left.num_rows)
            found = None if last else find_node(self._nodes, self._top, self._level, node.last_key, after=True)
        self._emit([node_of(rest.rows, self._level)])

    def _emit(self, nodes: list[Node]) -> None:
        """Write new nodes; one that comes out as it was is reachable from the old tree, so it is there."""
        for node in nodes:
            if node.id not in self._went and not self._is_held(node):
                self._writer.write(node)
            self._came[node.id] = child_row(node)

    def _is_held(self, node: Node) -> bool:
        """Say whether another tree has the node; as after a merge of what only that tree changed."""
        return bool(self._others and len(node.keys)) and any(
            id_at(self._nodes, top, self._level, node.last_key) == node.id for top in self._others
        )

    def level_rows(self) -> pa.Table:
        """Return the rows of all nodes seen, unchanged ones too."""
        return parent_table(list(self._came.values()), self._level + 1)

    def _changes_above(self) -> LevelChanges:
        came = [row for node_id, row in self._came.items() if node_id not in self._went]
        keys = {row.path.encode() for row in came}
        gone = sorted(key for node_id, key in self._went.items() if node_id not in self._came and key not in keys)
        deleted = pa.array([key.decode() for key in gone], pa.string())
        return LevelChanges(parent_table(came, self._level + 1), deleted)


class _Cursor:
    """Hands out a sorted column of keys in slices, each up to a bound."""

    def __init__(self, keys: Any) -> None:
        self._keys = as_bytes(keys)
        self._position = 0

    def next_key(self) -> bytes | None:
        """Return the first key not handed out yet."""
        return self._keys[self._position].as_py() if self._position < len(self._keys) else None

    def advance(self, bound: bytes | None) -> tuple[int, int]:
        """Return start and length of the keys not handed out yet that are `<= bound` (None: all)."""
        start = self._position
        self._position = len(self._keys) if bound is None else first_above(self._keys, bound, start)
        return start, self._position - start


def _smaller(left: bytes | None, right: bytes | None) -> bytes | None:
    if left is None or right is None:
        return left if right is None else right
    return min(left, right)
