"""Operations that wait for each other, and would for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def cycle_of(start: str, predecessors: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the shortest way from an operation back to itself, both ends included; empty if there is none.

    Args:
        start: "Kind/name".
        predecessors: Returns what an operation waits for, each as "Kind/name"; of one that is not there, nothing.
    """
    before: dict[str, str] = {}
    waiting = [start]
    for here in waiting:  # grows: breadth first
        for each in sorted(set(predecessors(here))):
            if each == start:
                return _way(start, here, before)
            if each not in before:
                before[each] = here
                waiting.append(each)
    return []


def _way(start: str, last: str, before: dict[str, str]) -> list[str]:
    way = [last]
    while way[-1] != start:
        way.append(before[way[-1]])
    return [*reversed(way), start]


def cycle_text(cycle: Sequence[str]) -> str:
    """Say what is wrong with a cycle, and what to do."""
    if len(cycle) == 2:
        return f"spec.runAfter: {cycle[0]} waits for itself; remove it from the list"
    return f"spec.runAfter: {' waits for '.join(cycle)}, for ever; remove one of them from a runAfter"
