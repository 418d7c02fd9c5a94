"""From a value to the bytes of a field, chosen by its extension: the inverse of `loaders.decoding`."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from loaders.errors import MissingExtraError, SampleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def encode_field(field: str, value: object) -> bytes:
    """Return the bytes of a value; bytes are taken as they are, whatever the extension.

    Raises:
        SampleError: If the extension says nothing about such a value.
        MissingExtraError: If an image is to be encoded and Pillow is not installed.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    extension = field.rpartition(".")[2]
    encode = ENCODERS.get(extension)
    if encode is None:
        if isinstance(value, str):
            return value.encode()
        raise SampleError(
            f"field {field!r} has a {type(value).__name__}, and its extension is none of {', '.join(ENCODERS)};"
            " give bytes"
        )
    try:
        return encode(value)
    except (TypeError, ValueError) as error:
        raise SampleError(f"field {field!r} cannot hold this {type(value).__name__}: {error}") from error


def _class(value: Any) -> bytes:
    if isinstance(value, str):
        int(value)  # a ValueError if it is none
        return value.encode()
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return b"%d" % int(value)
    raise TypeError("expected an int")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError("expected a str")
    return value.encode()


def _array(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(value), allow_pickle=False)
    return buffer.getvalue()


def _image(form: str) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingExtraError("encoding images needs Pillow: pip install 'forebay[torch]'") from error
        image = value if isinstance(value, Image.Image) else Image.fromarray(np.asarray(value))
        buffer = io.BytesIO()
        image.save(buffer, form)
        return buffer.getvalue()

    return encode


ENCODERS: Mapping[str, Callable[[Any], bytes]] = {
    "cls": _class,
    "jpeg": _image("JPEG"),
    "jpg": _image("JPEG"),
    "json": _json,
    "npy": _array,
    "png": _image("PNG"),
    "txt": _text,
}
"""By extension."""
