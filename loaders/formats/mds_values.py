"""The encodings of MDS columns, as mosaicml-streaming has them: values <-> bytes, little-endian."""

from __future__ import annotations

import json
import math
import pickle
import struct
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from loaders.decoding import decode_image
from loaders.decoding.documents import decode_class, decode_json, decode_text
from loaders.errors import SampleError, ShardFormatError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_SCALARS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_CODES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32"}
_CODES |= {64: "uint64", 65: "int64", 66: "float64"}
_CODE_OF = {name: code for code, name in _CODES.items()}
_SHAPES = ("<u1", "<u2", "<u4", "<u8")
_IMAGES = ("jpeg", "png")


def fixed_size(encoding: str) -> int | None:
    """Return the bytes of each value of an encoding, None where they vary."""
    if encoding == "int":
        return 8
    if encoding in _SCALARS:
        return np.dtype(encoding).itemsize
    dtype, shape = _array_form(encoding) if encoding.startswith("ndarray:") else (None, None)
    return None if dtype is None or shape is None else math.prod(shape) * dtype.itemsize


def infer_encoding(value: object) -> str:
    """Return the encoding for a column that has such a value in its first sample."""
    kinds: tuple[tuple[Any, str], ...] = (
        (bytes, "bytes"),
        (str, "str"),
        (bool, "json"),
        (int, "int"),
        (float, "float64"),
        (np.ndarray, "ndarray"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "json")


def encoder(encoding: str) -> Callable[[Any], bytes]:
    """Return what makes the bytes of a value; bytes themselves are taken as they are, as mosaicml-streaming does.

    Raises:
        SampleError: If the encoding is unknown, or one that is read only.
    """
    if encoding in ("bytes", *_IMAGES):
        return bytes
    if encoding == "int":
        return struct.Struct("<q").pack
    if encoding in _SCALARS:
        return lambda value: np.array(value, f"<{np.dtype(encoding).str[1:]}").tobytes()
    simple: dict[str, Callable[[Any], bytes]] = {
        "str": lambda value: value.encode(),
        "json": lambda value: json.dumps(value.tolist() if isinstance(value, np.ndarray) else value).encode(),
        "str_int": lambda value: b"%d" % value,
        "str_float": lambda value: repr(float(value)).encode(),
        "str_decimal": lambda value: str(value).encode(),
    }
    if encoding in simple:
        return simple[encoding]
    if encoding.partition(":")[0] == "ndarray":
        return partial(_encode_array, *_array_form(encoding))
    known = ["bytes", "int", *simple, *_SCALARS, *_IMAGES, "ndarray[:DTYPE[:SHAPE]]"]
    raise SampleError(f"columns of encoding {encoding!r} are not written; known: {', '.join(known)}")


def decoder(encoding: str, *, allow_pickle: bool = False) -> Callable[[memoryview], Any] | None:
    """Return what makes a value of bytes; None for plain bytes.

    Raises:
        ShardFormatError: If the encoding is unknown, or pickle without `allow_pickle`.
    """
    if encoding in ("bytes", "pil", "jpeg_array", "jpegarray") or encoding.startswith("list["):
        return None
    if encoding == "int":
        return _decode_int
    if encoding in _SCALARS:
        return partial(_decode_scalar, np.dtype(encoding).newbyteorder("<"))
    if encoding in _IMAGES:
        return decode_image
    if encoding.partition(":")[0] == "ndarray":
        return partial(_decode_array, *_array_form(encoding))
    if encoding == "pkl":
        if not allow_pickle:
            raise ShardFormatError(
                "a column holds pickled objects, and reading one runs code; if you trust its writer: allow_pickle=True"
            )
        return pickle.loads
    if encoding not in _TEXTS:
        raise ShardFormatError(f"columns of encoding {encoding!r} are not known here")
    return _TEXTS[encoding]


def _float(data: memoryview) -> float:
    return float(bytes(data))


def _decimal(data: memoryview) -> Decimal:
    return Decimal(str(data, "utf-8"))


_TEXTS: dict[str, Callable[[memoryview], Any]] = {
    "str": decode_text,
    "json": decode_json,
    "str_int": decode_class,
    "str_float": _float,
    "str_decimal": _decimal,
}


def _decode_int(data: memoryview) -> int:
    value: int = struct.unpack("<q", data)[0]
    return value


def _decode_scalar(dtype: np.dtype[Any], data: memoryview) -> Any:
    (value,) = np.frombuffer(data, dtype)
    return value


def _array_form(encoding: str) -> tuple[np.dtype[Any] | None, tuple[int, ...] | None]:
    """Take `ndarray:DTYPE:SHAPE` apart; both may be missing."""
    name, _, shape = encoding.partition(":")[2].partition(":")
    if name and name not in _CODE_OF:
        raise ShardFormatError(f"columns of encoding {encoding!r} are not known here")
    try:
        dims = tuple(map(int, shape.split(","))) if shape else None
    except ValueError as error:
        raise ShardFormatError(f"columns of encoding {encoding!r} are not known here") from error
    return np.dtype(name).newbyteorder("<") if name else None, dims


def _encode_array(dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None, value: Any) -> bytes:
    array = np.asarray(value)
    code = _CODE_OF.get(array.dtype.name)
    if code is None or not array.size or not array.ndim:
        raise ValueError(f"arrays of {array.dtype} with shape {array.shape} have no place in MDS")
    if (dtype is not None and array.dtype != dtype) or (shape is not None and array.shape != shape):
        raise ValueError(f"the column has {dtype} and {shape}, this array {array.dtype} and {array.shape}")
    head = b"" if dtype is not None else bytes([code])
    if shape is None:
        width = next(at for at, bits in enumerate((8, 16, 32, 64)) if max(array.shape) < 1 << bits)
        head += bytes([array.ndim << 2 | width]) + np.array(array.shape, _SHAPES[width]).tobytes()
    return head + array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _decode_array(dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None, data: memoryview) -> npt.NDArray[Any]:
    at = 0
    if dtype is None:
        dtype = np.dtype(_CODES[data[0]]).newbyteorder("<")
        at = 1
    if shape is None:
        dims, width = data[at] >> 2, data[at] & 3
        end = at + 1 + (dims << width)
        shape = tuple(np.frombuffer(data[at + 1 : end], _SHAPES[width]).tolist())
        at = end
    return np.frombuffer(data[at:], dtype).reshape(shape)
