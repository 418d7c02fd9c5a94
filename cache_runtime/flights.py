"""Single flight inside of a process: who asks for what is being fetched waits for that fetch."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Generic, TypeVar

from cache_runtime.errors import CacheTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """Runs each piece of work once among the threads that ask for it at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Future[Result]] = {}

    def fly(self, key: Hashable, work: Callable[[], Result], *, seconds: float) -> Result:
        """Return the result of `work`, run by this thread or by the one that asked first.

        Its errors are those of all who wait. If its thread is interrupted, another one runs its own work.

        Raises:
            CacheTimeoutError: If other threads needed more than `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            with self.claim([key]) as claim:
                if claim.mine:
                    try:
                        result = work()
                    except Exception as error:
                        claim.fail(key, error)
                        raise
                    claim.land(key, result)
                    return result
            try:
                return wait_for(claim.others[key], seconds=deadline - time.monotonic())
            except CancelledError:
                if time.monotonic() > deadline:
                    raise CacheTimeoutError("a fetch by another thread", seconds=seconds) from None

    def claim(self, keys: Iterable[Hashable]) -> Claim[Result]:
        """Claim what nobody is working on; the end of the `with` block cancels what did not land in it."""
        claim = Claim(self)
        with self._lock:
            for key in keys:
                flight = self._flights.get(key)
                if flight is None:
                    claim.mine[key] = self._flights[key] = Future()
                elif key not in claim.mine:
                    claim.others[key] = flight
        return claim

    def end(self, keys: Iterable[Hashable]) -> None:
        """Let the next one who asks begin anew."""
        with self._lock:
            for key in keys:
                self._flights.pop(key, None)


class Claim(Generic[Result]):
    """Pieces of work that one thread does for all who ask meanwhile.

    Attributes:
        mine: Those of this thread.
        others: Those that another thread is doing; wait for them after the `with` block only.
    """

    def __init__(self, flights: Flights[Result]) -> None:
        self.mine: dict[Hashable, Future[Result]] = {}
        self.others: dict[Hashable, Future[Result]] = {}
        self._flights = flights

    def __enter__(self) -> Claim[Result]:
        return self

    def __exit__(self, *_: object) -> None:
        for flight in self.mine.values():
            flight.cancel()  # does nothing to one that has landed
        self._flights.end(self.mine)

    def land(self, key: Hashable, result: Result) -> None:
        """Give a result to all who wait for it."""
        self.mine[key].set_result(result)

    def fail(self, key: Hashable, error: Exception) -> None:
        """Give an error to all who wait."""
        self.mine[key].set_exception(error)


def wait_for(flight: Future[Result], *, seconds: float) -> Result:
    """Return what another thread brings.

    Raises:
        CacheTimeoutError: If it needs more than `seconds`.
        CancelledError: If it was interrupted, and brought nothing.
    """
    try:
        return flight.result(max(0.0, seconds))
    except FutureTimeoutError as error:
        if flight.done():  # it landed just now, or this is a time-out of the work itself
            return flight.result()
        raise CacheTimeoutError("a fetch by another thread", seconds=seconds) from error
