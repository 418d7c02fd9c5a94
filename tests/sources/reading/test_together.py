"""Many short reads of one thread: retries, turns and ends, without a network."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from sources import Range, SourceChangedError, SourceUnavailableError, StoreId
from sources.reading import Budget, Limits, RetryPolicy
from sources.reading.together import ShortReads

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from sources.errors import SourceError
    from sources.stores import Wanted

ENDS = ("found", "changed", "never", "leave")
POLICY = RetryPolicy(base_seconds=0.0, cap_seconds=0.0, patience_seconds=5)


class Outcomes:
    """What became of the reads; it is over after `enough` of them."""

    def __init__(self, enough: int) -> None:
        self.found_numbers: list[int] = []
        self.errors: dict[int, SourceError] = {}
        self._enough = enough

    def found(self, number: int, data: Buffer) -> None:
        assert bytes(data) == b"%d" % number
        self.found_numbers.append(number)

    def failed(self, number: int, error: SourceError) -> None:
        assert number not in self.errors
        self.errors[number] = error

    def is_set(self) -> bool:
        return len(self.found_numbers) + len(self.errors) >= self._enough


class Network:
    """Asks for what is wanted, as a store's loop does, and ends requests in any order as planned."""

    def __init__(self, plan: list[tuple[int, str]], draw: random.Random) -> None:
        self._failures = [failures for failures, _ in plan]
        self._ends = [end for _, end in plan]
        self._draw = draw
        self.asked: Counter[int] = Counter()
        self.most_at_once = 0

    def run(self, wants: ShortReads, at_once: int) -> None:
        flying: list[Wanted] = []
        while not wants.is_over:
            while len(flying) < at_once and (wanted := wants.next(may_wait=not flying)) is not None:
                flying.append(wanted)
                self.asked[wanted.number] += 1
            self.most_at_once = max(self.most_at_once, len(flying))
            if not flying:
                pause = wants.pause_seconds()
                if pause is None:
                    return
                assert pause >= 0
                continue
            self._end(wants, flying.pop(self._draw.randrange(len(flying))))

    def _end(self, wants: ShortReads, wanted: Wanted) -> None:
        number = wanted.number
        if self._failures[number]:
            self._failures[number] -= 1
            wants.fail(wanted, SourceUnavailableError("broke off"))
        elif self._ends[number] == "found":
            wants.bring(wanted, b"%d" % number)
        elif self._ends[number] == "changed":
            wants.fail(wanted, SourceChangedError("x", expected="1", found="2"))
        elif self._ends[number] == "never":
            wants.fail(wanted, SourceUnavailableError("it is shorter", retryable=False))
        else:
            wants.leave(wanted)


@given(
    plan=st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from(ENDS)), max_size=25),
    concurrency=st.integers(1, 5),
    at_once=st.integers(1, 8),
    enough=st.integers(0, 30) | st.just(1000),
    seed=st.integers(0, 9),
)
def test_each_read_ends_once_and_gives_its_turn_back(
    plan: list[tuple[int, str]], concurrency: int, at_once: int, enough: int, seed: int
) -> None:
    budget = Budget(StoreId("s3://model"), Limits(concurrency=concurrency))
    budget.pace._retries.rate = budget.pace._retries.tokens = budget.pace._retries.burst = 1e6
    outcomes, network = Outcomes(enough), Network(plan, random.Random(seed))
    reads = ShortReads([Range(f"{n}", None, 0, 10) for n in range(len(plan))], budget, POLICY, outcomes)
    network.run(reads, at_once)
    reads.close()
    assert budget.pace.in_flight == 0
    assert network.most_at_once <= min(concurrency, at_once)
    ended = Counter([*outcomes.found_numbers, *outcomes.errors])
    assert all(count == 1 for count in ended.values())
    if outcomes.is_set():
        return
    rest = reads.rest()
    assert sorted([*ended, *rest]) == list(range(len(plan)))
    for number, (failures, end) in enumerate(plan):
        assert (number in outcomes.found_numbers) is (end == "found")
        assert (number in rest) is (end == "leave")
        assert network.asked[number] == failures + 1
