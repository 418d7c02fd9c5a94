"""One budget per origin, shared by all threads of a process."""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from sources.errors import SourceConfigError, SourceError, SourceUnavailableError
from sources.reading.pace import Limits, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources.locations import StoreId

_QUEUE_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_POLL_SECONDS = 1.0
_STALE_SECONDS = 40.0  # longer than a request takes to fail: whoever keeps asking hears of it more often


class Signal(Protocol):
    """What tells that nobody wants an answer any more: a `threading.Event`, say."""

    def is_set(self) -> bool:
        """Say whether that is so."""
        ...


class Budget:
    """Hands out turns to ask an origin, as its `Pace` allows. Thread-safe; a forked child starts with a fresh one.

    Args:
        origin: Whose it is, for messages.
        limits: Fixed limits of this process.
    """

    def __init__(self, origin: StoreId, limits: Limits) -> None:
        self._origin = origin
        self._make_conditions()
        self._waiting = 0
        self.answered = False
        self._silent_since: float | None = None
        self._missed_at = self._asked_at = self._begun_at = 0.0
        self.pace = Pace(limits, time.monotonic())
        _budgets.add(self)

    def tighten(self, limits: Limits) -> None:
        """Apply limits that another user of the same origin asks for, where they are tighter."""
        with self._turn:
            tighter = self.pace.limits.tighter(limits)
            if tighter != self.pace.limits:
                before, self.pace = self.pace, Pace(tighter, time.monotonic())
                self.pace.in_flight, self.pace.paused_until = before.in_flight, before.paused_until
                self.pace.window = min(before.window, float(tighter.concurrency))

    def silent_seconds(self) -> float:
        """Say for how long every request failed without an answer; 0 if the last one was answered, or is long ago."""
        since, now = self._silent_since, time.monotonic()
        return 0.0 if since is None or now - self._missed_at > _STALE_SECONDS else now - since

    def check_alive(self, patience_seconds: float) -> None:
        """Refuse at once while the origin is silent for longer than that, but for one caller a second who may look.

        So a load of a million objects from a store that went down ends soon, rather than each object's patience later.

        Raises:
            SourceUnavailableError: If it is, and somebody else looked just now.
        """
        silent = self.silent_seconds()
        if silent <= patience_seconds:
            return
        with self._turn:
            now = time.monotonic()
            if now - self._asked_at < _LOOK_SECONDS:
                raise SourceUnavailableError(
                    f"{self._origin} has not answered for {silent:.0f} s; is it down?", retryable=False
                )
            self._asked_at = now

    @contextmanager
    def turn(self, nbytes: int, *, retry: bool, given_up: Signal | None = None) -> Iterator[None]:
        """Wait for a turn and hold it during one request; its `SourceUnavailableError` slows all down if it says so.

        Args:
            nbytes: Bytes that the request will bring or send.
            retry: It was tried before.
            given_up: Set when nobody wants the answer any more.

        Raises:
            SourceUnavailableError: If nobody got a turn for ten minutes, or it was given up.
        """
        begun = self.wait(nbytes, retry=retry, given_up=given_up)
        outcome: BaseException | None = None
        try:
            yield
        except BaseException as error:
            outcome = error
            raise
        finally:
            self.settle(begun, outcome)

    def begin(self, nbytes: int, *, retry: bool) -> tuple[float, float | None]:
        """Take a turn without waiting for one, nor before those who wait for a request to end.

        For whoever holds other turns: the next that ends is not for them.

        Returns:
            When it began (for `settle`) and None; or, without a turn, how long to wait (0: for a request to end).
        """
        now = time.monotonic()
        with self._turn:
            wait = 0.0 if self._waiting else self.pace.begin(now, nbytes=nbytes, retry=retry)
            if wait is None:
                self._begun_at = now
        return now, wait

    def wait(self, nbytes: int, *, retry: bool, given_up: Signal | None = None) -> float:
        """Wait for a turn as `turn` does, and return when it began, for `settle`."""
        asked = time.monotonic()
        with self._turn:
            while True:
                now = time.monotonic()
                wait = self.pace.begin(now, nbytes=nbytes, retry=retry)
                if wait is None:
                    self._begun_at = now
                    return now
                if given_up is not None and given_up.is_set():
                    raise SourceUnavailableError(f"{self._origin}: given up before its turn", retryable=False)
                if now - max(asked, self._begun_at) > _QUEUE_SECONDS:  # a low limit may let others go on for hours
                    raise SourceUnavailableError(
                        f"{self._origin}: nobody got a turn for {_QUEUE_SECONDS:.0f} s; raise its limits",
                        retryable=False,
                    )
                if wait:
                    self._turn.notify()  # somebody who need not wait for a time may have the place that we cannot take
                    self._later.wait(min(wait, _POLL_SECONDS))
                else:
                    self._waiting += 1
                    try:
                        self._turn.wait(_POLL_SECONDS)
                    finally:
                        self._waiting -= 1

    def settle(self, begun: float, outcome: BaseException | None) -> None:
        """End a turn.

        Args:
            begun: When it began.
            outcome: What the request ended in; None: it brought what it should.
        """
        with self._turn:
            if isinstance(outcome, SourceUnavailableError) and outcome.throttled:
                self.pace.throttle(time.monotonic(), begun=begun, retry_after=outcome.retry_after)
                self._hear()
            elif outcome is None or (isinstance(outcome, SourceError) and not _is_no_answer(outcome)):
                self.pace.succeed()
                self._hear()
            else:
                self.pace.fail()
                if isinstance(outcome, SourceUnavailableError):
                    self._miss(outcome)
            self._turn.notify(2)  # one request ended, and the window may have grown by one

    def _hear(self) -> None:
        self.answered = True
        self._silent_since = None

    def _miss(self, error: SourceUnavailableError) -> None:
        if error.received or not error.retryable:  # it said something
            self._hear()
            return
        now = time.monotonic()
        if self._silent_since is None or now - self._missed_at > _STALE_SECONDS:
            self._silent_since = now
        self._missed_at = now

    def _make_conditions(self) -> None:
        lock = threading.Lock()
        self._turn = threading.Condition(lock)  # for a request to end
        self._later = threading.Condition(lock)  # for a time

    def reset_after_fork(self) -> None:
        """Forget the turns of threads that did not come along, and a lock that one of them may have held."""
        self._make_conditions()
        self._waiting = 0
        self._silent_since = None
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
