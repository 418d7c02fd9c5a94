"""From the bytes of a field to a value, chosen by its extension.

| extension      | value                                                                                          |
| -------------- | ---------------------------------------------------------------------------------------------- |
| png, jpg, jpeg | numpy array, H x W (grey) or H x W x C (RGB, RGBA), uint8; 16-bit grey stays uint16             |
| npy            | numpy array; pickled objects are refused                                                        |
| json           | what the document says                                                                          |
| cls            | int                                                                                             |
| txt            | str, UTF-8                                                                                      |
| anything else  | bytes                                                                                           |
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from loaders.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Decoder = Callable[[memoryview], Any]
    """Makes the value of one field; what it raises is reported with the sample's name."""

    DecodeOption = Literal["auto"] | Mapping[str, "Decoder | None"] | None
    """`"auto"`: by extension. None: every field as bytes. A mapping: these fields so, the others by extension."""


def choose_decoders(option: DecodeOption, *, fields: Sequence[str]) -> list[Decoder]:
    """Return the decoder of each field.

    Args:
        option: See `DecodeOption`; None as a mapping's value means bytes.
        fields: Field names; the part after the last dot is the extension (`seg.png` is a PNG).

    Raises:
        ValueError: If the mapping names a field that is not there.
    """
    if option is None:
        return [bytes] * len(fields)
    chosen: dict[str, Decoder] = {field: AUTO.get(field.rpartition(".")[2], bytes) for field in fields}
    if option == "auto":
        return list(chosen.values())
    for field, decoder in option.items():
        if field not in chosen:
            raise ValueError(f"decode names field {field!r}, which no sample has; fields: {', '.join(fields)}")
        chosen[field] = decoder or bytes
    return list(chosen.values())


def decode_image(data: memoryview) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Decode an image that Pillow knows; palettes become RGB or RGBA, bitmaps 0 and 255, CMYK becomes RGB.

    Raises:
        MissingExtraError: If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("decoding images needs Pillow: pip install 'forebay[torch]'") from error
    with Image.open(io.BytesIO(data)) as image:
        mode = _plain_mode(image.mode, transparent="transparency" in image.info)
        converted = image if mode == image.mode else image.convert(mode)
        # A copy, because what Pillow exports is read-only and torch.from_numpy refuses that.
        return np.array(converted)


def _plain_mode(mode: str, *, transparent: bool) -> str:
    if mode == "P":
        return "RGBA" if transparent else "RGB"
    if mode == "1":
        return "L"
    if mode in {"LA", "PA", "La", "RGBa"}:
        return "RGBA"
    if mode in {"L", "RGB", "RGBA", "I;16"}:
        return mode
    return "RGB"


def decode_npy(data: memoryview) -> npt.NDArray[Any]:
    """Decode one `.npy` array; an object array is a ValueError, because reading one runs code."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def decode_json(data: memoryview) -> Any:
    """Decode a JSON document, UTF-8."""
    return json.loads(bytes(data))


def decode_class(data: memoryview) -> int:
    """Decode a class number written in decimal, white space around it allowed."""
    return int(bytes(data))


def decode_text(data: memoryview) -> str:
    """Decode UTF-8 text."""
    return str(data, "utf-8")


AUTO: Mapping[str, Decoder] = {
    "cls": decode_class,
    "jpeg": decode_image,
    "jpg": decode_image,
    "json": decode_json,
    "npy": decode_npy,
    "png": decode_image,
    "txt": decode_text,
}
