"""Tree nodes: their logical id, and the Parquet they are kept as.

A node's id hashes its logical columns, never the Parquet bytes, which differ between library versions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NewType

import numpy as np
import pyarrow as pa
from blake3 import blake3

from sources.lazy import LazyModule
from versioning.columns import as_bytes, compute, is_sorted, single, single_chunks
from versioning.entries import ENTRY_SCHEMA
from versioning.errors import CorruptRepositoryError
from versioning.parquet_limits import read_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

_LEAF_TAG = b"forebay.leaf.v1\n"
_INNER_TAG = b"forebay.node.v1\n"
_DELTA = {"string": "DELTA_BYTE_ARRAY", "int64": "DELTA_BINARY_PACKED"}
_TYPE_TAGS = {
    pa.string(): b"string",
    pa.int64(): b"int64",
    pa.uint32(): b"uint32",
    pa.uint8(): b"uint8",
    pa.binary(32): b"bytes32",
}  # spelled out, since a library may rename its types
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
    return Node(node_id(table, leaf=level == 0), level, table, as_bytes(table.column("path")))


def schema_of(level: int) -> pa.Schema:
    """Return the schema of a level's nodes."""
    return ENTRY_SCHEMA if level == 0 else NODE_SCHEMA


def node_id(table: pa.Table, *, leaf: bool) -> NodeId:
    """Hash the logical columns in schema order: name, type, row count, validity, little-endian values."""
    hasher = blake3(_LEAF_TAG if leaf else _INNER_TAG)
    for field in table.schema:
        name, tag = field.name.encode(), _TYPE_TAGS[field.type]
        hasher.update(struct.pack("<HH", len(name), len(tag)) + name + tag + struct.pack("<Q", table.num_rows))
        for part in _logical_parts(single(table.column(field.name))):
            hasher.update(memoryview(part).cast("B"))
    return NodeId(hasher.digest())


def _logical_parts(values: Any) -> Iterator[Any]:
    """Yield a column's validity bits (least significant first) and its values, zero or empty where null."""
    valid = np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    yield np.packbits(valid, bitorder="little")
    if pa.types.is_string(values.type):
        filled = _filled(values, "")
        yield np.asarray(compute.binary_length(filled).to_numpy(), dtype="<u4")
        yield _string_bytes(filled)
    elif pa.types.is_fixed_size_binary(values.type):
        width = values.type.byte_width
        filled = _filled(values, bytes(width))
        if len(filled):
            yield filled.buffers()[1][filled.offset * width : (filled.offset + len(filled)) * width]
    else:
        filled = np.asarray(_filled(values, 0).to_numpy())
        yield np.ascontiguousarray(filled.astype(filled.dtype.newbyteorder("<"), copy=False))


def _filled(values: Any, value: object) -> Any:
    return compute.fill_null(values, value) if values.null_count else values


def _string_bytes(values: Any) -> Any:
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return b""
    ends = np.frombuffer(offsets, dtype=np.int32)
    return data[int(ends[values.offset]) : int(ends[values.offset + len(values)])]


def encode_node(node: Node) -> pa.Buffer:
    """Write a node as Parquet with explicit encodings, so that any Parquet reader can look at it."""
    schema = schema_of(node.level)
    sink = pa.BufferOutputStream()
    _parquet.write_table(
        node.table,
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        column_encoding={field.name: _DELTA.get(str(field.type), "PLAIN") for field in schema},
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
    if node_id(table, leaf=leaf) != expected:
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
