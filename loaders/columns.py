"""Columns of Arrow from and to numpy, without pandas.

`pa.array`, `pa.scalar`, `to_numpy`, and every function of `pyarrow.compute` that is given a value of Python, look for
pandas first, whose import takes a third of a second: too much for a process that opens a data set and reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute

if TYPE_CHECKING:
    import numpy.typing as npt

pc: Any = pyarrow.compute  # its functions exist only at run time
_TYPES = {np.dtype(np.int32): pa.int32(), np.dtype(np.int64): pa.int64()}


def to_arrow(values: npt.NDArray[Any]) -> pa.Array[Any]:
    """Return integers as a column; int32 and int64 share the memory."""
    found = np.ascontiguousarray(values if values.dtype in _TYPES else values.astype(np.int64))
    return pa.Array.from_buffers(_TYPES[found.dtype], len(found), [None, _buffer(found)])


def to_mask(values: npt.NDArray[np.bool_]) -> pa.Array[Any]:
    """Return booleans as a column."""
    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _buffer(bits)])


def to_numbers(column: Any) -> npt.NDArray[Any]:
    """Return a column of integers without nulls as an array; the memory is shared, so nobody may write to it."""
    parts = [_numbers_of(chunk) for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column])]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=column.type.to_pandas_dtype())


def number(value: int) -> Any:
    """Return an integer of 64 bits as a value of Arrow."""
    return to_arrow(np.array([value], dtype=np.int64))[0]


def text(value: str) -> Any:
    """Return a string as a value of Arrow, with offsets of 64 bits."""
    data = value.encode()
    ends = np.array([0, len(data)], dtype=np.int64)
    return pa.Array.from_buffers(pa.large_string(), 1, [None, _buffer(ends), pa.py_buffer(data)])[0]


def null(kind: pa.DataType) -> Any:
    """Return the null of a type as a value of Arrow."""
    return pa.nulls(1, cast("Any", kind))[0]


def fill_null(column: Any, value: int) -> Any:
    """Replace nulls in a column of int64."""
    return pc.coalesce(column, number(value))


def _numbers_of(array: Any) -> npt.NDArray[Any]:
    kind = np.dtype(array.type.to_pandas_dtype())  # of numpy, despite its name
    data = array.buffers()[1]
    if not len(array) or data is None:
        return np.zeros(0, dtype=kind)
    return np.frombuffer(data, dtype=kind, count=len(array), offset=array.offset * kind.itemsize)


def _buffer(values: npt.NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(cast("Any", values))  # which its types do not know to be one
