"""The threads that list, and the one that hands out what they found."""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sources.errors import SourceConfigError
from sources.listing.segments import Segment, State

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from sources.listing.journal import Journal
    from sources.listing.segments import Plan

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_WAIT_SECONDS = 1.0  # for a notification, which is never lost; then look again anyway
_LOOK_SECONDS = 0.05  # after which the reader takes also what is too little to wake it for
_JOIN_SECONDS = 5.0  # for requests under way, which cannot be interrupted
_WORTH_ROWS = 1000  # to hand out at a time
_BUSY = 0.5  # of a processor: from there on threads mostly take the interpreter's lock from each other
_LOAD_SECONDS = 1.0  # that the load is measured over


class Guard(Protocol):
    """Runs one request, and again if it failed in a way that may pass."""

    def __call__(self, request: Callable[[], _T], /) -> _T:
        """Return what the request returns, or raise its last error."""
        ...


class Lister(Protocol):
    """What workers do with a segment. `fetch` and `examine` run outside the lock, the others inside."""

    def fetch(self, segment: Segment) -> Any:
        """Make one request."""
        ...

    def examine(self, segment: Segment, page: Any) -> Any:
        """Check and prepare its answer."""
        ...

    def apply(self, segment: Segment, page: Any) -> bool:
        """Change the plan by it; say whether to go on with the segment."""
        ...

    def find(self) -> Segment | None:
        """Return a segment to work on."""
        ...

    def release(self, segment: Segment) -> None:
        """Close what is open of a segment."""
        ...


class Crew:
    """Workers on one plan. They are daemons, so a request that hangs does not keep a process alive.

    Args:
        plan: What to list.
        lister: How to list it.
        guard: Runs each request.
        journal: Where to record it.
        concurrency: The most threads; they start only as there is work for them.
    """

    def __init__(self, plan: Plan, lister: Lister, *, guard: Guard, journal: Journal | None, concurrency: int) -> None:
        self._plan = plan
        self._lister = lister
        self._guard = guard
        self._journal = journal
        self._concurrency = concurrency
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)  # for the reader
        self._wanted = threading.Condition(lock)  # for idle workers
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._load = _Load()
        self._stopping = False
        self._pid = os.getpid()
        self._error: BaseException | None = None

    def take(self, least_rows: int) -> tuple[list[pa.RecordBatch], list[Segment]]:
        """Wait for the next batches: at least `least_rows` if they are there without more waiting.

        Returns:
            The batches (none at the end), and the segments that ended before or between them.

        Raises:
            SourceConfigError: In a process forked since the listing began: the threads are not in it.
            BaseException: What a worker raised.
        """
        if os.getpid() != self._pid:
            raise SourceConfigError("a listing cannot go on in a forked process: begin it there")
        batches: list[pa.RecordBatch] = []
        ended: list[Segment] = []
        rows = 0
        with self._arrived:
            self._hire()
            while rows < least_rows:
                if self._error is not None:
                    raise self._error
                batch = self._take_one(ended)
                if batch is not None:
                    batches.append(batch)
                    rows += batch.num_rows
                elif batches or not self._plan.segments:
                    break
                else:
                    self._hire()
                    self._arrived.wait(_LOOK_SECONDS)
            self._hire()
        return batches, ended

    def stop(self) -> None:
        """End all workers, waiting for the requests under way, but not for long."""
        if os.getpid() != self._pid:  # they are the parent's, and the lock may be theirs for ever
            return
        with self._arrived:
            self._stopping = True
            self._wanted.notify_all()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        left = sum(thread.is_alive() for thread in self._threads)
        if left:
            _log.warning(
                "%d listing requests did not end within %g s; their threads end with them", left, _JOIN_SECONDS
            )
        for segment in self._plan.segments:
            if segment.state is not State.RUNNING or not left:
                self._lister.release(segment)

    def _take_one(self, ended: list[Segment]) -> pa.RecordBatch | None:
        segments = self._plan.segments
        while segments:
            head = segments[0]
            if head.ready:
                return self._plan.take(head)
            batch = self._plan.read(head, self._journal)
            if batch is not None or head.state is not State.DONE:
                return batch
            ended.append(segments.popleft())
        return None

    def _hire(self) -> None:
        """Wake a worker or start more, as long as there is work."""
        if self._stopping:
            return
        if self._idle:
            self._wanted.notify(self._idle)
            return
        while (
            len(self._threads) < self._concurrency
            and (not self._threads or self._load.has_room())
            and (segment := self._lister.find()) is not None
        ):
            thread = threading.Thread(target=self._work, args=(segment,), name="forebay-listing", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self, first: Segment) -> None:
        segment: Segment | None = first
        used = 0.0
        try:
            while segment is not None:
                page = self._lister.examine(segment, self._guard(partial(self._fetch, segment)))
                with self._arrived:
                    before, used = used, time.thread_time()
                    self._load.add(used - before)
                    if self._stopping:
                        return
                    segment = self._apply(segment, page)
        except _StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - whatever it is, the reader raises it
            with self._arrived:
                self._stopping = True
                self._error = error
                self._arrived.notify()
                self._wanted.notify_all()

    def _fetch(self, segment: Segment) -> Any:
        if self._stopping:
            raise _StoppedError  # between two tries
        return self._lister.fetch(segment)

    def _apply(self, segment: Segment, page: Any) -> Segment | None:
        """Take a page in and return what to do next, waiting for it if need be; None at the end."""
        go_on = self._lister.apply(segment, page)
        following = segment if go_on else self._lister.find()
        if self._journal is not None:
            self._journal.settle()
        if self._plan.rows >= _WORTH_ROWS:  # woken for each small directory, the reader would stop the workers for it
            self._arrived.notify()
        if following is not None:
            self._hire()
        while following is None and not self._stopping and self._is_unfinished():
            self._idle += 1
            try:
                self._wanted.wait(_WAIT_SECONDS)
            finally:
                self._idle -= 1
            if not self._stopping:
                following = self._lister.find()
        if following is None:
            self._arrived.notify()
            self._wanted.notify_all()  # the last one ends them all
        return following

    def _is_unfinished(self) -> bool:
        return any(segment.state is not State.DONE for segment in self._plan.segments)


class _Load:
    """How busy the workers keep a processor: a local disk's names come faster than Python takes them."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._used = 0.0
        self._new = False

    def add(self, cpu_seconds: float) -> None:
        """Note what a request and its answer took."""
        self._used += cpu_seconds
        self._new = True

    def has_room(self) -> bool:
        """Say whether one more thread may help; once for each answer, so that its effect is seen first."""
        now = time.monotonic()
        share = self._used / max(now - self._since, 1e-9)
        if now - self._since > _LOAD_SECONDS:
            self._since, self._used = now - _LOAD_SECONDS / 2, share * _LOAD_SECONDS / 2
        is_new, self._new = self._new, False
        return is_new and share < _BUSY


class _StoppedError(Exception):
    """The listing was given up."""
