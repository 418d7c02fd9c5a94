"""How many requests there were, and how long they took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.mount.protocol import Opcode

if TYPE_CHECKING:
    from collections.abc import Iterable

_OPCODES = 64


class Tally:
    """Counters of one thread: nobody else changes them.

    Attributes:
        counts: Requests, by opcode.
        nanoseconds: How long the thread was busy with them; not what was answered later.
    """

    __slots__ = ("counts", "nanoseconds")

    def __init__(self) -> None:
        self.counts = [0] * _OPCODES
        self.nanoseconds = [0] * _OPCODES

    def add(self, opcode: int, nanoseconds: int) -> None:
        """Count a request."""
        if opcode < _OPCODES:
            self.counts[opcode] += 1
            self.nanoseconds[opcode] += nanoseconds


def by_name(tallies: Iterable[Tally]) -> dict[str, dict[str, float]]:
    """Return requests and busy seconds of each operation that occurred, by its name in lower case."""
    whole: dict[str, dict[str, float]] = {}
    for tally in tuple(tallies):
        for opcode in Opcode:
            if tally.counts[opcode]:
                sums = whole.setdefault(opcode.name.lower(), {"requests": 0, "seconds": 0.0})
                sums["requests"] += tally.counts[opcode]
                sums["seconds"] += tally.nanoseconds[opcode] / 1e9
    return whole
