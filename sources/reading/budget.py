"""One budget per origin, shared by all threads of a process."""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sources.errors import SourceConfigError, SourceError, SourceUnavailableError
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
        self._make_conditions()
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
    def turn(self, nbytes: int, *, retry: bool, given_up: threading.Event | None = None) -> Iterator[None]:
        """Wait for a turn and hold it during one request; its `SourceUnavailableError` slows all down if it says so.

        Args:
            nbytes: Bytes that the request will bring or send.
            retry: It was tried before.
            given_up: Set when nobody wants the answer any more.

        Raises:
            SourceUnavailableError: If no turn came within ten minutes, or before it was given up.
        """
        begun = self._wait(nbytes, retry, given_up)
        outcome: BaseException | None = None
        try:
            yield
        except BaseException as error:
            outcome = error
            raise
        finally:
            self._settle(begun, outcome)

    def _wait(self, nbytes: int, retry: bool, given_up: threading.Event | None) -> float:
        deadline = time.monotonic() + _QUEUE_SECONDS
        with self._turn:
            while True:
                now = time.monotonic()
                wait = self.pace.begin(now, nbytes=nbytes, retry=retry)
                if wait is None:
                    return now
                if given_up is not None and given_up.is_set():
                    raise SourceUnavailableError(f"{self._origin}: given up before its turn", retryable=False)
                if now > deadline:
                    raise SourceUnavailableError(
                        f"{self._origin}: no turn within {_QUEUE_SECONDS:.0f} s of its limits; raise them",
                        retryable=False,
                    )
                if wait:
                    self._turn.notify()  # somebody who need not wait for a time may have the place that we cannot take
                    self._later.wait(min(wait, _POLL_SECONDS))
                else:
                    self._turn.wait(_POLL_SECONDS)

    def _settle(self, begun: float, outcome: BaseException | None) -> None:
        with self._turn:
            if isinstance(outcome, SourceUnavailableError) and outcome.throttled:
                self.pace.throttle(time.monotonic(), begun=begun, retry_after=outcome.retry_after)
                self.answered = True
            elif outcome is None or (isinstance(outcome, SourceError) and not _is_no_answer(outcome)):
                self.pace.succeed()
                self.answered = True
            else:
                self.pace.fail()
            self._turn.notify(2)  # one request ended, and the window may have grown by one

    def _make_conditions(self) -> None:
        lock = threading.Lock()
        self._turn = threading.Condition(lock)  # for a request to end
        self._later = threading.Condition(lock)  # for a time

    def reset_after_fork(self) -> None:
        """Forget the turns of threads that did not come along, and a lock that one of them may have held."""
        self._make_conditions()
        self.pace = Pace(self.pace.limits, time.monotonic())


def _is_no_answer(error: SourceError) -> bool:
    return isinstance(error, SourceUnavailableError | SourceConfigError)


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
