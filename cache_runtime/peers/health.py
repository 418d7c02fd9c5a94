"""Which workers to leave alone for now, and when to ask a second one: plain state, with the clock passed in."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_HEDGE_SECONDS = 0.02  # the least wait before a hedge
_HEDGES_PER_REQUEST = 0.05  # a cluster that is slow as a whole must not get twice the requests
_HEDGE_BURST = 4.0
_KEPT = 256
_QUANTILE = 0.99
_IN_VAIN = 64
_SAMPLE = 16


@dataclass(slots=True)
class _Trouble:
    failures: int
    since: float
    until: float


class Health:
    """Back-off of the workers that failed; seconds are of any steady clock.

    Not locked: two threads that fail at the same moment count once or twice.
    """

    def __init__(self) -> None:
        self._troubles: dict[str, _Trouble] = {}

    def is_well(self, name: str) -> bool:
        """Say whether a worker has not failed since it last answered."""
        return name not in self._troubles

    def may_ask(self, name: str, *, now: float) -> bool:
        """Say whether to ask a worker now.

        After a back-off one caller gets a yes, and the others another no, until it has reported what happened.
        """
        trouble = self._troubles.get(name)
        if trouble is None:
            return True
        if now < trouble.until:
            return False
        trouble.until = now + _delay(trouble.failures)
        return True

    def is_left_alone(self, name: str, *, now: float) -> bool:
        """Say the same without being counted as the one who asks."""
        trouble = self._troubles.get(name)
        return trouble is not None and now < trouble.until

    def failed(
        self, name: str, *, began: float, now: float, jitter: float, retry_seconds: float | None = None
    ) -> float:
        """Leave a worker alone, twice as long as after its last failure, 30 s at most.

        Requests that fail together are one failure: what began before the last one was known tells nothing new.

        Args:
            name: The worker.
            began: When the request began.
            now: The time.
            jitter: In [0, 1): spreads callers that failed together over the second half of the wait.
            retry_seconds: When it said that it wants to be asked again; believed up to 30 s.

        Returns:
            The seconds; 0 if it was no new failure.
        """
        before = self._troubles.get(name)
        if before is not None and began < before.since:
            return 0.0
        failures = min(16, 1 + (before.failures if before is not None else 0))
        seconds = _delay(failures) * (0.5 + jitter / 2)
        if retry_seconds is not None:
            # busy, not broken: it says when, and is not asked less and less
            failures, seconds = 1, min(_LONGEST_SECONDS, max(0.0, retry_seconds)) * (1 + jitter / 4)
        self._troubles[name] = _Trouble(failures, now, now + seconds)
        return seconds

    def answered(self, name: str) -> None:
        """Forget a worker's failures."""
        self._troubles.pop(name, None)


class Hedging:
    """When to ask a second worker because the first one takes unusually long for the first byte of its answer."""

    def __init__(self) -> None:
        self._times = [0.0] * _KEPT
        self._count = 0
        self._allowance = _HEDGE_BURST
        self._delay = _HEDGE_SECONDS

    def answered(self, seconds: float) -> None:
        """Record how long a first byte took."""
        self._times[self._count % _KEPT] = seconds
        self._count += 1
        self._allowance = min(_HEDGE_BURST, self._allowance + _HEDGES_PER_REQUEST)
        if self._count % 16 == 0:
            known = sorted(self._times[: min(self._count, _KEPT)])
            self._delay = max(_HEDGE_SECONDS, known[int(_QUANTILE * (len(known) - 1) + 0.5)])

    @property
    def delay_seconds(self) -> float:
        """How long to wait before a hedge: what 99 of the last 100 answers took, at least 20 ms."""
        return self._delay

    def take(self) -> bool:
        """Ask for leave to hedge now: given to one request in 20, and to a few at once."""
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


class Probing:
    """Whether an owner's question to the next candidates is worth its time, for each share.

    After members changed it finds what moved. In a cold load nobody has anything, and most of the questions are saved:
    after so many in a row that found nothing only one in `_SAMPLE` is asked, until one finds something.
    """

    def __init__(self) -> None:
        self._in_vain: dict[str, int] = {}
        self._turns = 0

    def wants(self, share: str) -> bool:
        """Say whether to ask now."""
        if self._in_vain.get(share, 0) < _IN_VAIN:
            return True
        self._turns += 1
        return self._turns % _SAMPLE == 0

    def told(self, share: str, *, hits: int, misses: int) -> None:
        """Record what the candidates had."""
        self._in_vain[share] = 0 if hits else self._in_vain.get(share, 0) + misses


def _delay(failures: int) -> float:
    return min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** (failures - 1))
