"""numpy's `.npy` files.

`np.load` reads from a file object and parses the header as Python each time. Arrays of a data set mostly have the same
header: it is parsed once, and the rest is one copy.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000  # bytes, as numpy: parsing a long one may take the parser down


def decode_npy(data: memoryview) -> npt.NDArray[Any]:
    """Decode one `.npy` array.

    Raises:
        ValueError: If it is none, is cut off, or holds Python objects, because reading those runs code.
    """
    begin, header = _split(data)
    dtype, shape, order = _parse(header)
    count = prod(shape)
    if len(data) - begin < count * dtype.itemsize:
        raise ValueError(f"an array of shape {shape}, {dtype}, needs {count * dtype.itemsize} bytes; it is cut off")
    flat = np.frombuffer(data, dtype, count, begin) if count * dtype.itemsize else np.empty(count, dtype)
    return flat.reshape(shape, order=order).copy(order)


def _split(data: memoryview) -> tuple[int, bytes]:
    """Return where the values begin, and the header."""
    if len(data) < 12 or data[:6] != _MAGIC:
        raise ValueError("no npy file: its first bytes are not those of one")
    major = data[6]
    if major not in {1, 2, 3}:
        raise ValueError(f"version {major} of the npy format is not known")
    begin = 10 if major == 1 else 12
    length = int.from_bytes(data[8:begin], "little")
    if length > _MAX_HEADER or begin + length > len(data):
        raise ValueError(f"a header of {length} bytes is too long, or cut off")
    return begin + length, bytes(data[begin : begin + length])


@lru_cache(maxsize=256)
def _parse(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    try:
        found = ast.literal_eval(header.decode("utf-8", "replace").strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("the header is not one of an npy file") from error
    if not isinstance(found, dict) or set(found) != {"descr", "fortran_order", "shape"}:
        raise ValueError("the header is not one of an npy file")
    shape = found["shape"]
    if not isinstance(shape, tuple) or not all(type(one) is int and one >= 0 for one in shape):
        raise ValueError(f"{shape!r:.100} is no shape")
    try:
        dtype = np.lib.format.descr_to_dtype(found["descr"])
    except (TypeError, SyntaxError, IndexError) as error:
        raise ValueError(f"{found['descr']!r:.100} is no type of an array") from error
    if dtype.hasobject:
        raise ValueError("an array of Python objects is a pickle, which may run code (numpy's allow_pickle)")
    return dtype, shape, "F" if found["fortran_order"] else "C"
