"""One budget per origin, shared by all threads of a process."""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sources.errors import SourceUnavailableError
from sources.reading.pace import Limits, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources.locations import StoreId

_QUEUE_SECONDS = 600.0
_POLL_SECONDS = 1.0


class Budget:
    """Hands out turns to ask an origin, as its `Pace` allows. Thread-safe; a forked child starts with a fresh one.

    Args:
        origin: Whose it is, for messages.
        limits: Fixed limits of this process.
    """

    def __init__(self, origin: StoreId, limits: Limits) -> None:
        self._origin = origin
        self._turn = threading.Condition(threading.Lock())
        self.answered = False
        self.pace = Pace(limits, time.monotonic())
        _budgets.add(self)

    def tighten(self, limits: Limits) -> None:
        """Apply limits that another user of the same origin asks for, where they are tighter."""
        with self._turn:
            tighter = self.pace.limits.tighter(limits)
            if tighter != self.pace.limits:
                in_flight = self.pace.in_flight
                self.pace = Pace(tighter, time.monotonic())
                self.pace.in_flight = in_flight

    @contextmanager
    def turn(self, nbytes: int, *, retry: bool) -> Iterator[None]:
        """Wait for a turn and hold it during one request; its `SourceUnavailableError` slows all down if it says so.

        Args:
            nbytes: Bytes that the request will bring or send.
            retry: It was tried before.

        Raises:
            SourceUnavailableError: If no turn came within ten minutes.
        """
        begun = self._wait(nbytes, retry)
        outcome: SourceUnavailableError | None = None
        try:
            yield
        except SourceUnavailableError as error:
            outcome = error
            raise
        finally:
            self._settle(begun, outcome)

    def _wait(self, nbytes: int, retry: bool) -> float:
        deadline = time.monotonic() + _QUEUE_SECONDS
        with self._turn:
            while True:
                now = time.monotonic()
                wait = self.pace.begin(now, nbytes=nbytes, retry=retry)
                if wait is None:
                    return now
                if now > deadline:
                    raise SourceUnavailableError(
                        f"{self._origin}: no turn within {_QUEUE_SECONDS:.0f} s of its limits; raise them",
                        retryable=False,
                    )
                self._turn.wait(min(wait, _POLL_SECONDS) if wait else _POLL_SECONDS)

    def _settle(self, begun: float, outcome: SourceUnavailableError | None) -> None:
        with self._turn:
            if outcome is not None and outcome.throttled:
                self.pace.throttle(time.monotonic(), begun=begun, retry_after=outcome.retry_after)
            elif outcome is not None:
                self.pace.fail()
            else:
                self.pace.succeed()
            self.answered = self.answered or outcome is None or outcome.throttled
            self._turn.notify()

    def reset_after_fork(self) -> None:
        """Forget the turns of threads that did not come along, and a lock that one of them may have held."""
        self._turn = threading.Condition(threading.Lock())
        self.pace = Pace(self.pace.limits, time.monotonic())


_budgets: weakref.WeakSet[Budget] = weakref.WeakSet()
_shared: weakref.WeakValueDictionary[StoreId, Budget] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def shared_budget(origin: StoreId, limits: Limits) -> Budget:
    """Return the process's budget of an origin; of several users' limits the tightest count."""
    with _shared_lock:
        budget = _shared.get(origin)
        if budget is None:
            budget = _shared[origin] = Budget(origin, limits)
        else:
            budget.tighten(limits)
        return budget


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()  # the parent's may be held by a thread that is not here
    for budget in list(_budgets):
        budget.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)
