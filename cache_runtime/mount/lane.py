"""One thing at a time, without waiting: who finds the lane taken leaves its job to the one inside."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Job(NamedTuple):
    """What is to be done.

    Attributes:
        unique: The request it answers; 0 if none.
        run: Does it; raises nothing that may be lost.
    """

    unique: int
    run: Callable[[], None]


class Lane:
    """Serialises jobs of several threads; none of them waits for another one's job.

    Attributes:
        running: The request that is worked on, or was the last one.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._jobs: deque[Job] = deque()
        self.running = 0

    def enter(self, unique: int) -> bool:
        """Take the lane for a job of this thread if it is free; then `leave` follows."""
        if self._jobs or not self._lock.acquire(blocking=False):
            return False
        self.running = unique
        return True

    def leave(self) -> None:
        """Give the lane back, and do what others left here meanwhile."""
        self._lock.release()
        if self._jobs:
            self._drain()

    def submit(self, job: Job) -> None:
        """Do a job now, or leave it to the thread that is inside."""
        self._jobs.append(job)
        self._drain()

    def _drain(self) -> None:
        while self._jobs and self._lock.acquire(blocking=False):  # asked again after each release: nothing stays behind
            try:
                self._work_off()
            finally:
                self._lock.release()

    def _work_off(self) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:  # done, or the last one was withdrawn
                return
            self.running = job.unique
            job.run()

    def withdraw(self, unique: int) -> bool:
        """Return whether a request still waited, or is being worked on: it waits for no answer any more, then."""
        for job in tuple(self._jobs):
            if job.unique == unique:
                try:
                    self._jobs.remove(job)
                except ValueError:  # it began
                    break
                return True
        return self.running == unique and self._lock.locked()
