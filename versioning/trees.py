"""One version's paths, read node by node as they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NewType

import numpy as np
import pyarrow as pa

from versioning.columns import (
    as_bytes,
    compute,
    concat,
    directories,
    first_not_below,
    is_in,
    rows_of,
    single,
)
from versioning.entries import ENTRY_SCHEMA, Entry, table_entries
from versioning.errors import PathNotFoundError
from versioning.walking import check_child, descend, find_node, key_runs, leaf_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from versioning.columns import Mask
    from versioning.nodes import Node, NodeId
    from versioning.nodestore import NodeStore

TreeId = NewType("TreeId", str)
"""64 hex digits: the id of a tree's root node."""

_FEW = 256  # so many paths are sooner looked up one by one than by a hash table of a whole leaf
_ABOVE = b"\xff"  # sorts after every byte that UTF-8 can have


class DirectoryItem(NamedTuple):
    """A direct child of a virtual directory; `size` is in bytes, 0 for a directory."""

    name: str
    is_dir: bool
    size: int


class Tree:
    """The paths of one version, byte-sorted. Immutable and thread-safe; nodes are read when needed and verified.

    Every method may raise `CorruptRepositoryError` and the errors of the store.
    """

    def __init__(self, nodes: NodeStore, root: NodeId) -> None:
        self._nodes = nodes
        self.root = root

    @property
    def id(self) -> TreeId:
        """The root's id; equal for equal content, whatever the history."""
        return TreeId(self.root.hex())

    @property
    def rows(self) -> int:
        """How many paths there are."""
        return self._top.rows

    @property
    def size(self) -> int:
        """Bytes of all paths together."""
        return self._top.size

    @property
    def _top(self) -> Node:
        return self._nodes.read(self.root)

    def get(self, path: str) -> Entry | None:
        """Look one path up; None if it is not there."""
        key = path.encode(errors="surrogatepass")
        node, _ = self._leaf_of(key)
        position = first_not_below(node.keys, key)
        if position == len(node.keys) or node.keys[position].as_py() != key:
            return None
        return next(table_entries(node.table.slice(position, 1)))

    def get_many(self, paths: pa.Array[Any]) -> pa.Table:
        """Look many paths up.

        Args:
            paths: Strictly ascending.

        Returns:
            Table of `ENTRY_SCHEMA` of those that are there, in order.
        """
        top, keys = self._top, as_bytes(paths)
        if top.level == 0:
            return concat([rows_of(top.table, paths)], ENTRY_SCHEMA)
        runs = list(key_runs(self._nodes, top, keys))
        found: list[pa.Table] = []
        for run, leaf in zip(runs, self._nodes.read_all(run.leaf for run in runs), strict=True):
            check_child(run.parent, leaf, run.position)
            found.append(rows_of(leaf.table, paths.slice(run.start, run.stop - run.start)))
        return concat(found, ENTRY_SCHEMA)

    def has_below(self, names: pa.Array[Any]) -> Mask:
        """Say which names are directories: have files below them.

        Reads a leaf only where the inner nodes do not tell; it is the one that a new path below the name would go to.

        Args:
            names: Strictly ascending, without slashes at their ends.
        """
        top, found = self._top, np.zeros(len(names), dtype=np.bool_)
        prefixes = compute.binary_join_element_wise(names, "", "/")
        order = compute.array_sort_indices(prefixes).to_numpy()  # the slash sorts after some characters
        keys = as_bytes(prefixes.take(order))
        if top.level == 0:
            found[order] = _have_below(top, keys)
            return found
        for run in key_runs(self._nodes, top, keys):
            wanted, last = keys.slice(run.start, run.stop - run.start), run.parent.keys[run.position].as_py()
            below = np.array([last.startswith(key) for key in wanted.to_pylist()], dtype=np.bool_)
            if not below.all():
                below |= _have_below(descend(self._nodes, run.parent, run.position), wanted)
            found[order[run.start : run.stop]] = below
        return found

    def scan(self, prefix: str = "", *, columns: Sequence[str] | None = None, keep: bool = True) -> Iterator[pa.Table]:
        """Yield the paths that start with `prefix`, leaf by leaf in order, as tables of `ENTRY_SCHEMA`.

        Reads the leaves that cover the prefix and no others. A directory's prefix ends in "/".

        Args:
            prefix: What the paths start with.
            columns: Names of the columns wanted; all by default.
            keep: Whether leaves stay in memory for whoever asks next; not for one look at everything.
        """
        low = prefix.encode()
        high = low + _ABOVE if low else None
        for node in self._nodes.read_all(leaf_ids(self._nodes, self._top, low, high), keep=keep):
            table = _between(node, low, high)
            if table.num_rows:
                yield table if columns is None else table.select(list(columns))

    def scan_at(self, path: str, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the file that a path names and the files below it as a directory, as `scan` does; "" is all.

        Raises:
            PathNotFoundError: If there is neither.
        """
        found = not path
        if path:
            names = pa.array([path], pa.string())
            if (file := self.get_many(names)).num_rows:
                found = True
                yield file if columns is None else file.select(list(columns))
        for table in self.scan(path and f"{path.rstrip('/')}/", columns=columns):
            found = True
            yield table
        if not found:
            raise PathNotFoundError(path)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the entries whose paths start with `prefix`, in order; for hot paths use `scan`."""
        for table in self.scan(prefix):
            yield from table_entries(table)

    def listdir(self, path: str = "") -> list[DirectoryItem]:
        """Return the direct children of a virtual directory, byte-sorted by name.

        Reads the leaves that hold its files, and of each directory below it the first and the last leaf.

        Args:
            path: The directory, with or without a slash at its end; "" is the root.

        Raises:
            PathNotFoundError: If nothing lies below the path (an empty tree has a root).
        """
        prefix = f"{path.rstrip('/')}/" if path else ""
        items: dict[tuple[str, bool], int] = {}
        seek: bytes | None = prefix.encode()
        while seek is not None:
            node, last = self._leaf_of(seek)
            table = _between(node, seek, prefix.encode() + _ABOVE)
            items.update(_children_in(table, prefix))
            reached_end = last or node.last_key >= prefix.encode() + _ABOVE
            seek = None if reached_end else _next_seek(node.last_key, prefix.encode())
        if not items and prefix:
            raise PathNotFoundError(path)
        children = [DirectoryItem(name, is_dir, size) for (name, is_dir), size in items.items()]
        return sorted(children, key=lambda item: (item.name.encode(), item.is_dir))

    def _leaf_of(self, key: bytes) -> tuple[Node, bool]:
        """Return the leaf that holds a key or would hold it, and whether it is the last."""
        found = find_node(self._nodes, self._top, 0, key)
        assert found is not None  # only a search for what comes after a key can fail
        return found


def _have_below(leaf: Node, prefixes: Any) -> Mask:
    """Say which directories, as sorted binary prefixes, have paths in a leaf."""
    if len(prefixes) > _FEW:
        names = compute.binary_slice(prefixes, 0, -1).view(pa.string())
        return is_in(names, directories(leaf.table.column("path")))
    found: list[bool] = []
    position = 0
    for prefix in prefixes.to_pylist():
        position = first_not_below(leaf.keys, prefix, position)
        found.append(position < len(leaf.keys) and leaf.keys[position].as_py().startswith(prefix))
    return np.array(found, dtype=np.bool_)


def _between(node: Node, low: bytes, high: bytes | None) -> pa.Table:
    """Return a leaf's rows in `[low, high)`."""
    start = first_not_below(node.keys, low)
    end = len(node.keys) if high is None else first_not_below(node.keys, high, start)
    return node.table.slice(start, end - start)


def _next_seek(last: bytes, prefix: bytes) -> bytes:
    """Return where to go on after a leaf whose last path lies in `prefix`: behind the child that it lies in."""
    name, slash, _ = last[len(prefix) :].partition(b"/")
    return prefix + name + slash + _ABOVE if slash else last + b"\0"


def _children_in(table: pa.Table, prefix: str) -> dict[tuple[str, bool], int]:
    """Return name, whether it is a directory, and size of the children that some rows below `prefix` show."""
    rest = compute.utf8_slice_codeunits(single(table.column("path")), len(prefix))
    parts = compute.split_pattern(rest, "/", max_splits=1)
    names = compute.list_element(parts, 0)
    is_dir = compute.greater(compute.list_value_length(parts), 1)
    directories = compute.unique(names.filter(is_dir)).to_pylist()
    is_file = compute.invert(is_dir)
    sizes = single(table.column("size")).filter(is_file).to_pylist()
    children = {(name, True): 0 for name in directories}
    children.update({(name, False): size for name, size in zip(names.filter(is_file).to_pylist(), sizes, strict=True)})
    return children
