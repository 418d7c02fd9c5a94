"""Which objects are to be looked at: each at most once at a time, and after a failure later and later."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_FIRST_SECONDS = 0.5
_MOST_SECONDS = 120.0
_MOST_DOUBLINGS = 16


class Key(NamedTuple):
    """An object to be looked at; of kind "Namespace" a namespace, with an empty one of its own."""

    kind: str
    namespace: str
    name: str


class WorkQueue:
    """Keys that wait; any number of threads add and take.

    What is added while it waits is there once; what is added while it is worked on comes again after that.

    Args:
        clock: Seconds that only grow.
        jitter: Returns between 0 and 1; spreads what failed together.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._is_closed = False

    def add(self, key: Key, after: float = 0.0) -> None:
        """Let a key be taken in so many seconds, or earlier if it waits already."""
        with self._changed:
            self._add(key, self._clock() + after)

    def add_all(self, keys: Iterable[Key]) -> None:
        """Let keys be taken now."""
        with self._changed:
            now = self._clock()
            for key in keys:
                self._add(key, now)

    def take(self, seconds: float) -> Key | None:
        """Return a key that nobody works on, None if none was due for so long or the queue is closed."""
        with self._changed:
            deadline = self._clock() + seconds
            while not self._is_closed:
                now = self._clock()
                key, wait = self._next(now)
                if key is not None:
                    self._busy.add(key)
                    return key
                if now >= deadline:
                    return None
                self._changed.wait(min(wait, deadline - now))
            return None

    def done(self, key: Key, *, again: float | None = None) -> None:
        """Say that a key was worked on, and that it should be in so many seconds again."""
        with self._changed:
            self._busy.discard(key)
            self._failures.pop(key, None)
            if again is not None:
                self._add(key, self._clock() + again)
            self._changed.notify_all()

    def failed(self, key: Key) -> float:
        """Say that work on a key failed; it comes again later, and later after each failure. Returns the seconds."""
        with self._changed:
            self._busy.discard(key)
            count = self._failures.get(key, 0)
            self._failures[key] = min(count + 1, _MOST_DOUBLINGS)
            seconds: float = min(_FIRST_SECONDS * 2**count, _MOST_SECONDS) * (0.5 + self._jitter() / 2)
            self._add(key, self._clock() + seconds)
            self._changed.notify_all()
            return seconds

    def clear(self) -> None:
        """Forget all that waits."""
        with self._changed:
            self._due.clear()
            self._heap.clear()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Return how many keys are due."""
        with self._changed:
            now = self._clock()
            return sum(due <= now for due in self._due.values())

    def _add(self, key: Key, due: float) -> None:
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.notify()

    def _next(self, now: float) -> tuple[Key | None, float]:
        """Return a key that is due and idle, else how long none will be."""
        passed = []
        found, wait = None, float("inf")
        while self._heap:
            due, number, key = self._heap[0]
            if self._due.get(key) != due:  # it was moved to an earlier time, and taken
                heapq.heappop(self._heap)
                continue
            if due > now:
                wait = due - now
                break
            heapq.heappop(self._heap)
            if key not in self._busy:
                del self._due[key]
                found = key
                break
            passed.append((due, number, key))
        for each in passed:
            heapq.heappush(self._heap, each)
        return found, wait
