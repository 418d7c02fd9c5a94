"""A node's logical id: the hash of its columns, never of the Parquet bytes, which differ between library versions.

Arrow's buffers are hashed where they lie; only columns in which some values are null are copied for it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

from versioning.columns import compute, single

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_LEAF_TAG = b"forebay.leaf.v1\n"
_INNER_TAG = b"forebay.node.v1\n"
_TYPE_TAGS = {
    pa.string(): b"string",
    pa.int64(): b"int64",
    pa.uint32(): b"uint32",
    pa.uint8(): b"uint8",
    pa.binary(32): b"bytes32",
}  # spelled out, since a library may rename its types


def hash_columns(table: pa.Table, *, leaf: bool) -> bytes:
    """Return the BLAKE3-256 of the columns in schema order: name, type, row count, validity, little-endian values."""
    hasher = blake3(_LEAF_TAG if leaf else _INNER_TAG)
    for field in table.schema:
        name, tag = field.name.encode(), _TYPE_TAGS[field.type]
        hasher.update(struct.pack("<HH", len(name), len(tag)) + name + tag + struct.pack("<Q", table.num_rows))
        values = single(table.column(field.name))
        hasher.update(_validity(values).data)
        for part in _values(values):
            hasher.update(memoryview(part).cast("B"))
    return hasher.digest()


def _validity(values: Any) -> NDArray[np.uint8]:
    """Return a bit for each value, the least significant first."""
    if not values.null_count:
        bits = np.full((len(values) + 7) // 8, 0xFF, dtype=np.uint8)
        if len(values) % 8:
            bits[-1] = (1 << len(values) % 8) - 1
        return bits
    if values.null_count == len(values):
        return np.zeros((len(values) + 7) // 8, dtype=np.uint8)
    return np.packbits(np.asarray(values.is_valid().to_numpy(zero_copy_only=False)), bitorder="little")


def _values(values: Any) -> Iterator[Any]:
    """Yield the values' bytes, zero or empty where null: of strings first all lengths."""
    kind, count = values.type, len(values)
    is_string = pa.types.is_string(kind)
    width = 4 if is_string else kind.byte_width
    if values.null_count == count:  # no rows, or nulls only: what lies in the buffers does not count
        yield bytes(count * width)
    elif is_string:
        yield from _string_parts(compute.fill_null(values, "") if values.null_count else values)
    elif pa.types.is_fixed_size_binary(kind):
        filled = compute.fill_null(values, bytes(width)) if values.null_count else values
        yield filled.buffers()[1][filled.offset * width : (filled.offset + count) * width]
    else:
        numbers = np.asarray((compute.fill_null(values, 0) if values.null_count else values).to_numpy())
        yield np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False))


def _string_parts(values: Any) -> Iterator[Any]:
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    yield np.diff(ends).astype("<u4", copy=False)
    if data is not None:
        yield data[int(ends[0]) : int(ends[-1])]
