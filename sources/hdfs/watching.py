"""Calls that may never return, made where they can be given up."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_IDLE_SECONDS = 30


class HungError(Exception):
    """A call made no progress for too long, and was given up."""


class Call(Generic[T]):
    """One call on its way. The function says with `step` or `beat` that it makes progress.

    Plain locks, no Future: a small read is done in a millisecond, and a Future would be a tenth of it.
    """

    def __init__(self, function: Callable[[Call[T]], T]) -> None:
        self._function = function
        self._result: T | None = None
        self._error: BaseException | None = None
        self._running = threading.Lock()
        self._running.acquire()
        self._steps = 0
        self._abandoned = False
        self._lock = threading.Lock()

    def beat(self) -> None:
        """Say that there is progress. Raises as `step` does."""
        with self._lock:
            if self._abandoned:
                raise HungError
            self._steps += 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """Touch what belongs to the caller only in here, and never wait: nothing of it is touched once it has gone on.

        Raises:
            HungError: In the thread of the call, if the caller has gone on.
        """
        with self._lock:
            if self._abandoned:
                raise HungError
            self._steps += 1
            yield

    def run(self) -> None:
        """Run it in this thread; for `Watch`."""
        try:
            if not self._abandoned:
                self._result = self._function(self)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the result is waited for
            self._error = error
        finally:
            self._running.release()

    def wait(self, seconds: float) -> T:
        """Wait for the result as long as there are steps.

        Raises:
            HungError: After so many seconds (at most twice as many) without one.
        """
        steps = -1
        while not self._running.acquire(timeout=seconds):
            with self._lock:
                if self._steps == max(steps, 0):
                    self._abandoned = True
                    raise HungError
                steps = self._steps
        if self._error is not None:
            raise self._error
        return cast("T", self._result)


class Watch:
    """A bounded crew of daemon threads; one that hangs is lost until its call returns, and keeps no process alive.

    Args:
        threads: At most; while all of them hang, further calls wait for one, and are given up in turn.
        seconds: After which a call without progress is given up.
    """

    def __init__(self, *, threads: int, seconds: float) -> None:
        self._max_threads = threads
        self._seconds = seconds
        self._threads = 0
        self._free = 0  # threads that wait, less the calls that wait for them
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Call[Any]] = SimpleQueue()

    def call(self, function: Callable[[Call[T]], T]) -> T:
        """Call a function in another thread and return what it returns, or raise what it raises.

        Raises:
            HungError: If it hangs. The thread goes on waiting; what comes of it is dropped.
        """
        return self._start(Call(function)).wait(self._seconds)

    def beside(self, function: Callable[[Call[T]], T]) -> Callable[[], T]:
        """Start a function beside the call that this is called in, if that is alone; return what waits for its result.

        A call alone waits for the network most of the time; where there are many, the others have that time, and a
        thread more for each would only cost. Then the function is called when its result is waited for.
        """
        with self._lock:
            alone = self._threads - self._free <= 1 < self._max_threads
        call = Call(function)
        if not alone:
            return partial(function, call)
        return partial(self._start(call).wait, self._seconds)

    def _start(self, call: Call[T]) -> Call[T]:
        with self._lock:
            starts = self._free <= 0 and self._threads < self._max_threads
            self._threads += starts
            self._free -= not starts
        if starts:
            threading.Thread(target=self._work, args=(call,), name="forebay-hdfs", daemon=True).start()
        else:
            self._waiting.put(call)
        return call

    def _work(self, call: Call[Any]) -> None:
        while True:
            call.run()
            del call  # an idle thread keeps no buffer
            with self._lock:
                self._free += 1
            try:
                call = self._waiting.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._free > 0:  # nobody counts on this one
                        self._free -= 1
                        self._threads -= 1
                        return
                call = self._waiting.get()
