"""Brace lists, as shells and webdataset write many shards: `train-{000000..000127}.tar`, `{train,extra}.tar`."""

from __future__ import annotations

import re
from itertools import product

_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\Z")
_MOST = 1_000_000


def expand_braces(text: str) -> list[str]:
    """Write out the lists in braces, in their order; braces that hold no list stay as they are.

    Raises:
        ValueError: If they stand for more than a million names.
    """
    lists: list[list[str]] = []

    def take(match: re.Match[str]) -> str:
        items = _items(match[1])
        parts = ["{" + match[1] + "}"] if items is None else [name for item in items for name in _filled(item, lists)]
        lists.append(parts)
        return f"\0{len(lists) - 1}\0"

    if "\0" in text:
        raise ValueError("a name has a NUL")
    while _INNERMOST.search(text):
        text = _INNERMOST.sub(take, text)
    return _filled(text, lists)


def _filled(text: str, lists: list[list[str]]) -> list[str]:
    pieces = text.split("\0")
    choices = [lists[int(piece)] if at % 2 else [piece] for at, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MOST:
        raise ValueError(f"braces stand for {count} names; at most {_MOST}")
    return ["".join(parts) for parts in product(*choices)]


def _items(text: str) -> list[str] | None:
    if match := _RANGE.match(text):
        first, last, step = int(match[1]), int(match[2]), abs(int(match[3] or 1)) or 1
        if abs(last - first) // step >= _MOST:
            raise ValueError(f"{{{text}}} stands for more than {_MOST} names")
        padded = any(len(end.lstrip("-")) > 1 and end.lstrip("-")[0] == "0" for end in match.groups()[:2])
        width = max(len(match[1]), len(match[2])) if padded else 0
        numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
        return [f"{number:0{width}d}" for number in numbers]
    return text.split(",") if "," in text else None
