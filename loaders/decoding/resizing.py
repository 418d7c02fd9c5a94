"""Images of one size, cut and resized straight into the batch."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from loaders.decoding.crops import Box, center_box, random_box, uniform
from loaders.decoding.images import decode_image, decode_jpeg, is_jpeg
from loaders.decoding.optional import optional, required

if TYPE_CHECKING:
    from collections.abc import Callable

    Pixels = npt.NDArray[np.uint8]

_FLIP = 1 << 20  # which of a draw's numbers says whether to mirror; the box uses the first ones
_scratch = threading.local()


@dataclass(frozen=True, slots=True)
class ImageCrop:
    """A decoder of images that all get one size: RGB, uint8, height x width x 3.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is still enough (the discrete cosine transform does it
    for free), then the box is cut out and resized, bilinearly: by cv2 where it is installed, else by Pillow. The two
    differ a little: what is at least halved, cv2 averages over areas; Pillow's filter grows with the factor.

    Attributes:
        size: Height and width.
        box: `random`: see `random_box`, with `scale` and `ratio`. `center`: the largest of the size's aspect, its
            sides times `share` (0.875 is the usual one for evaluation).
        scale: Least and greatest share of the area.
        ratio: Least and greatest width / height.
        share: Of `center`.
        flip: How likely it is mirrored.
    """

    size: tuple[int, int]
    box: Literal["random", "center"] = "random"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    share: float = 1.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}; expected a height and a width of at least 1")
        if not 0 < self.scale[0] <= self.scale[1] or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"scale {self.scale} and ratio {self.ratio} must be positive, the lesser first")
        if not 0 < self.share <= 1 or not 0 <= self.flip <= 1:
            raise ValueError(f"share {self.share} and flip {self.flip} must lie in (0, 1] and [0, 1]")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of each array that it makes."""
        return (*self.size, 3)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Of each array that it makes."""
        return np.dtype(np.uint8)

    @property
    def draws(self) -> bool:
        """Whether it wants a number for each sample and epoch."""
        return self.box == "random" or 0 < self.flip < 1

    def __call__(self, data: memoryview, draw: int = 0) -> Pixels:
        """Decode one image; see `into`."""
        out = np.empty(self.shape, np.uint8)
        self.into(data, out, draw)
        return out

    def into(self, data: memoryview, out: Pixels, draw: int = 0) -> None:
        """Decode one image.

        Args:
            data: The file, in any format that Pillow knows.
            out: Gets the pixels; uint8, contiguous, of this `shape`.
            draw: Any number; the box and the mirroring depend on it alone.

        Raises:
            OSError, ValueError: If it is no image.
            MissingExtraError: If neither cv2 nor Pillow is installed.
        """
        cv2 = optional("cv2")
        if cv2 is None:
            self._with_pillow(data, out, draw)
            return
        whole, pixels = _decoded(data, lambda height, width: self._enough(height, width, draw))
        box = _scaled(self._box(*whole, draw), whole, pixels.shape[:2])
        part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
        is_small = (
            box.height >= 2 * self.size[0] or box.width >= 2 * self.size[1]
        )  # two pixels see all of less than 2:1
        cv2.resize(part, self.size[::-1], dst=out, interpolation=cv2.INTER_AREA if is_small else cv2.INTER_LINEAR)
        if self._mirrored(draw):
            cv2.flip(out, 1, dst=out)

    def _box(self, height: int, width: int, draw: int) -> Box:
        if self.box == "random":
            return random_box(height, width, scale=self.scale, ratio=self.ratio, draw=draw)
        return center_box(height, width, aspect=self.size[1] / self.size[0], share=self.share)

    def _enough(self, height: int, width: int, draw: int) -> tuple[int, int]:
        """Return the size of the whole image at which the box has as many pixels as are wanted."""
        box = self._box(height, width, draw)
        return ceil(height * self.size[0] / box.height), ceil(width * self.size[1] / box.width)

    def _mirrored(self, draw: int) -> bool:
        return self.flip > 0 and uniform(draw, _FLIP) < self.flip

    def _with_pillow(self, data: memoryview, out: Pixels, draw: int) -> None:
        image_module: Any = required("PIL.Image", what="decoding images", package="Pillow", extra="torch")
        with image_module.open(io.BytesIO(data)) as image:
            width, height = image.size
            box = self._box(height, width, draw)
            least = self._enough(height, width, draw)
            if image.format == "JPEG":
                image.draft("RGB", least[::-1])
            box = _scaled(box, (height, width), image.size[::-1])
            edges = (box.left, box.top, box.left + box.width, box.top + box.height)
            small = image.convert("RGB").resize(self.size[::-1], image_module.Resampling.BILINEAR, box=edges)
            np.copyto(out, small if not self._mirrored(draw) else np.asarray(small)[:, ::-1])


def _decoded(data: memoryview, enough: Callable[[int, int], tuple[int, int]]) -> tuple[tuple[int, int], Pixels]:
    """Return the size of the image, and its pixels in RGB, perhaps fewer of them."""
    simplejpeg = optional("simplejpeg")
    if simplejpeg is not None and is_jpeg(data):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            pass  # Pillow may know better
        else:
            least = enough(height, width)
            pixels = decode_jpeg(data, at_least=least, buffer=_room(height * width * 3))
            if pixels is not None:
                return (height, width), _rgb(pixels)
    pixels = _rgb(decode_image(data))
    return pixels.shape[:2], pixels


def _room(size: int) -> bytearray:
    """Return this thread's buffer: fresh memory for each image costs a page fault for every 4 KiB."""
    room: bytearray | None = getattr(_scratch, "room", None)
    if room is None or len(room) < size:
        room = _scratch.room = bytearray(size)
    return room


def _rgb(pixels: Any) -> Pixels:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3]) if pixels.shape[2] != 3 else pixels


def _scaled(box: Box, whole: tuple[int, int], decoded: tuple[int, int]) -> Box:
    """Move a box from the image to the smaller one that was decoded."""
    if whole == decoded:
        return box
    down, across = decoded[0] / whole[0], decoded[1] / whole[1]
    top, left = min(int(box.top * down), decoded[0] - 1), min(int(box.left * across), decoded[1] - 1)
    return Box(
        top,
        left,
        min(max(1, round(box.height * down)), decoded[0] - top),
        min(max(1, round(box.width * across)), decoded[1] - left),
    )
