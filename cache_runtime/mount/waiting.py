"""Requests that are answered later: from a bounded number of threads, once, and in bounded time."""

from __future__ import annotations

import errno
import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.errors import CacheError
from sources import SourceChangedError, SourceError
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from cache_runtime.mount.counters import Counters
    from cache_runtime.mount.operations import Kernel

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5  # until then nobody minds
_REPEAT_SECONDS = 10.0
_MOST_REPEATS = 4096


class Job(NamedTuple):
    """What a request asks for.

    Attributes:
        unique: Number of the request.
        what: It in words, for the log.
        run: Does it, and returns the parts of the answer.
        undo: Takes back what `run` did, if nobody waits for the answer any more; None for a read.
    """

    unique: int
    what: str
    run: Callable[[], tuple[Buffer, ...]]
    undo: Callable[[], None] | None = None


class _Waiter(NamedTuple):
    what: str
    asked: float


class Waiting:
    """Answers requests later. For any number of threads.

    Args:
        kernel: Takes the answers.
        counters: Counted in.
        threads: How many requests are worked on at a time; others wait for their turn.
        seconds: After how long a request is given up, with EIO.
    """

    def __init__(self, kernel: Kernel, counters: Counters, *, threads: int, seconds: float) -> None:
        self._kernel = kernel
        self._counters = counters
        self._seconds = seconds
        self._crew = Crew(threads, name="forebay-mount")
        self._waiters: dict[int, _Waiter] = {}
        self._quiet = _Quiet()

    def __len__(self) -> int:
        return len(self._waiters)

    def submit(self, job: Job) -> None:
        """Answer a request soon."""
        self.expect(job.unique, job.what)
        self.run(lambda: self._answer(job))

    def run(self, work: Callable[[], None]) -> None:
        """Run work in one of the threads."""
        self._crew.submit(work)

    def expect(self, unique: int, what: str) -> None:
        """Promise a request an answer."""
        self._waiters.setdefault(unique, _Waiter(what, time.monotonic()))

    def is_expected(self, unique: int) -> bool:
        """Say whether a request has no answer yet."""
        return unique in self._waiters

    def answer(self, unique: int, parts: tuple[Buffer, ...]) -> bool:
        """Answer a request; False if nobody waits for it any more."""
        waiter = self._waiters.pop(unique, None)
        if waiter is None or not self._kernel.reply(unique, *parts):
            return False
        self._counters.waited(sum(memoryview(part).nbytes for part in parts), time.monotonic() - waiter.asked)
        return True

    def fail(self, unique: int, what: str, error: Exception) -> None:
        """Answer a request with an error, and log what was the matter."""
        if self._waiters.pop(unique, None) is not None:
            self._counters.reads_failed += 1
            self._kernel.fail(unique, self._number_of(error, what))

    def interrupt(self, unique: int) -> None:
        """Answer who is to end; its bytes are fetched on, for the next one who asks."""
        if self._waiters.pop(unique, None) is not None:
            self._counters.interrupted += 1
            self._kernel.fail(unique, errno.EINTR)

    def expire(self) -> None:
        """Answer those who waited too long, and those who are to end; to be called now and then.

        A program waits for the pages that the kernel reads ahead for it, and only SIGKILL ends that: of its other
        signals the kernel does not tell. Once the pages have failed it asks by itself, and is told of them.
        """
        now = time.monotonic()
        for unique, waiter in list(self._waiters.items()):
            if now - waiter.asked >= _LOOK_SECONDS and self._kernel.is_unwanted(unique):
                self.interrupt(unique)
            elif now - waiter.asked >= self._seconds and self._waiters.pop(unique, None) is not None:
                self._counters.timed_out += 1
                self._tell(waiter.what, f"no answer after {now - waiter.asked:.0f} s")
                self._kernel.fail(unique, errno.EIO)

    def close(self) -> None:
        """Let the threads go; whoever still waits is told so by the end of the connection."""
        self._waiters.clear()
        self._crew.close()

    def _answer(self, job: Job) -> None:
        if not self.is_expected(job.unique):  # gone before its turn
            return
        try:
            parts = job.run()
        except Exception as error:  # noqa: BLE001 # the request has to be answered, whatever happens
            self.fail(job.unique, job.what, error)
            return
        if not self.answer(job.unique, parts) and job.undo is not None:
            job.undo()

    def _number_of(self, error: Exception, what: str) -> int:
        """Return the errno for a failure, and log it."""
        if isinstance(error, SourceChangedError):
            self._tell(what, f"the source changed since the commit: {error}")
        elif isinstance(error, SourceError | CacheError | OSError):
            self._tell(what, str(error))
        else:
            _log.error("a bug: %s", what, exc_info=error)
        return errno.EIO

    def _tell(self, what: str, reason: str) -> None:
        times = self._quiet.admit(what.partition(" offset=")[0] + reason)
        if times:
            _log.error("mount cannot read %s times=%d reason=%s", what, times, reason)


class _Quiet:
    """Lets one of many equal lines through, with how many there were since the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, list[float]] = {}  # when it was let through last, how many were held back since

    def admit(self, line: str) -> int:
        now = time.monotonic()
        with self._lock:
            told = self._told.get(line)
            if told is not None and now - told[0] < _REPEAT_SECONDS:
                told[1] += 1
                return 0
            if len(self._told) >= _MOST_REPEATS:
                for old in list(self._old(now)):
                    del self._told[old]
                while len(self._told) >= _MOST_REPEATS:
                    del self._told[next(iter(self._told))]
            self._told[line] = [now, 0]
            return 1 + (int(told[1]) if told is not None else 0)

    def _old(self, now: float) -> Iterator[str]:
        return (line for line, (when, _) in self._told.items() if now - when >= _REPEAT_SECONDS)
