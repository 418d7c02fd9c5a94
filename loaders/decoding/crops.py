"""Which part of an image is taken: pure functions of its size and of a number drawn for the sample."""

from __future__ import annotations

from math import exp, log, sqrt
from typing import NamedTuple

from loaders.order import stream_key

_TRIES = 10


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def center_box(height: int, width: int, *, aspect: float = 1.0, share: float = 1.0) -> Box:
    """Return the largest box of an aspect (width / height) in the middle, its sides times `share`."""
    tall = min(height, width / aspect)
    box_height, box_width = max(1, round(tall * share)), max(1, round(tall * aspect * share))
    return Box((height - box_height) // 2, (width - box_width) // 2, min(box_height, height), min(box_width, width))


def random_box(height: int, width: int, *, scale: tuple[float, float], ratio: tuple[float, float], draw: int) -> Box:
    """Return a box of random area and aspect at a random place.

    The rule of torchvision's `RandomResizedCrop` (Szegedy et al., "Going deeper with convolutions", 2014): the area is
    uniform in `scale` of the image's, the aspect log-uniform in `ratio`; after ten boxes that do not fit, the largest
    one in the middle. The numbers come from `draw` alone.
    """
    for attempt in range(_TRIES):
        area = height * width * _between(*scale, draw, 4 * attempt)
        aspect = exp(_between(log(ratio[0]), log(ratio[1]), draw, 4 * attempt + 1))
        box_width, box_height = round(sqrt(area * aspect)), round(sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(uniform(draw, 4 * attempt + 2) * (height - box_height + 1))
            left = int(uniform(draw, 4 * attempt + 3) * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    return center_box(height, width, aspect=aspect)


def uniform(draw: int, number: int) -> float:
    """Return the `number`-th of the numbers in [0, 1) that belong to a draw."""
    return (stream_key(draw, number) >> 11) * 2.0**-53


def _between(low: float, high: float, draw: int, number: int) -> float:
    return low + (high - low) * uniform(draw, number)
