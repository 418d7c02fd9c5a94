"""Fetching what was announced, in the background: many requests at a time, in the order of the announcements."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from cache_runtime.store.layout import BLOCK_SHIFT, SMALL_BYTES, block_span
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cache_runtime.fetching import Fetcher, Need, Task
    from cache_runtime.store.shares import Share
    from sources import Location

    Plan = Callable[[Sequence[Location], Share], list[Need]]
    Block = tuple[bytes, int]

AHEAD_BYTES = 256 << 20
"""Most bytes that are being fetched ahead at a time: some seconds of a fast network."""


class Announced(Future[int]):
    """How many bytes of an announcement were missing, once they are here.

    For as long as this is referenced, the node's cache evicts what was announced last, in the order of its use.
    """

    _taking_back: weakref.finalize[..., Announced] | None = None
    _end: Callable[[bool], object]

    def held_by(self, end: Callable[[bool], object]) -> None:
        """Say what ends the announcement; see `NodeStore.expect`."""
        self._end = end
        self._taking_back = weakref.finalize(self, end, False)
        self._taking_back.atexit = False  # of a process that ends nobody asks

    def passed(self) -> None:
        """Say that all of it was read: for who reads in rounds it is what is needed last."""
        if self._taking_back is not None and self._taking_back.detach() is not None:
            self._end(True)


class _Announcement:
    """What one call announced.

    Attributes:
        future: Of the bytes that were missing.
        left: Tasks that have not ended; its own, and those of earlier ones that bring some of its blocks.
        size: Bytes that were missing.
        error: Of the first task that failed.
    """

    def __init__(self, locations: Sequence[Location], most_bytes: int, share: Share) -> None:
        self.locations = locations
        self.most_bytes = most_bytes
        self.share = share
        self.future = Announced()
        self.left = 0
        self.size = 0
        self.error: BaseException | None = None


class ReadAhead:
    """Fetches announcements: as many as `AHEAD_BYTES` has room for, and each block once. For any number of threads.

    A read that misses waits for what is on its way here before it fetches (`wait_for`): two fetches of the same blocks
    would only hold each other's threads up.

    Args:
        plan: Returns what of some locations is missing.
        fetcher: Fetches it.
        concurrency: Most requests at a time.
    """

    def __init__(self, plan: Plan, fetcher: Fetcher, *, concurrency: int) -> None:
        self._plan = plan
        self._fetcher = fetcher
        self._crew = Crew(concurrency, name="forebay-ahead")
        self._lock = threading.Lock()
        self._queue: deque[_Announcement] = deque()
        self._coming: dict[Block, Future[None]] = {}
        self._bytes = 0
        self._is_starting = False

    def announce(
        self, locations: Sequence[Location], most_bytes: int, share: Share, *, end: Callable[[bool], object] | None
    ) -> Announced:
        """Fetch soon; see `Client.will_need`. `end` is called once it is passed, or nobody refers to it."""
        announcement = _Announcement(locations, most_bytes, share)
        if end is not None:
            announcement.future.held_by(end)
        with self._lock:
            self._queue.append(announcement)
        self._start_some()
        return announcement.future

    def wait_for(self, locations: Iterable[Location], *, seconds: float) -> None:
        """Wait until what is on its way of some locations is here, or has failed."""
        if not self._coming:
            return
        wanted = [block for location in locations for block in _blocks_of(location)]
        with self._lock:
            futures = {self._coming[block] for block in wanted if block in self._coming}
        if futures:
            wait(futures, timeout=seconds)

    def _start_some(self) -> None:
        while True:
            with self._lock:
                if self._is_starting or not self._queue or self._bytes >= AHEAD_BYTES:
                    return
                announcement = self._queue.popleft()
                self._is_starting = True
            try:
                if announcement.future.set_running_or_notify_cancel():
                    self._start(announcement)
            finally:
                with self._lock:
                    self._is_starting = False

    def _start(self, announcement: _Announcement) -> None:
        try:
            tasks = list(self._tasks(announcement))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the announcement is told
            announcement.future.set_exception(error)
            return
        with self._lock:
            others = set()
            own = []
            for task in tasks:
                blocks = _blocks_of_task(task)
                there = {self._coming[block] for block in blocks if block in self._coming}
                if len(there) and all(block in self._coming for block in blocks):
                    others |= there
                    continue
                landed: Future[None] = Future()
                self._coming.update(dict.fromkeys((block for block in blocks if block not in self._coming), landed))
                self._bytes += _size_of(task)
                own.append((task, landed))
            announcement.left = len(own) + len(others) + 1
        for other in others:
            other.add_done_callback(lambda _: self._end_one(announcement, None))
        for task, landed in own:
            self._crew.submit(lambda task=task, landed=landed: self._fetch(announcement, task, landed))  # type: ignore[misc]
        self._end_one(announcement, None)

    def _tasks(self, announcement: _Announcement) -> Iterable[Task]:
        needs: list[Need] = []
        for need in self._plan(announcement.locations, announcement.share):
            size = _need_bytes(need)
            if needs and announcement.size + size > announcement.most_bytes:
                break
            needs.append(need)
            announcement.size += size
        return self._fetcher.tasks(needs, announcement.share, self._crew.size) if needs else ()

    def _fetch(self, announcement: _Announcement, task: Task, landed: Future[None]) -> None:
        error: BaseException | None = None
        try:
            self._fetcher.run(task, announcement.share)
        except BaseException as found:  # noqa: BLE001 - whoever waits for the announcement is told
            error = found
        with self._lock:
            self._bytes -= _size_of(task)
            for block in _blocks_of_task(task):
                if self._coming.get(block) is landed:
                    del self._coming[block]
        landed.set_result(None)
        self._end_one(announcement, error)
        self._start_some()

    def _end_one(self, announcement: _Announcement, error: BaseException | None) -> None:
        with self._lock:
            announcement.left -= 1
            announcement.error = announcement.error or error
            if announcement.left:
                return
        if announcement.error is not None:
            announcement.future.set_exception(announcement.error)
        else:
            announcement.future.set_result(announcement.size)


def _blocks_of(location: Location) -> Iterable[Block]:
    ref = location.object
    if ref.size <= SMALL_BYTES:
        return ((ref.id, 0),)
    last = (location.offset + max(location.length, 1) - 1) >> BLOCK_SHIFT
    return ((ref.id, block) for block in range(location.offset >> BLOCK_SHIFT, last + 1))


def _blocks_of_task(task: Task) -> list[Block]:
    return [(ref.id, block) for (ref, run), _ in task for block in range(run.first, run.last + 1)]


def _size_of(task: Task) -> int:
    return sum(_need_bytes(need) for need, _ in task)


def _need_bytes(need: Need) -> int:
    ref, run = need
    return ref.size if ref.size <= SMALL_BYTES else block_span(run, ref.size)[1]
