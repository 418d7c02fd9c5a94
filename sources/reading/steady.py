"""A store that answers in spite of a network: retries, resumed bodies, parallel parts, one budget."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sources.errors import SourceUnavailableError
from sources.listing import scan
from sources.reading.budget import Budget, shared_budget
from sources.reading.ranges import MAX_GAP_BYTES, PART_BYTES, plan_fetches, split_parts
from sources.reading.retry import RetryPolicy
from sources.reading.together import ManyTaker, ShortReads
from sources.stores import ReadInto, ReadTogether, SwapObject, stats_of

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from typing_extensions import Buffer

    from sources.listing import ScanProgress
    from sources.locations import ObjectStat, Version
    from sources.reading.pace import Limits
    from sources.reading.ranges import Fetch, Range
    from sources.reading.together import Taker
    from sources.stores import RepositoryStore, Store

    _Job = Callable[[threading.Event], None]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_RESUMED_BYTES = 1 << 20
"""Shorter bodies are asked for again whole: they come in one piece, without a copy."""
_THREADS = 32
_CONNECTIONS = min(16, 4 * (os.cpu_count() or 1))
"""As many parts of large reads are in flight at a time: more do not help, fewer leave a fast network idle. Two cores
that take in 16 at a time spend more on each."""


class SteadyStore:
    """Any store, made steady: what a native store does once, this does until it succeeds or patience ends.

    Every request takes a turn in its origin's budget. Thread-safe; a forked child makes its own threads.

    Args:
        native: The store, which tries each request once.
        limits: Of its origin; the budget is shared by all stores of the same id in this process.
        policy: When to try again.
    """

    def __init__(self, native: Store, limits: Limits, *, policy: RetryPolicy | None = None) -> None:
        self.id = native.id
        self.native = native
        self.limits = limits
        self.budget: Budget = shared_budget(native.id, limits)
        self._policy = policy or RetryPolicy()
        self._reads_into = native.read_into if isinstance(native, ReadInto) else None
        self._together_reader = native if isinstance(native, ReadTogether) else None
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._readers: builtins.list[int] = []

    def __reduce__(self) -> tuple[object, ...]:
        return steady, (self.native, self.limits)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.native!r})"

    def call(self, request: Callable[[], _T], *, nbytes: int = 0, given_up: threading.Event | None = None) -> _T:
        """Make a request that may be repeated, until it succeeds.

        Args:
            request: Tries once; a `SourceUnavailableError` of it is retried.
            nbytes: Bytes that it brings or sends, for the budget.
            given_up: Set when nobody wants the answer any more: there is no further try then.

        Raises:
            SourceError: The last one, when patience ends or asking again cannot help.
        """
        retries, failed_at = 0, 0.0
        self.budget.check_alive(self._policy.patience_seconds)
        while True:
            try:
                with self.budget.turn(nbytes, retry=retries > 0, given_up=given_up):
                    return request()
            except SourceUnavailableError as error:
                now = time.monotonic()
                if error.received:  # it goes on from there: patience is for a store that gives nothing new
                    retries, failed_at = 0, 0.0
                failed_at = failed_at or now
                delay = self._policy.delay(
                    error,
                    retries=retries,
                    waited=max(now - failed_at, self.budget.silent_seconds()),
                    answered=self.budget.answered,
                    random=random.random(),
                )
                if delay is None or (given_up is not None and given_up.is_set()):
                    raise
                _log.info("retry store=%s retries=%d delay=%.2f error=%s", self.id, retries, delay, error)
            retries += 1
            if given_up is None:
                time.sleep(delay)
            else:
                given_up.wait(delay)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ListObjects.list`; one request at a time, in the order of `scan`."""
        for batch in self.scan(prefix, concurrency=1):
            yield from stats_of(batch)

    def scan(
        self,
        prefix: str,
        *,
        journal: Path | None = None,
        concurrency: int = 16,
        on_progress: Callable[[ScanProgress], None] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """List in parallel and in batches. See `sources.listing.scan`."""
        return scan(
            self.native, prefix, journal=journal, concurrency=concurrency, guard=self.call, on_progress=on_progress
        )

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        return self.call(lambda: self.native.stat(key))

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """Read a range, a long one in parallel parts, a broken one from where it broke. See `ReadRange.read`."""
        if length <= _RESUMED_BYTES:
            return self.call(lambda: self.native.read(key, start=start, length=length, version=version), nbytes=length)
        buffer = _allocate(length)
        self.read_into(key, start=start, buffer=buffer, version=version)
        return buffer

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """Fill the caller's buffer; if that fails, none of it is to be relied on. See `ReadInto.read_into`."""
        buffer = buffer.cast("B")
        if version is None:  # parts might be of several versions
            self._fill(key, start, buffer, None)
            return
        with self._splitting(len(buffer)) as part_bytes:
            self._together(self._parts(key, start, buffer, version, part_bytes))

    def read_many(self, ranges: Sequence[Range], *, max_gap_bytes: int = MAX_GAP_BYTES) -> builtins.list[Buffer]:
        """Read many ranges in parallel, neighbours of one object as one.

        Args:
            ranges: In any order; the results are in theirs.
            max_gap_bytes: How many unwanted bytes between two ranges are read rather than skipped.

        Raises:
            SourceError: Of the first that failed; none is in progress any more then.
        """
        found: builtins.list[Buffer] = [b""] * len(ranges)
        jobs: builtins.list[_Job] = []
        short: builtins.list[Fetch] = []
        left: builtins.list[Fetch] = []
        with self._splitting(sum(one.length for one in ranges)) as part_bytes:
            for fetch in plan_fetches(ranges, max_gap_bytes=max_gap_bytes):
                if self._together_reader is not None and 0 < fetch.length <= _RESUMED_BYTES:
                    short.append(fetch)
                else:
                    jobs += self._jobs(fetch, found, part_bytes)
            if short:
                jobs.insert(0, partial(self._read_short, short, found, left))
            self._together(jobs)
            if left:
                self._together([job for fetch in left for job in self._jobs(fetch, found, part_bytes)])
        return found

    @property
    def can_read_each(self) -> bool:
        """Whether `read_each` reads anything here."""
        return self._together_reader is not None and self._together_reader.can_read_together

    def read_each(
        self, ranges: Sequence[Range | Fetch], taker: Taker, *, at_once: int = _THREADS
    ) -> builtins.list[int]:
        """Read short ranges side by side in this thread, each to its own end.

        Args:
            ranges: Not empty, of at most a MiB.
            taker: Told what becomes of each, by its place among them.
            at_once: Requests at a time.

        Returns:
            The places of those that this store cannot read so, all of them maybe: read them with `read`.
        """
        if self._together_reader is None:
            return [*range(len(ranges))]
        reads = ShortReads(ranges, self.budget, self._policy, taker)
        try:
            self._together_reader.read_together(reads, at_once=at_once)
        finally:
            reads.close()
        return reads.rest()

    def put(self, key: str, data: Buffer) -> None:
        """See `WriteObject.put`."""
        self.call(lambda: self.native.put(key, data), nbytes=memoryview(data).nbytes)

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        self.call(lambda: self.native.delete(key))

    def _jobs(self, fetch: Fetch, found: builtins.list[Buffer], part_bytes: int) -> builtins.list[_Job]:
        """Return what is to be done for a fetch; its results are put into `found`."""
        if fetch.length <= _RESUMED_BYTES and len(fetch.members) == 1:
            (member,) = fetch.members
            return [partial(self._read_whole, fetch, found, member.wanted)]
        buffer = _allocate(fetch.length)
        for member in fetch.members:
            found[member.wanted] = buffer[member.offset : member.offset + member.length]
        if fetch.version is None:
            return [partial(self._fill, fetch.key, fetch.start, buffer, None)]
        return self._parts(fetch.key, fetch.start, buffer, fetch.version, part_bytes)

    @contextmanager
    def _splitting(self, wanted: int) -> Iterator[int]:
        """Give the length of parts that shares the connections among the long reads in progress: each costs time."""
        if wanted <= PART_BYTES:
            yield PART_BYTES
            return
        reader = os.getpid()  # those that a fork copied are never done here
        self._readers.append(reader)
        try:
            yield max(PART_BYTES, -(-wanted * self._readers.count(reader) // _CONNECTIONS))
        finally:
            self._readers.remove(reader)

    def _parts(
        self, key: str, start: int, buffer: memoryview, version: Version, part_bytes: int
    ) -> builtins.list[_Job]:
        return [
            partial(self._fill, key, start + at, buffer[at : at + size], version)
            for at, size in split_parts(len(buffer), part_bytes)
        ]

    def _read_whole(
        self, fetch: Fetch, found: builtins.list[Buffer], index: int, given_up: threading.Event | None = None
    ) -> None:
        read = partial(self.native.read, fetch.key, start=fetch.start, length=fetch.length, version=fetch.version)
        found[index] = self.call(read, nbytes=fetch.length, given_up=given_up)

    def _read_short(
        self,
        fetches: Sequence[Fetch],
        found: builtins.list[Buffer],
        left: builtins.list[Fetch],
        given_up: threading.Event,
    ) -> None:
        """Read short fetches in this thread; those that cannot be read so are put into `left`."""
        taker = ManyTaker(fetches, found, given_up)
        left += [fetches[number] for number in self.read_each(fetches, taker)]
        if taker.error is not None:
            raise taker.error

    def _fill(
        self,
        key: str,
        start: int,
        buffer: memoryview,
        version: Version | None,
        given_up: threading.Event | None = None,
    ) -> None:
        """Fill a buffer with one request, and with another from where it broke off, if it does."""
        done = 0

        def go_on() -> None:
            nonlocal done
            at = max(0, min(done, len(buffer) - 1))  # one that broke off behind its last byte was not checked yet
            try:
                self._read_into(key, start + at, buffer[at:], version)
            except SourceUnavailableError as error:
                before = done
                done = 0 if version is None else max(done, at + error.received)  # the rest might be of another one
                error.received = done - before
                raise

        try:
            self.call(go_on, nbytes=len(buffer), given_up=given_up)
        except SourceUnavailableError as error:
            error.received = 0  # it counts from where the last try began, not in the caller's buffer
            raise

    def _read_into(self, key: str, start: int, buffer: memoryview, version: Version | None) -> None:
        if self._reads_into is not None:
            self._reads_into(key, start=start, buffer=buffer, version=version)
        else:
            try:
                data = self.native.read(key, start=start, length=len(buffer), version=version)
            except SourceUnavailableError as error:
                error.received = 0  # whatever arrived, it is not in the buffer
                raise
            buffer[:] = memoryview(data).cast("B")

    def _together(self, jobs: Sequence[_Job]) -> None:
        """Run jobs in this thread and the pool's; when one fails, no other begins, and those begun are waited for."""
        left = deque(jobs)
        given_up = threading.Event()
        failures: builtins.list[Exception] = []  # the first is the reason of those that were given up for it
        futures: builtins.list[Future[None]] = []

        def run() -> None:
            try:
                while (job := _next(left)) is not None:
                    job(given_up)
            except Exception as error:  # noqa: BLE001 # raised below
                failures.append(error)
                left.clear()
                given_up.set()

        try:
            futures.extend(self._threads().submit(run) for _ in range(min(len(jobs), _THREADS) - 1))
            run()
        except BaseException:  # Ctrl-C, too
            left.clear()
            given_up.set()
            raise
        finally:
            for future in futures:
                future.cancel()
            wait(futures)  # for one request each, which its time-outs bound
        for future in futures:
            if not future.cancelled():
                future.result()
        if failures:
            raise failures[0]

    def _threads(self) -> ThreadPoolExecutor:
        pid = os.getpid()
        if self._pool is None or self._pool[0] != pid:
            self._pool = pid, ThreadPoolExecutor(_THREADS, thread_name_prefix="forebay-read")
        return self._pool[1]


class SteadySwapStore(SteadyStore):
    """The same for a store with compare-and-swap: it may hold a repository."""

    native: RepositoryStore

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """See `SwapObject.fetch`."""
        return self.call(lambda: self.native.fetch(key))

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """See `SwapObject.swap`; repeated only where the store said that it did nothing."""

        def once() -> Version:
            try:
                return self.native.swap(key, data, expect=expect)
            except SourceUnavailableError as error:
                error.retryable = error.throttled  # of any other failure nobody knows whether it took effect
                raise

        return self.call(once, nbytes=len(data))


def _next(jobs: deque[_Job]) -> _Job | None:
    try:
        return jobs.popleft()
    except IndexError:  # another thread took the last one
        return None


def _allocate(length: int) -> memoryview:
    return np.empty(length, np.uint8).data  # a bytearray would be zeroed first


def steady(native: Store, limits: Limits) -> SteadyStore:
    """Wrap a native store; the result is a `SwapObject` if the store is one."""
    return (SteadySwapStore if isinstance(native, SwapObject) else SteadyStore)(native, limits)
