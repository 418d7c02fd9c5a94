"""Which source fills slot p of a mixture: by largest deficit, in O(1) at any slot.

Weights become whole numbers that add up to a period T of at most `MAX_PERIOD` slots. In each slot every source earns
its weight, and the one that is owed most, the first of equals, is chosen and pays T. After T slots all debts are 0
(each is a multiple of T and above -T, and they add up to 0), so the pattern repeats, every source gets exactly its
weight in each period, and none is ever a whole sample ahead of its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import gcd, lcm
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loaders.ordering.shuffling import Indices

MAX_PERIOD = 4096


class Slots(NamedTuple):
    """What fills some slots: the source of each, and how many samples that source had given before."""

    source: Indices
    before: Indices


@dataclass(frozen=True, eq=False)
class _Pattern:
    weights: Indices  # whole numbers, one for each source
    source: Indices  # of each slot of a period
    before: Indices  # how often that source was chosen before in the period

    def counts(self, slots: int) -> Indices:
        """Count what each source gives to the first slots."""
        periods, rest = divmod(slots, len(self.source))
        return self.weights * periods + np.bincount(self.source[:rest], minlength=len(self.weights))


class Quotas:
    """The source of every slot, for weights that change at given slots.

    Args:
        phases: The first slot of each phase, ascending from 0, and the weights from there on: not negative, not all 0.

    Raises:
        ValueError: If they are not so.
    """

    def __init__(self, phases: Sequence[tuple[int, Sequence[float]]]) -> None:
        starts = [start for start, _ in phases]
        if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
            raise ValueError(f"the phases of a schedule begin at {starts}; expected 0 and then ascending numbers")
        self._starts = starts
        self._patterns = [_pattern(whole_weights(weights)) for _, weights in phases]
        self._bases = [np.zeros(len(phases[0][1]), dtype=np.int64)]
        for number in range(1, len(starts)):
            given = self._patterns[number - 1].counts(starts[number] - starts[number - 1])
            self._bases.append(self._bases[-1] + given)

    def counts(self, slots: int) -> Indices:
        """Count what each source gives to the slots [0, slots), int64."""
        phase = int(np.searchsorted(self._starts, slots, side="right")) - 1
        return self._bases[phase] + self._patterns[phase].counts(slots - self._starts[phase])

    def at(self, slots: Indices) -> Slots:
        """Return what fills some slots, ascending, int64."""
        parts = np.split(slots, np.searchsorted(slots, self._starts[1:]))
        found = [self._in_phase(number, part) for number, part in enumerate(parts) if part.size]
        if not found:
            return Slots(slots, slots)  # of no slots
        return Slots(np.concatenate([one.source for one in found]), np.concatenate([one.before for one in found]))

    def _in_phase(self, number: int, slots: Indices) -> Slots:
        pattern = self._patterns[number]
        periods, inside = np.divmod(slots - self._starts[number], len(pattern.source))
        source = pattern.source[inside]
        before = self._bases[number][source] + periods.astype(np.int64) * pattern.weights[source]
        return Slots(source, before + pattern.before[inside])

    def slots_within(self, sizes: Sequence[int]) -> int:
        """Return the most slots for which no source gives more samples than it has."""
        return self._last(lambda counts: bool((counts <= np.asarray(sizes)).all()))

    def slots_to_cover(self, sizes: Sequence[int]) -> int:
        """Return the fewest slots for which every source gives at least as many samples as it has.

        Raises:
            ValueError: If a source is never chosen again before it gave them.
        """
        short = self._bases[-1] < np.asarray(sizes)
        if (short & (self._patterns[-1].weights == 0)).any():
            raise ValueError("a source whose last weight is 0 is never exhausted; pass epoch_size, or another `stop`")
        return self._last(lambda counts: bool((counts < np.asarray(sizes)).any())) + 1

    def _last(self, holds: Callable[[Indices], bool]) -> int:
        """Return the largest number of slots for which something holds that holds for 0, and not for ever."""
        low, high = 0, 1
        while holds(self.counts(high)):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(self.counts(middle)) else (low, middle)
        return low


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """Return weights as whole numbers of a sum of at most `MAX_PERIOD`.

    Exact where such numbers exist (0.7 and 0.3 are 7 and 3); else to the nearest 4096th of all, at least one for a
    weight that is not 0.

    Raises:
        ValueError: If a weight is negative or no number, all are 0, or there are too many.
    """
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise ValueError(f"the weights of a mixture are {list(weights)}; expected numbers from 0 up, not all 0")
    if sum(weight > 0 for weight in weights) > MAX_PERIOD // 4:
        raise ValueError(f"a mixture has at most {MAX_PERIOD // 4} sources")
    exact = [Fraction(str(weight)) for weight in weights]
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    shared = gcd(*whole)
    if sum(whole) // shared <= MAX_PERIOD:
        return tuple(weight // shared for weight in whole)
    return _rounded(exact)


def _rounded(weights: list[Fraction]) -> tuple[int, ...]:
    total = sum(weights)
    ideal = [weight * MAX_PERIOD / total for weight in weights]
    found = [max(int(share), 1) if share else 0 for share in ideal]
    while (missing := MAX_PERIOD - sum(found)) != 0:  # the sources that are owed most, or owe most, by turns
        step = 1 if missing > 0 else -1
        open_ = [number for number, share in enumerate(ideal) if share and found[number] + step > 0]
        chosen = max(open_, key=lambda number: (step * (ideal[number] - found[number]), -number))
        found[chosen] += step
    return tuple(found)


@lru_cache(maxsize=256)
def _pattern(weights: tuple[int, ...]) -> _Pattern:
    period = sum(weights)
    earned = np.array(weights, dtype=np.int64)
    owed = np.zeros_like(earned)
    given = [0] * len(weights)
    source, before = [], []
    for _ in range(period):
        owed += earned
        chosen = int(owed.argmax())
        owed[chosen] -= period
        source.append(chosen)
        before.append(given[chosen])
        given[chosen] += 1
    return _Pattern(earned, np.array(source, dtype=np.int64), np.array(before, dtype=np.int64))
