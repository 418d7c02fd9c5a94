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
    valid = values.is_valid()  # by its bits: `to_numpy` would import pandas
    bits = np.unpackbits(np.frombuffer(valid.buffers()[1], dtype=np.uint8), bitorder="little")
    return np.packbits(bits[valid.offset : valid.offset + len(valid)], bitorder="little")


def _values(values: Any) -> Iterator[Any]:
    """Yield the values' bytes, zero or empty where null: of strings first all lengths."""
    kind, count = values.type, len(values)
    is_string = pa.types.is_string(kind)
    width = 4 if is_string else kind.byte_width
    if values.null_count == count:  # no rows, or nulls only: what lies in the buffers does not count
        yield bytes(count * width)
    elif is_string:
        yield from _string_parts(_filled(values))
    elif pa.types.is_fixed_size_binary(kind):
        filled = _filled(values)
        yield filled.buffers()[1][filled.offset * width : (filled.offset + count) * width]
    else:
        filled = _filled(values)
        numbers = np.frombuffer(filled.buffers()[1], dtype=f"i{width}", count=count, offset=filled.offset * width)
        yield np.ascontiguousarray(numbers.astype(f"<i{width}", copy=False))


def _filled(values: Any) -> Any:
    """Return the values with zero or empty ones for nulls."""
    if not values.null_count:
        return values
    kind = values.type
    # made of bytes: a value of Python would import pandas, a third of a second in whoever opens a version
    parts = [bytes(8), b""] if pa.types.is_string(kind) else [bytes(kind.byte_width)]
    zero = pa.Array.from_buffers(kind, 1, [None, *map(pa.py_buffer, parts)])[0]
    return compute.coalesce(values, zero)


def _string_parts(values: Any) -> Iterator[Any]:
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    yield np.diff(ends).astype("<u4", copy=False)
    if data is not None:
        yield data[int(ends[0]) : int(ends[-1])]
