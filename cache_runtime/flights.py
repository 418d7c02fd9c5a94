"""Single flight inside of a process: who asks for what is being fetched waits for that fetch."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Generic, TypeVar

from cache_runtime.errors import CacheTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

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
            CacheTimeoutError: If the other thread needed more than `seconds`.
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    mine = self._flights[key] = Future()
                    break
            try:
                return flight.result(seconds)
            except CancelledError:
                continue
            except FutureTimeoutError as error:
                if flight.done():  # a time-out of the work itself
                    raise
                raise CacheTimeoutError("a fetch by another thread", seconds=seconds) from error
        try:
            result = work()
        except Exception as error:
            mine.set_exception(error)
            raise
        except BaseException:
            mine.cancel()
            raise
        else:
            mine.set_result(result)
            return result
        finally:
            with self._lock:
                del self._flights[key]
