"""Tree nodes: their logical id, and the Parquet they are kept as.

A node's id hashes its logical columns, never the Parquet bytes, which differ between library versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NewType

import pyarrow as pa

from sources.lazy import LazyModule
from versioning.columns import as_bytes, compute, is_sorted, single, single_chunks
from versioning.entries import ENTRY_SCHEMA
from versioning.errors import CorruptRepositoryError
from versioning.hashing import hash_columns
from versioning.parquet_limits import read_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence

NodeId = NewType("NodeId", bytes)
"""32 bytes: BLAKE3-256 of a node's logical columns."""

NODE_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("path", pa.string(), nullable=False),
        pa.field("child", pa.binary(32), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("level", pa.uint8(), nullable=False),
    )
)
"""The columns of an inner node: one row per child.

path: the last path below the child. rows, size: how many paths lie below it, and their bytes. level: of this node
(the children of level 1 are leaves); the same in each row, so that a node says by itself what it is.
"""

_ENCODINGS = {"int64": "DELTA_BINARY_PACKED"}  # zstd finds what neighbouring paths share sooner than a delta encoding
_HASHES = ("oid", "crc32c", "child")  # are not compressible
_MAX_LEVEL = 16
_parquet: Any = LazyModule("pyarrow.parquet")


@dataclass(frozen=True, eq=False)
class Node:
    """A decoded node.

    Attributes:
        id: Its logical id.
        level: 0 for a leaf.
        table: `ENTRY_SCHEMA` (leaf) or `NODE_SCHEMA`, each column one contiguous array.
        keys: The paths as a binary array, for searching.
    """

    id: NodeId
    level: int
    table: pa.Table
    keys: Any

    @property
    def last_key(self) -> bytes:
        """The last path in or below the node; it must not be empty."""
        key: bytes = self.keys[-1].as_py()
        return key

    @property
    def rows(self) -> int:
        """How many paths lie in or below the node."""
        return self.table.num_rows if self.level == 0 else int(compute.sum(self.table.column("rows")).as_py())

    @property
    def size(self) -> int:
        """Bytes of all paths in or below the node."""
        return int(compute.sum(self.table.column("size")).as_py() or 0)

    def child(self, position: int) -> NodeId:
        """Return the id of an inner node's child."""
        return NodeId(self.table.column("child")[position].as_py())

    def children(self) -> list[NodeId]:
        """Return the ids of an inner node's children, in order."""
        children: list[Any] = self.table.column("child").to_pylist()
        return [NodeId(child) for child in children]


class ChildRow(NamedTuple):
    """The row that stands for a node in its parent; see `NODE_SCHEMA`."""

    path: str
    child: bytes
    rows: int
    size: int


def child_row(node: Node) -> ChildRow:
    """Return the row that stands for a node in its parent."""
    path = node.last_key.decode() if node.table.num_rows else ""
    return ChildRow(path, bytes(node.id), node.rows, node.size)


def parent_table(rows: Sequence[ChildRow], level: int) -> pa.Table:
    """Return rows as a table of `NODE_SCHEMA` for a node of `level`."""
    columns = dict(zip(ChildRow._fields, zip(*rows, strict=True), strict=True)) if rows else {}
    if not columns:
        return NODE_SCHEMA.empty_table()
    return pa.table({**columns, "level": [level] * len(rows)}, schema=NODE_SCHEMA)


def node_of(table: pa.Table, level: int) -> Node:
    """Make a node from a table of the level's schema, strictly ascending by path."""
    table = single_chunks(table)
    return Node(NodeId(hash_columns(table, leaf=level == 0)), level, table, as_bytes(table.column("path")))


def schema_of(level: int) -> pa.Schema:
    """Return the schema of a level's nodes."""
    return ENTRY_SCHEMA if level == 0 else NODE_SCHEMA


def encode_node(node: Node) -> pa.Buffer:
    """Write a node as Parquet with explicit encodings, so that any Parquet reader can look at it."""
    schema = schema_of(node.level)
    packed = [name for name in schema.names if name not in _HASHES]
    sink = pa.BufferOutputStream()
    _parquet.write_table(
        node.table,
        sink,
        compression={name: "zstd" if name in packed else "none" for name in schema.names},
        compression_level=dict.fromkeys(packed, 1),
        use_dictionary=False,
        write_statistics=False,
        column_encoding={field.name: _ENCODINGS.get(str(field.type), "PLAIN") for field in schema},
        row_group_size=max(1, node.table.num_rows),
        store_schema=False,
    )
    return sink.getvalue()


def decode_node(data: bytes, expected: NodeId, *, key: str) -> Node:
    """Read a node and check that it is the expected one.

    Raises:
        CorruptRepositoryError: If the bytes are no node or have another id; `key` names it in the message.
    """
    try:
        table = read_parquet(data)
        leaf = table.schema.names == ENTRY_SCHEMA.names
        table = single_chunks(table.cast(ENTRY_SCHEMA if leaf else NODE_SCHEMA))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError) as error:
        raise CorruptRepositoryError(key, reason=f"it is no tree node ({error})") from error
    if hash_columns(table, leaf=leaf) != expected:
        raise CorruptRepositoryError(key, reason="its content does not match its id")
    level = 0 if leaf else _level_of(table, key)
    keys = as_bytes(table.column("path"))
    if not is_sorted(single(table.column("path"))):
        raise CorruptRepositoryError(key, reason="its paths are not in order")
    return Node(expected, level, table, keys)


def _level_of(table: pa.Table, key: str) -> int:
    """Return an inner node's level; a foreign tree could say anything, and we descend by it."""
    levels = compute.unique(table.column("level")).to_pylist()
    if len(levels) != 1 or not 1 <= levels[0] <= _MAX_LEVEL:
        raise CorruptRepositoryError(key, reason=f"an inner node of level {levels}")
    return int(levels[0])
