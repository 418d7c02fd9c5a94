"""Which requests to make for many ranges: neighbours in one, large ones in parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sources.locations import Version

MAX_GAP_BYTES = 64 << 10
"""A gap this long costs less than another request: at 100 MB/s and 5 ms to the first byte, up to 500 KB would; a
remote store may be faster, and bytes cost money there."""

PART_BYTES = 8 << 20
"""Long enough that a request's latency does not show, short enough that a 64 MiB object feeds eight connections."""


class Range(NamedTuple):
    """Bytes `[start, start + length)` of a key at a version."""

    key: str
    version: Version | None
    start: int
    length: int


class Member(NamedTuple):
    """A wanted range inside of a fetch.

    Attributes:
        wanted: Its place among the wanted ranges.
        offset: Where it begins in the fetch.
        length: Its length.
    """

    wanted: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Neighbouring ranges of one object, read as one.

    Attributes:
        key: Of the object.
        version: Of the object.
        start: Where the first of them begins.
        length: Up to the end of the last.
        members: The wanted ranges, by where they begin.
    """

    key: str
    version: Version | None
    start: int
    length: int
    members: tuple[Member, ...]


def plan_fetches(ranges: Sequence[Range], *, max_gap_bytes: int = MAX_GAP_BYTES) -> list[Fetch]:
    """Join neighbours of one object whose gap is at most `max_gap_bytes`; overlaps are read once.

    What is joined over a gap is no longer than a part: it would be read in parts anyway, and a caller who keeps one
    range keeps the memory of all that it was joined with. Ranges without a version are never joined: between two
    wanted ones, no byte may be from another version.

    Returns:
        Fetches ordered by object and start; each wanted range is a member of exactly one. Empty ranges come last
        of their object, each in a fetch of length 0 of its own.
    """
    order = sorted(range(len(ranges)), key=lambda index: _place(ranges[index]))
    fetches: list[Fetch] = []
    group: list[int] = []
    end = 0
    for index in order:
        one = ranges[index]
        if group and _joins(ranges[group[0]], one, end, max_gap_bytes):
            group.append(index)
            end = max(end, one.start + one.length)
            continue
        if group:
            fetches.append(_fetch(ranges, group, end))
        group, end = [index], one.start + one.length
    if group:
        fetches.append(_fetch(ranges, group, end))
    return fetches


def split_parts(length: int, part_bytes: int = PART_BYTES) -> Iterator[tuple[int, int]]:
    """Yield `(offset, length)` of nearly equal parts, none longer than `part_bytes`; nothing for nothing."""
    count = -(-length // part_bytes)
    for number in range(count):
        begin, end = number * length // count, (number + 1) * length // count
        yield begin, end - begin


def _place(one: Range) -> tuple[str, str, bool, int, int]:
    return one.key, one.version or "", not one.length, one.start, one.length


def _joins(first: Range, one: Range, end: int, max_gap_bytes: int) -> bool:
    same = first.version is not None and (first.key, first.version) == (one.key, one.version)
    if not (same and first.length and one.length):
        return False
    fits = one.start + one.length - first.start <= PART_BYTES
    return one.start < end or (fits and one.start - end <= max_gap_bytes)


def _fetch(ranges: Sequence[Range], group: list[int], end: int) -> Fetch:
    first = ranges[group[0]]
    members = tuple(Member(index, ranges[index].start - first.start, ranges[index].length) for index in group)
    return Fetch(first.key, first.version, first.start, end - first.start, members)
