"""How many reads of the last minutes were hits, from counters that begin anew when a worker does."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_WINDOW_SECONDS = 300.0


class Lookups(NamedTuple):
    """Counters of one worker.

    Attributes:
        incarnation: Another one after each start.
        hits: Ranges that it had.
        misses: Ranges that it had not.
    """

    incarnation: str
    hits: float
    misses: float


class HitWindow:
    """The lookups of the last five minutes."""

    def __init__(self) -> None:
        self._last: dict[str, Lookups] = {}
        self._steps: deque[tuple[float, float, float]] = deque()

    def note(self, now: float, workers: Mapping[str, Lookups]) -> None:
        """Note the counters of the workers that answered, at a time that only grows."""
        hits = misses = 0.0
        for name, counted in workers.items():
            last = self._last.get(name)
            if last is None:  # what it counted before may be days old
                continue
            is_same = last.incarnation == counted.incarnation
            hits += counted.hits - (last.hits if is_same else 0.0)
            misses += counted.misses - (last.misses if is_same else 0.0)
        self._last.update(workers)
        self._steps.append((now, hits, misses))
        while self._steps and now - self._steps[0][0] > _WINDOW_SECONDS:
            self._steps.popleft()

    def percent(self) -> int | None:
        """Return how many percent were hits; None if nothing was read."""
        hits, misses = (sum(step[index] for step in self._steps) for index in (1, 2))
        return round(100 * hits / (hits + misses)) if hits + misses else None
