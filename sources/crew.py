"""Threads that fetch, a bounded number of them, which end with the process whatever they wait for."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")
_IDLE_SECONDS = 30.0


class Crew:
    """Runs work in at most `size` threads, which come when there is work and go when there is none.

    Unlike those of an executor of the standard library they are daemons: after Ctrl-C the process does not wait for an
    origin that hangs. What they may leave behind is what a kill leaves, which whoever gives them work is made for.
    """

    def __init__(self, size: int, *, name: str) -> None:
        self.size = size
        self._name = name
        self._work: deque[tuple[Future[object], Callable[[], object]]] = deque()
        self._ready = threading.Condition()
        self._threads = self._idle = 0
        self._is_closed = False

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run work soon; cancelling its future works until it begins."""
        future: Future[Result] = Future()
        with self._ready:
            self._work.append((future, work))  # type: ignore[arg-type] # a future of one type among others
            if self._idle >= len(self._work):
                self._ready.notify()
            elif self._threads < self.size:
                self._start()
        return future

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Run work for every item, and return the results in the order of the items.

        Raises:
            Exception: The first item's that failed. What has not begun by then does not begin; likewise after Ctrl-C.
        """
        futures = [self.submit(lambda item=item: work(item)) for item in items]  # type: ignore[misc]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Let the threads go as soon as there is no work left, not only when they were idle for a while."""
        with self._ready:
            self._is_closed = True
            self._ready.notify_all()

    def _start(self) -> None:
        """Let another thread come; where the system gives none, those that are there do the work."""
        try:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        except RuntimeError:
            if not self._threads:
                self._work.pop()  # nobody would ever do it
                raise
        else:
            self._threads += 1

    def _serve(self) -> None:
        while True:
            with self._ready:
                self._idle += 1
                self._ready.wait_for(lambda: self._work or self._is_closed, _IDLE_SECONDS)
                self._idle -= 1
                if not self._work:
                    self._threads -= 1
                    return
                future, work = self._work.popleft()
            if future.set_running_or_notify_cancel():
                _run(future, work)
            del future, work  # results are large, and this thread may wait long for the next piece


def _run(future: Future[object], work: Callable[[], object]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 # raised again by whoever asks for the result
        future.set_exception(error)
    else:
        future.set_result(result)
