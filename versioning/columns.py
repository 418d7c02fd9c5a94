"""Vectorised questions about sorted columns of paths and about tables of one schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from sources.lazy import LazyModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Column: TypeAlias = pa.Array[Any] | pa.ChunkedArray[Any]
    Mask: TypeAlias = NDArray[np.bool_]

_FEW = 64  # so many paths are sooner looked up one by one than by a hash table of a whole leaf
compute: Any = LazyModule("pyarrow.compute")  # its functions exist only at run time


def as_mask(values: Column) -> Mask:
    """Turn a boolean column into a numpy mask; null counts as false."""
    filled = single(compute.fill_null(values, False) if values.null_count else values)
    result: Mask = np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.bool_)
    return result


def is_in(values: Column, wanted: Column) -> Mask:
    """Say for each value whether it is among `wanted`."""
    return as_mask(compute.is_in(values, value_set=single(wanted)))


def positions_in(values: Column, among: Column) -> NDArray[np.int64]:
    """Give for each value its position in `among` (unique values), or -1."""
    found = compute.fill_null(compute.index_in(values, value_set=single(among)), -1)
    result: NDArray[np.int64] = np.asarray(found.to_numpy(), dtype=np.int64)
    return result


def equal_or_both_null(left: Column, right: Column) -> Mask:
    """Compare two columns of one type row by row; null equals null."""
    if not left.null_count and not right.null_count:
        return as_mask(compute.equal(left, right))
    both_null = compute.and_(compute.is_null(left), compute.is_null(right))
    return as_mask(compute.or_(both_null, compute.fill_null(compute.equal(left, right), False)))


def equal_and_known(left: Column, right: Column) -> Mask:
    """Compare two columns of one type row by row; null equals nothing."""
    return as_mask(compute.equal(left, right))


def single(values: Column) -> Any:
    """Return a column as one contiguous array."""
    if isinstance(values, pa.ChunkedArray):
        return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    return values


def single_chunks(table: pa.Table) -> pa.Table:
    """Return the table with every column in one contiguous array."""
    if all(column.num_chunks == 1 for column in table.columns):
        return table
    return pa.Table.from_arrays([_one_chunk(column) for column in table.columns], schema=table.schema)


def _one_chunk(column: Any) -> Any:
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def concat(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Append tables of one schema; none at all give an empty table."""
    return single_chunks(pa.concat_tables(tables)) if tables else schema.empty_table()


def take(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Select rows by position."""
    return table.take(as_positions(rows))


def as_positions(rows: NDArray[np.int64], known: Mask | None = None) -> Any:
    """Return an array of positions without copying; `pa.array` would load numpy.ma to do it.

    Args:
        rows: The positions.
        known: Where there is one; it is null elsewhere.
    """
    packed: Any = np.ascontiguousarray(rows, dtype=np.int64)  # pyarrow's stubs know of no buffers
    validity = as_filter(known).buffers()[1] if known is not None else None
    return pa.Array.from_buffers(pa.int64(), len(packed), [validity, pa.py_buffer(packed)])


def where(table: pa.Table, mask: Mask) -> pa.Table:
    """Select the rows that the mask is true for."""
    return table if mask.all() else table.filter(as_filter(mask))


def as_filter(mask: Mask) -> Any:
    """Return a mask as a column; `pa.array` would load numpy.ma to do it."""
    packed: Any = np.packbits(mask, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(mask), [None, pa.py_buffer(packed)])


def rows_of(table: pa.Table, paths: pa.Array[Any]) -> pa.Table:
    """Return the rows of some paths; those and the table's are strictly ascending."""
    if len(paths) > _FEW:
        return where(table, is_in(table.column("path"), paths))
    return take(table, np.array(_found(as_bytes(table.column("path")), as_bytes(paths)), dtype=np.int64))


def _found(keys: Any, wanted: Any) -> list[int]:
    """Return the positions of the keys that are among sorted wanted ones, one by one."""
    rows: list[int] = []
    for key in wanted.to_pylist():
        position = first_not_below(keys, key, rows[-1] + 1 if rows else 0)
        if position < len(keys) and keys[position].as_py() == key:
            rows.append(position)
    return rows


def sorted_by_path(table: pa.Table) -> pa.Table:
    """Sort by the bytes of the paths; a table in order is returned as it is."""
    paths = single(table.column("path"))
    if is_sorted(paths):
        return table
    return single_chunks(table.take(compute.array_sort_indices(paths)))


def is_sorted(paths: Any) -> bool:
    """Say whether the paths are in strictly ascending byte order (so also unique)."""
    count = len(paths)
    return count < 2 or bool(compute.all(compute.less(paths.slice(0, count - 1), paths.slice(1))).as_py())


def first_not_below(keys: Any, key: bytes, start: int = 0) -> int:
    """Return the first position from `start` whose key is `>= key`; `keys` is a sorted binary array."""
    low, high = start, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle].as_py() < key:
            low = middle + 1
        else:
            high = middle
    return low


def first_above(keys: Any, key: bytes, start: int = 0) -> int:
    """Return the first position from `start` whose key is `> key`; `keys` is a sorted binary array."""
    position = first_not_below(keys, key, start)
    return position + 1 if position < len(keys) and keys[position].as_py() == key else position


def directories(paths: Column) -> Any:
    """Return every directory that some path lies in, at any depth; each once, in no order."""
    found: list[Any] = []
    rest = single(paths)
    while len(rest := rest.filter(compute.match_substring(rest, "/"))):
        parents = compute.list_element(compute.split_pattern(rest, "/", max_splits=1, reverse=True), 0)
        rest = compute.unique(parents)
        found.append(rest)
    return compute.unique(pa.concat_arrays(found)) if found else pa.array([], pa.string())


def as_bytes(paths: Column) -> Any:
    """View a string column as one binary array, without copying."""
    return single(paths).view(pa.binary())
