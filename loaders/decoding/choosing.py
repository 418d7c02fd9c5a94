"""Which decoder a field gets: by its extension, or as the user says.

| extension            | value                                                                               |
| -------------------- | ----------------------------------------------------------------------------------- |
| png, jpg, jpeg, webp | numpy array, H x W (grey) or H x W x C (RGB, RGBA), uint8; 16-bit grey stays uint16 |
| npy                  | numpy array; pickled objects are refused                                            |
| json                 | what the document says                                                              |
| msgpack              | the same; needs msgpack                                                             |
| cls                  | int                                                                                 |
| txt                  | str, UTF-8                                                                          |
| flac, ogg, wav       | (float32 array of frames x channels, sample rate); needs soundfile                  |
| anything else        | bytes                                                                               |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from loaders.decoding.arrays import decode_npy
from loaders.decoding.documents import decode_class, decode_json, decode_msgpack, decode_text
from loaders.decoding.images import decode_image
from loaders.decoding.sounds import decode_sound

if TYPE_CHECKING:
    from collections.abc import Sequence

Decoder = Callable[[memoryview], Any]
"""Makes the value of one field; what it raises is reported with the sample's name."""

DecodeOption = Literal["auto"] | Mapping[str, Decoder | None] | None
"""`"auto"`: by extension. None: every field as bytes. A mapping: these fields so, the others by extension."""

AUTO: Mapping[str, Decoder] = {
    "cls": decode_class,
    "flac": decode_sound,
    "jpeg": decode_image,
    "jpg": decode_image,
    "json": decode_json,
    "msgpack": decode_msgpack,
    "npy": decode_npy,
    "ogg": decode_sound,
    "png": decode_image,
    "txt": decode_text,
    "wav": decode_sound,
    "webp": decode_image,
}


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
