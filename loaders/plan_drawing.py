"""Curves as an SVG picture, written by hand: what a plan draws needs no plotting library."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT = 860, 150
_LEFT, _TOP, _GAP = 90, 50, 50
_POINTS = 430  # more than that many steps are drawn as the span of each two pixels


class Curve(NamedTuple):
    """A value for each step."""

    name: str
    values: list[float]


def draw(curves: Sequence[Curve], *, title: str) -> str:
    """Return an SVG document: one panel for each curve, all over the same steps."""
    height = _TOP + len(curves) * (_HEIGHT + _GAP)
    width = _LEFT + _WIDTH + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for number, curve in enumerate(curves):
        lines += _panel(curve, _TOP + number * (_HEIGHT + _GAP))
    return "\n".join([*lines, "</svg>\n"])


def _panel(curve: Curve, top: int) -> list[str]:
    bottom = top + _HEIGHT
    most = max([*curve.values, 1])
    spans = _spans(curve.values)

    def x(number: int) -> float:
        return _LEFT + _WIDTH * number / max(len(spans) - 1, 1)

    def y(value: float) -> float:
        return bottom - _HEIGHT * value / most

    upper = [f"{x(number):.1f},{y(high):.1f}" for number, (_, high) in enumerate(spans)]
    lower = [f"{x(number):.1f},{y(low):.1f}" for number, (low, _) in enumerate(spans)]
    text = 'font-size="11" fill="#444"'
    return [
        f'<text x="{_LEFT}" y="{top - 6}" font-size="12">{escape(curve.name)}</text>',
        f'<path d="M{_LEFT} {top}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#999"/>',
        f'<polygon points="{" ".join([*upper, *lower[::-1]])}" fill="#9ecae1" stroke="#3182bd" stroke-width="1"/>',
        f'<text x="{_LEFT - 8}" y="{top + 9}" text-anchor="end" {text}>{most:g}</text>',
        f'<text x="{_LEFT - 8}" y="{bottom}" text-anchor="end" {text}>0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 15}" text-anchor="end" {text}>step {len(curve.values)}</text>',
    ]


def _spans(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the least and the most value of at most `_POINTS` equal stretches."""
    count = min(len(values), _POINTS)
    edges = [number * len(values) // count for number in range(count + 1)]
    stretches = [values[start:stop] for start, stop in pairwise(edges)]
    return [(min(each), max(each)) for each in stretches]
