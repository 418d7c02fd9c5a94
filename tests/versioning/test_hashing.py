"""Ids hash values, however Arrow holds them: slices, nulls over old bytes, columns without a validity bitmap."""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from versioning import ENTRY_SCHEMA
from versioning.hashing import hash_columns

TYPES = {pa.string(): "string", pa.int64(): "int64", pa.uint32(): "uint32", pa.binary(32): "bytes32"}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text("a/ü", max_size=4),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "bytes32": st.binary(min_size=32, max_size=32),
}
COUNTS = st.integers(0, 20)


def _hashed(columns: dict[str, list[Any]]) -> bytes:
    """As the format describes it, value by value."""
    hasher = blake3(b"forebay.leaf.v1\n")
    for field in ENTRY_SCHEMA:
        values, kind = columns[field.name], TYPES[field.type]
        name = field.name.encode()
        hasher.update(struct.pack("<HH", len(name), len(kind)) + name + kind.encode() + struct.pack("<Q", len(values)))
        bits = sum((value is not None) << row for row, value in enumerate(values))
        hasher.update(bits.to_bytes((len(values) + 7) // 8, "little"))
        if kind == "string":
            texts = [(value or "").encode() for value in values]
            hasher.update(b"".join(struct.pack("<I", len(text)) for text in texts) + b"".join(texts))
        elif kind == "bytes32":
            hasher.update(b"".join(value or bytes(32) for value in values))
        else:
            form = "<q" if kind == "int64" else "<I"
            hasher.update(b"".join(struct.pack(form, value or 0) for value in values))
    return hasher.digest()


def _over_old_bytes(column: Any, nulls: list[bool]) -> Any:
    """Make some values null, and leave their bytes where they are."""
    bits = sum((not null) << row for row, null in enumerate(nulls))
    valid = pa.py_buffer(bits.to_bytes((len(nulls) + 7) // 8 or 1, "little"))
    return pa.Array.from_buffers(column.type, len(column), [valid, *column.buffers()[1:]])


@settings(max_examples=60, deadline=None)
@given(st.data(), COUNTS, COUNTS, COUNTS)
def test_an_id_is_of_the_values_alone(data: st.DataObject, count: int, start: int, length: int) -> None:
    columns: dict[str, list[Any]] = {}
    arrays: list[Any] = []
    for field in ENTRY_SCHEMA:
        values = data.draw(st.lists(VALUES[TYPES[field.type]], min_size=count, max_size=count))
        share = data.draw(st.sampled_from([st.just(False), st.just(True), st.booleans()])) if field.nullable else None
        nulls = [data.draw(share) if share is not None else False for _ in values]
        columns[field.name] = [None if null else value for null, value in zip(nulls, values, strict=True)]
        array = pa.array(values, field.type)
        arrays.append(_over_old_bytes(array, nulls) if any(nulls) else array)
    table = pa.Table.from_arrays(arrays, schema=ENTRY_SCHEMA)
    assert hash_columns(table, leaf=True) == _hashed(columns)
    part = {name: values[start : start + length] for name, values in columns.items()}
    assert hash_columns(table.slice(start, length), leaf=True) == _hashed(part)
