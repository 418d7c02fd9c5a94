"""Telling the cache what the loop reads next, as long as it lacks some of it."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from cache_runtime import Announced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from loaders.running.making import Task

    Prefetch = Callable[[list[int]], Future[int] | None]

_GROUP_BATCHES = 8
_QUIET_GROUPS = 2  # after so many of which nothing was missing, only ...
_PROBED = 16  # ... one in so many is announced: looking samples up takes time too


class Announcer:
    """Passes tasks on, and announces those that come `ahead` batches later.

    Args:
        prefetch: Fetches samples in the background and says later how many bytes the cache lacked of them.
        ahead: Batches.
        behind: Most batches that were taken and are not made yet: before that many more, one was not read for sure.
    """

    def __init__(self, prefetch: Prefetch, *, ahead: int, behind: int = 0) -> None:
        self._prefetch = prefetch
        self._ahead = ahead
        self._behind = behind
        self._asked: deque[Future[int]] = deque()
        self._held: deque[tuple[int, Future[int]]] = deque()  # and the number of the task by which it was read
        self._taken = self._seen = 0
        self._quiet = 0
        self._groups = 0

    def pass_on(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield the tasks; closing it takes back what is not fetched yet."""
        waiting: deque[Task] = deque()
        try:
            while True:
                while len(waiting) <= self._ahead:
                    group = list(islice(tasks, _GROUP_BATCHES))
                    if not group:
                        break
                    waiting += group
                    self._seen += len(group)
                    self._announce(group)
                if not waiting:
                    return
                self._taken += 1
                self._pass_read()
                yield waiting.popleft()
        except BaseException:  # it is closed in mid-epoch
            self._held.clear()
            self._taken = self._seen
            raise
        finally:
            for future in self._asked:
                future.cancel()
            self._asked.clear()

    def _pass_read(self) -> None:
        while self._held and self._held[0][0] < self._taken:
            _, future = self._held.popleft()
            if isinstance(future, Announced):
                future.passed()

    def _announce(self, group: list[Task]) -> None:
        while self._asked and self._asked[0].done():
            self._learn(self._asked.popleft())
        self._groups += 1
        if self._quiet >= _QUIET_GROUPS and self._groups % _PROBED:
            return
        future = self._prefetch([number for task in group for number in task.numbers])
        if future is None:  # it is not read through a cache
            self._quiet += 1
        else:
            self._asked.append(future)
            self._held.append((self._seen + self._behind, future))

    def _learn(self, future: Future[int]) -> None:
        if future.cancelled():
            return
        failed = future.exception() is not None  # whoever reads these samples is told what is wrong with them
        self._quiet = 0 if failed or future.result() else self._quiet + 1
