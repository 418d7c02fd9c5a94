"""Reading: this node's store, then the origin."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING
from weakref import WeakSet

from blake3 import blake3

from cache_runtime.errors import CacheRangeError, CacheTimeoutError, ChecksumError
from cache_runtime.flights import Flights
from cache_runtime.layout import BLOCK_SHIFT, SMALL_BYTES, BlockRun, block_span, join_blocks
from cache_runtime.stats import ReadStats
from sources import SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from cache_runtime.store import BlockStore
    from sources import Location, ObjectRef, Origins

_log = logging.getLogger(__name__)
_NOTHING = memoryview(b"")


class Client:
    """Reads ranges of immutable objects, from this node's store if they are there, and fills it if they are not.

    For any number of threads; usable in children of a fork. Pickling carries the origins and the store's directory.
    An error of an origin passes through unchanged, and nothing is cached then. An error of the cache never stops a
    read: the bytes come from the origin.

    Args:
        origins: The stores that may be read.
        store: The node-local store; without one every read goes to an origin.
        concurrency: Most origin requests of one `read_many` at a time.
        fill_wait_seconds: How long to wait for another thread or process that fetches the same bytes, before fetching
            them too.

    Attributes:
        stats: Counters of this process, shared by the clients of one `BlockStore`.
        store: The store.
    """

    def __init__(
        self,
        origins: Origins,
        store: BlockStore | None,
        *,
        concurrency: int = 16,
        fill_wait_seconds: float = 120.0,
    ) -> None:
        self.store = store
        self.stats = store.stats if store is not None else ReadStats()
        self._origins = origins
        self._concurrency = concurrency
        self._wait_seconds = fill_wait_seconds
        self._flights: Flights[Buffer | None] = Flights()
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        _clients.add(self)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self._origins, self.store, self._concurrency, self._wait_seconds)

    def read(self, location: Location) -> memoryview:
        """Return the bytes of a location: contiguous, read-only, valid for as long as they are referenced.

        Raises:
            CacheRangeError: If the range is outside of its object.
            ChecksumError: If the origin's bytes do not have the digest that the version names.
            SourceError: If the origin fails; see `sources.ReadRange.read`.
        """
        ref = location.object
        offset = location.offset
        length = location.length
        if offset < 0 or length <= 0 or offset + length > ref.size:
            return _empty(location)
        if self.store is not None:
            view = self.store.find(ref, offset, length)
            if view is not None:
                stats = self.stats
                stats.reads_local += 1
                stats.bytes_local += length
                return view
        return self._read_missing([location])[0]

    def read_many(self, locations: Sequence[Location]) -> list[memoryview]:
        """Do `read` for many locations, in their order.

        What is missing is fetched at once: neighbouring blocks joined, several objects side by side.

        Raises:
            As `read`, for the first location that fails; what else was fetched stays cached.
        """
        views: list[memoryview | None] = [None] * len(locations)
        wanted = 0
        for location in locations:
            offset = location.offset
            length = location.length
            if offset < 0 or length <= 0 or offset + length > location.object.size:
                return self._read_odd(locations)
            wanted += length
        if self.store is not None:
            views = self.store.find_many(locations)
        missing = [number for number, view in enumerate(views) if view is None] if None in views else []
        if missing:
            wanted -= sum(locations[number].length for number in missing)
            for number, view in zip(missing, self._read_missing([locations[n] for n in missing]), strict=True):
                views[number] = view
        self.stats.reads_local += len(views) - len(missing)
        self.stats.bytes_local += wanted
        return views  # type: ignore[return-value] # every None was replaced

    def fetch(self, ref: ObjectRef, run: BlockRun) -> Buffer | None:
        """Make blocks of an object present in the store; a small object has the one block 0.

        Of all threads and processes that ask for the same blocks one asks the origin.

        Returns:
            The bytes of the blocks if this call or one that it waited for fetched them, None if they were there.

        Raises:
            ChecksumError, SourceError: As `read`.
        """
        try:
            return self._flights.fly((ref.id, run), lambda: self._fetch_alone(ref, run), seconds=self._wait_seconds)
        except CacheTimeoutError as error:
            _log.warning("fetching beside another thread object=%s reason=%s", ref.uri, error)
            return self._fetch_missing(ref, run)

    def close(self) -> None:
        """Stop the threads and let go of files; bytes that were read stay valid."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        if self.store is not None:
            self.store.close()

    def _read_odd(self, locations: Sequence[Location]) -> list[memoryview]:
        """Read a list with empty ranges in it, or refuse one with a range that is outside of its object."""
        whole = [location for location in locations if _is_inside(location) or _empty(location)]
        views = iter(self.read_many(whole))
        return [next(views) if location.length else _NOTHING for location in locations]

    def _read_missing(self, locations: Sequence[Location]) -> list[memoryview]:
        """Fetch what the locations need, each block once, then cut them out of what was fetched or is there now."""
        needs = self._plan_fetches(locations)
        if len(needs) == 1:
            got = [self.fetch(*needs[0])]
        else:
            got = list(self._threads().map(lambda need: self.fetch(*need), needs)) if needs else []
        fetched: dict[bytes, list[tuple[BlockRun, Buffer]]] = {}
        for (ref, run), data in zip(needs, got, strict=True):
            if data is not None:
                fetched.setdefault(ref.id, []).append((run, data))
        return [self._cut(location, fetched.get(location.object.id)) for location in locations]

    def _plan_fetches(self, locations: Sequence[Location]) -> list[tuple[ObjectRef, BlockRun]]:
        needs: list[tuple[ObjectRef, BlockRun]] = []
        blocks: dict[bytes, tuple[ObjectRef, set[int]]] = {}
        for ref, offset, length in ((location.object, location.offset, location.length) for location in locations):
            if self.store is not None and self.store.admits(ref):
                wanted = range(offset >> BLOCK_SHIFT, ((offset + length - 1) >> BLOCK_SHIFT) + 1)
                blocks.setdefault(ref.id, (ref, set()))[1].update(wanted)
        for ref, numbers in blocks.values():
            if self.store is not None:
                needs.extend((ref, run) for run in join_blocks(self.store.missing_blocks(ref, sorted(numbers))))
        return needs

    def _cut(self, location: Location, fetched: list[tuple[BlockRun, Buffer]] | None) -> memoryview:
        ref, offset, length = location.object, location.offset, location.length
        if self.store is not None and (ref.size > SMALL_BYTES or not fetched):
            # preferred for large objects: a slice of a fetched run would keep all of it in memory
            view = self.store.find(ref, offset, length)
            if view is not None:
                if not fetched:  # another thread or process was faster
                    self.stats.reads_local += 1
                    self.stats.bytes_local += length
                return view
        for run, data in fetched or ():
            start, size = block_span(run, ref.size)
            if start <= offset and offset + length <= start + size:
                return _readable(data)[offset - start : offset - start + length]
        return _readable(self._ask_origin(ref, offset, length))

    def _fetch_alone(self, ref: ObjectRef, run: BlockRun) -> Buffer | None:
        """Fetch under the lock that excludes other processes, and threads that want only some of the blocks."""
        store = self.store
        with ExitStack() as stack:
            if store is not None and store.off_reason is None:
                try:
                    stack.enter_context(store.locks.fill(ref.id, run, seconds=self._wait_seconds))
                except CacheTimeoutError as error:
                    # its holder hangs: one more request is better than a training that stands still
                    _log.warning("fetching without the lock object=%s reason=%s", ref.uri, error)
                except OSError as error:
                    store.fail(error)
            return self._fetch_missing(ref, run)

    def _fetch_missing(self, ref: ObjectRef, run: BlockRun) -> Buffer | None:
        """Fetch and store those blocks that are not there by now."""
        wanted = range(run.first, run.last + 1)
        missing = wanted if self.store is None else self.store.missing_blocks(ref, wanted)
        data: Buffer | None = None
        runs = list(join_blocks(missing))
        for part in runs:
            start, length = block_span(part, ref.size)
            data = self._ask_origin(ref, start, length)
            if length == ref.size:
                _check_digest(ref, data)
            if self.store is None or not self.store.put(ref, part.first, data):
                self.stats.uncached += 1
        return data if runs == [run] else None

    def _ask_origin(self, ref: ObjectRef, start: int, length: int) -> Buffer:
        data = self._origins.read(ref, start=start, length=length)
        got = memoryview(data).nbytes
        if got != length:
            raise SourceUnavailableError(f"{ref.uri}: asked for {length} bytes at {start}, got {got}; try again")
        self.stats.reads_origin += 1
        self.stats.bytes_origin += got
        return data

    def _threads(self) -> ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="forebay-fetch")
            return self._pool

    def forget_parent(self) -> None:
        """Leave threads and fetches to the parent of this fork; called by the fork itself."""
        self._pool = None
        self._pool_lock = threading.Lock()
        self._flights = Flights()


def _is_inside(location: Location) -> bool:
    return location.offset >= 0 and 0 < location.length <= location.object.size - location.offset


def _empty(location: Location) -> memoryview:
    """Answer an empty range, and refuse what is not one."""
    ref, offset, length = location.object, location.offset, location.length
    if length != 0 or not 0 <= offset <= ref.size:
        raise CacheRangeError(ref.uri, offset=offset, length=length, size=ref.size)
    return _NOTHING


def _readable(data: Buffer) -> memoryview:
    return memoryview(data).cast("B").toreadonly()


def _check_digest(ref: ObjectRef, data: Buffer) -> None:
    if ref.version.startswith("oid:"):
        found = f"oid:{blake3(data).hexdigest()}"
        if found != ref.version:
            raise ChecksumError(ref.uri, expected=ref.version, found=found)


def _reopen(origins: Origins, store: BlockStore | None, concurrency: int, wait_seconds: float) -> Client:
    return Client(origins, store, concurrency=concurrency, fill_wait_seconds=wait_seconds)


_clients: WeakSet[Client] = WeakSet()


def _after_fork_in_child() -> None:
    for client in _clients:
        client.forget_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
