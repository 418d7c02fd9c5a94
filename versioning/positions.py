"""The paths of a tree by their number: inner nodes count what lies below them, so no more is read than a way down."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from versioning.columns import compute, single
from versioning.entries import location_in
from versioning.errors import CorruptRepositoryError
from versioning.walking import check_child

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from sources import Location
    from versioning.entries import RepositoryRoot
    from versioning.nodes import Node, NodeId
    from versioning.nodestore import NodeStore

CACHE_BYTES = 64 << 20
UNKNOWN_TIME = -(1 << 63)
"""In `LeafRows.mtimes_ns`."""
_KEPT = ("path", "size", "oid", "store", "key", "version", "offset", "object_size", "mtime_ns")


class TextColumn:
    """The values of a string or binary column as bytes; each is made when it is asked for."""

    def __init__(self, values: Any) -> None:
        self._count = len(values)
        _, offsets, data = values.buffers()
        first = 4 * values.offset
        self._ends = memoryview(offsets)[first : first + 4 * self._count + 4].cast("i") if self._count else None
        self._data = memoryview(data).cast("B") if data is not None else memoryview(b"")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> bytes:
        ends = self._ends
        if ends is None or not 0 <= position < self._count:
            raise IndexError(position)
        return bytes(self._data[ends[position] : ends[position + 1]])


class LeafRows:
    """A leaf and where it lies in its tree: its rows are `[start, stop)` there.

    Attributes:
        start: Number of its first row in the tree.
        stop: Number of the row behind its last.
        table: Columns path, size, oid, store, key, version, offset, object_size, mtime_ns; each contiguous.
        binary_paths: The paths as a binary array.
        keys: The same as bytes, by position in the leaf.
    """

    def __init__(self, node: Node, start: int) -> None:
        self.start = start
        self.stop = start + node.table.num_rows
        self.table: pa.Table = node.table.select(list(_KEPT))
        self.binary_paths = node.keys
        self.keys = TextColumn(node.keys)
        self.first_key = self.keys[0] if len(self.keys) else b""
        self.last_key = self.keys[len(self.keys) - 1] if len(self.keys) else b""

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each row."""
        found: NDArray[np.int64] = single(self.table.column("size")).to_numpy()
        return found

    @cached_property
    def mtimes_ns(self) -> NDArray[np.int64]:
        """Modification time of each row, nanoseconds since 1970; `UNKNOWN_TIME` where none is known."""
        column = single(self.table.column("mtime_ns"))
        filled = compute.fill_null(column, UNKNOWN_TIME) if column.null_count else column
        found: NDArray[np.int64] = filled.to_numpy()
        return found

    @cached_property
    def _places(self) -> tuple[TextColumn, TextColumn, TextColumn, NDArray[np.int64], NDArray[np.int64], Any]:
        store, key, version, object_size, offset, oid = (
            single(self.table.column(name)) for name in ("store", "key", "version", "object_size", "offset", "oid")
        )
        texts = TextColumn(store), TextColumn(key), TextColumn(version)
        return *texts, object_size.to_numpy(), offset.to_numpy(), oid

    def location(self, row: int, root: RepositoryRoot) -> Location:
        """Return where the bytes of a row of the tree are. Raises as `Entry.location`."""
        at = row - self.start
        store, key, version, object_sizes, offsets, _ = self._places
        return location_in(
            root,
            store[at].decode(),
            key[at].decode(),
            version[at].decode(),
            object_size=int(object_sizes[at]),
            offset=int(offsets[at]),
            size=int(self.sizes[at]),
        )

    def oid(self, row: int) -> bytes | None:
        """Return the BLAKE3 of the bytes of a row of the tree; None if it is not known."""
        found: bytes | None = self._places[5][row - self.start].as_py()
        return found

    def key(self, row: int) -> bytes:
        """Return the path of a row of the tree."""
        return self.keys[row - self.start]

    def first_not_below(self, key: bytes) -> int:
        """Return the first row of the tree, of this leaf's, whose path is `>= key`; `stop` if there is none."""
        return self.start + bisect_left(self.keys, key)


class _Inner:
    """An inner node: its children's last paths, the first row of each with the one behind all, and bytes likewise."""

    def __init__(self, node: Node, start: int) -> None:
        self.node = node
        self.last_keys: list[bytes] = node.keys.to_pylist()
        rows, sizes = _numbers(node, "rows"), _numbers(node, "size")
        if min(rows, default=0) <= 0:
            raise CorruptRepositoryError(f"trees/{node.id.hex()}", reason="a child of an inner node has no rows")
        self.starts = list(accumulate(rows, initial=start))
        self.bytes_before = list(accumulate(sizes, initial=0))
        self.nbytes = node.table.nbytes + sum(map(len, self.last_keys)) + 100 * len(self.last_keys)


def _numbers(node: Node, name: str) -> list[int]:
    found: list[Any] = node.table.column(name).to_pylist()
    return found


class Positions:
    """Finds rows of a tree by number, and numbers by path. Thread-safe.

    Args:
        nodes: Where to read. Its own cache is beside this one: a small one will do.
        root: The tree.
        cache_bytes: Leaves and inner nodes to keep, bytes of Arrow data.

    All methods may raise `CorruptRepositoryError` and the errors of the store.
    """

    def __init__(self, nodes: NodeStore, root: NodeId, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._nodes = nodes
        self._cache_bytes = cache_bytes
        self._held: OrderedDict[NodeId, tuple[LeafRows | _Inner, int]] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()
        top = nodes.read(root)
        self.rows = top.rows
        self.size = top.size
        self._top = _Inner(top, 0) if top.level else LeafRows(top, 0)
        self._last: LeafRows | None = None  # where the last question was; the next one is mostly there, too

    def leaf(self, row: int) -> LeafRows:
        """Return the leaf that holds a row.

        Raises:
            IndexError: If there is no such row.
        """
        last = self._last
        if last is not None and last.start <= row < last.stop:
            return last
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")
        at = self._top
        while isinstance(at, _Inner):
            at = self._child(at, bisect_right(at.starts, row) - 1)
        self._last = at
        return at

    def first_not_below(self, key: bytes) -> int:
        """Return the number of the first row whose path is `>= key`; `rows` if there is none."""
        last = self._last
        if last is not None and last.first_key <= key <= last.last_key:
            return last.first_not_below(key)
        at = self._top
        while isinstance(at, _Inner):
            position = bisect_left(at.last_keys, key)
            if position == len(at.last_keys):
                return self.rows  # only at the top: below, a parent has seen that the last path is not below
            at = self._child(at, position)
        self._last = at
        return at.first_not_below(key)

    def rows_below(self, prefix: bytes) -> range:
        """Return the rows whose paths start with `prefix`."""
        if not prefix:
            return range(self.rows)
        start = self.first_not_below(prefix)
        return range(start, self.first_not_below(prefix + b"\xff"))  # sorts after every byte that UTF-8 can have

    def bytes_of(self, rows: range) -> int:
        """Return the bytes of some neighbours; reads the ways to the first and the last one."""
        return self._bytes_before(rows.stop) - self._bytes_before(rows.start) if rows else 0

    def _bytes_before(self, row: int) -> int:
        if row >= self.rows:
            return self.size
        at, before = self._top, 0
        while isinstance(at, _Inner):
            position = bisect_right(at.starts, row) - 1
            before += at.bytes_before[position]
            at = self._child(at, position)
        return before + int(at.sizes[: row - at.start].sum())

    def _child(self, parent: _Inner, position: int) -> LeafRows | _Inner:
        node_id = parent.node.child(position)
        with self._lock:
            held = self._held.get(node_id)
            if held is not None:
                self._held.move_to_end(node_id)
                return held[0]
        node = self._nodes.read(node_id)
        check_child(parent.node, node, position)
        start = parent.starts[position]
        found = _Inner(node, start) if node.level else LeafRows(node, start)
        stop = found.starts[-1] if isinstance(found, _Inner) else found.stop
        if stop != parent.starts[position + 1]:
            raise CorruptRepositoryError(f"trees/{node_id.hex()}", reason="its parent counts another number of rows")
        self._keep(node_id, found, found.nbytes if isinstance(found, _Inner) else found.table.nbytes)
        return found

    def _keep(self, node_id: NodeId, found: LeafRows | _Inner, size: int) -> None:
        with self._lock:
            if node_id in self._held:
                return
            self._held[node_id] = (found, size)
            self._held_bytes += size
            while self._held_bytes > self._cache_bytes and len(self._held) > 1:
                _, (_, dropped) = self._held.popitem(last=False)
                self._held_bytes -= dropped
