"""Images as arrays: simplejpeg and cv2 where they give the very pixels that Pillow gives, Pillow for all else."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from loaders.decoding.optional import optional, required

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_MIN_FACTOR = 2  # libjpeg-turbo has no fast transform for 7/8 to 5/8: these take longer than the whole picture
_CHANNELS = {0: 1, 2: 3, 6: 4}  # of the colour types of PNG that need no palette
_SPACES = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}


def decode_image(data: memoryview) -> Pixels:
    """Decode an image; palettes become RGB or RGBA, bitmaps 0 and 255, CMYK becomes RGB.

    What a strict decoder refuses goes to Pillow, which is more patient.

    Raises:
        MissingExtraError: If it needs Pillow, which is not installed.
    """
    pixels = None
    if is_jpeg(data):
        pixels = decode_jpeg(data)
    elif bytes(data[:8]) == _PNG:
        pixels = _png(data)
    return _with_pillow(data) if pixels is None else pixels


def is_jpeg(data: memoryview) -> bool:
    """Say whether a file begins as a JPEG does."""
    return bytes(data[:3]) == _JPEG


def decode_jpeg(data: memoryview, *, at_least: tuple[int, int] = (0, 0), buffer: Buffer | None = None) -> Any:
    """Decode a JPEG by simplejpeg; None if it is not installed or will not.

    Args:
        data: The file.
        at_least: Height and width that will do: the picture may come at 1/2, 1/4 or 1/8 of its size, but not smaller.
        buffer: Where the pixels may be put; must be large enough, and is what the array lies in.
    """
    simplejpeg = optional("simplejpeg")
    if simplejpeg is None:
        return None
    try:
        space = _SPACES.get(simplejpeg.decode_jpeg_header(data)[2])
        if space is None:  # CMYK is Pillow's
            return None
        least = {"min_height": at_least[0], "min_width": at_least[1], "min_factor": _MIN_FACTOR}
        pixels = simplejpeg.decode_jpeg(data, space, buffer=buffer, **least)
    except ValueError:
        return None
    return pixels[:, :, 0] if space == "GRAY" else pixels


def _png(data: memoryview) -> Any:
    """Decode by cv2 the PNGs of which it makes what Pillow makes: eight bits, no palette, no transparent colour."""
    if len(data) < 33 or data[24] != 8 or data[25] not in _CHANNELS or b"tRNS" in bytes(data[33:512]):
        return None
    cv2 = optional("cv2")
    if cv2 is None:
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    channels = _CHANNELS[data[25]]
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape[2:] != ((channels,) if channels > 1 else ()):
        return None
    if channels == 1:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA, dst=pixels)


def _with_pillow(data: memoryview) -> Pixels:
    image_module: Any = required("PIL.Image", what="decoding images", package="Pillow", extra="torch")
    with image_module.open(io.BytesIO(data)) as image:
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
