"""Many short ranges, each retried and in turn, for one thread that asks for all of them."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

from sources.errors import SourceUnavailableError
from sources.stores import Wanted

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

    from sources.errors import SourceError
    from sources.reading.budget import Budget
    from sources.reading.ranges import Fetch, Range
    from sources.reading.retry import RetryPolicy

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.05  # for a turn that another thread gave back
_FULL_SECONDS = 1.0  # as many are in progress as may be: one that ends is heard of


@dataclass(slots=True)
class _Read:
    """One range on its way.

    Attributes:
        wanted: What is to be read.
        retries: How often it was asked for again since it failed first.
        failed_at: When that was; 0: it did not.
        begun: When its turn began.
        is_checked: Its origin was found alive.
    """

    wanted: Wanted
    retries: int = 0
    failed_at: float = 0.0
    begun: float = 0.0
    is_checked: bool = False


class Taker(Protocol):
    """Who takes what becomes of many short reads, and says whether they are still wanted."""

    def found(self, number: int, data: Buffer) -> None:
        """Take the bytes of a range."""
        ...

    def failed(self, number: int, error: SourceError) -> None:
        """Take why a range cannot be read, for good."""
        ...

    def is_set(self) -> bool:
        """Say whether nobody wants the rest any more."""
        ...


class ShortReads:
    """What `Wants` asks for, with the budget and the patience that `SteadyStore.call` has for each request.

    Args:
        ranges: What to read, known by their places.
        budget: Of their origin.
        policy: When to try again.
        taker: Told what becomes of each.
    """

    def __init__(self, ranges: Iterable[Range | Fetch], budget: Budget, policy: RetryPolicy, taker: Taker) -> None:
        self._budget = budget
        self._policy = policy
        self._taker = taker
        self._fresh = deque(
            _Read(Wanted(number, one.key, one.start, one.length, one.version)) for number, one in enumerate(ranges)
        )
        self._later: list[tuple[float, int, _Read]] = []
        self._asked: dict[int, _Read] = {}
        self._left: list[int] = []
        self._pause = 0.0

    def close(self) -> None:
        """Give back the turns of what is in progress and not wanted any more."""
        for read in self._asked.values():
            self._budget.settle(read.begun, _DroppedError())
        self._asked.clear()

    def rest(self) -> list[int]:
        """Return the numbers of what has to be read in another way."""
        waiting = [number for _, number, _ in self._later]
        return [*self._left, *waiting, *(read.wanted.number for read in self._fresh)]

    # --- `Wants`

    @property
    def is_over(self) -> bool:
        """See `Wants`."""
        return self._taker.is_set()

    def next(self, *, may_wait: bool) -> Wanted | None:
        """See `Wants`."""
        now = time.monotonic()
        ready, self._pause = [], _FULL_SECONDS
        if self._later and self._later[0][0] > now:
            self._pause = self._later[0][0] - now
        elif self._later:
            ready = [self._later[0][2]]
        ready += [self._fresh[0]] if self._fresh else []  # retries may have to wait when others need not
        for read in ready:
            if self.is_over:
                return None
            wait = self._begin(read, may_wait=may_wait and read is ready[-1])
            if wait is None:
                return read.wanted
            self._pause = min(self._pause, wait)
        return None

    def pause_seconds(self) -> float | None:
        """See `Wants`."""
        return self._pause if self._fresh or self._later else None

    def bring(self, wanted: Wanted, data: Buffer) -> None:
        """See `Wants`."""
        self._budget.settle(self._asked.pop(wanted.number).begun, None)
        self._taker.found(wanted.number, data)

    def fail(self, wanted: Wanted, error: SourceError) -> None:
        """See `Wants`; what may pass is tried again."""
        read = self._asked.pop(wanted.number)
        self._budget.settle(read.begun, error)
        if not isinstance(error, SourceUnavailableError):
            self._taker.failed(wanted.number, error)
            return
        now = time.monotonic()
        read.failed_at = read.failed_at or now
        delay = self._policy.delay(
            error,
            retries=read.retries,
            waited=max(now - read.failed_at, self._budget.silent_seconds()),
            answered=self._budget.answered,
            random=random.random(),
        )
        if delay is None:
            self._taker.failed(wanted.number, error)
            return
        _log.info("retry key=%s retries=%d delay=%.2f error=%s", wanted.key, read.retries, delay, error)
        read.retries += 1
        heappush(self._later, (now + delay, wanted.number, read))

    def leave(self, wanted: Wanted) -> None:
        """See `Wants`."""
        self._budget.settle(self._asked.pop(wanted.number).begun, _DroppedError())
        self._left.append(wanted.number)

    def _begin(self, read: _Read, *, may_wait: bool) -> float | None:
        """Begin a read and return None, or return after what time to try again."""
        number, nbytes, is_retry = read.wanted.number, read.wanted.length, read.retries > 0
        try:
            if not (is_retry or read.is_checked):
                self._budget.check_alive(self._policy.patience_seconds)
                read.is_checked = True
            read.begun, wait = self._budget.begin(nbytes, retry=is_retry)
            if wait is not None:
                if not may_wait:
                    return wait or _LOOK_SECONDS
                read.begun = self._budget.wait(nbytes, retry=is_retry, given_up=self._taker)
        except SourceUnavailableError as error:
            self._take_off(read)
            self._taker.failed(number, error)
            return 0.0
        self._take_off(read)
        self._asked[number] = read
        return None

    def _take_off(self, read: _Read) -> None:
        if read.retries:
            heappop(self._later)
        else:
            self._fresh.popleft()


class ManyTaker:
    """Puts what was read where `read_many` returns it; the first failure is the end.

    Args:
        fetches: What is read; `found` is told their places.
        into: Gets the bytes of their members.
        given_up: Set by a failure.

    Attributes:
        error: The first failure, if it was not given up before.
    """

    def __init__(self, fetches: Sequence[Fetch], into: list[Buffer], given_up: threading.Event) -> None:
        self._fetches = fetches
        self._into = into
        self._given_up = given_up
        self.error: SourceError | None = None
        self.is_set = given_up.is_set

    def found(self, number: int, data: Buffer) -> None:
        """See `Taker`."""
        members = self._fetches[number].members
        if len(members) == 1:
            self._into[members[0].wanted] = data
            return
        view = memoryview(data)
        for wanted, offset, length in members:
            self._into[wanted] = view[offset : offset + length]

    def failed(self, number: int, error: SourceError) -> None:
        """See `Taker`."""
        if not self._given_up.is_set():
            self.error = error
            self._given_up.set()


class _DroppedError(Exception):
    """The outcome of a request that nobody waited for: it says nothing about the origin."""
