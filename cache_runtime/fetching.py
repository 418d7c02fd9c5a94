"""Filling this node's store with what reads miss, each block once among all threads and processes of the node."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from cache_runtime.errors import CacheError, CacheTimeoutError
from cache_runtime.flights import Flights
from cache_runtime.peers.placement import GROUP_BLOCKS
from cache_runtime.store.layout import SMALL_BYTES, BlockRun, join_blocks
from sources import Location, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from cache_runtime.errors import ChecksumError
    from cache_runtime.flights import Claim
    from cache_runtime.peers.routing import Ask, Route
    from cache_runtime.sourcing import Fetched, Sourcing
    from cache_runtime.stats import ReadStats
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shares import Share
    from sources import ObjectRef
    from sources.crew import Crew

    Need = tuple[ObjectRef, BlockRun]
    Task = list[tuple[Need, Route | None]]

_log = logging.getLogger(__name__)
_WHOLE = BlockRun(0, 0)
_ORIGIN_GROUP = 16  # small objects that one thread fetches one by one, and stores in one transaction
_BATCH_ITEMS = 1024
_BATCH_BYTES = 16 << 20


class Fetcher:
    """Makes blocks present, from wherever they are.

    Args:
        store: The node-local store, or None.
        sourcing: Where blocks come from.
        stats: Counted in.
        wait_seconds: How long to wait for another thread or process that fetches the same bytes.
    """

    def __init__(self, store: NodeStore | None, sourcing: Sourcing, stats: ReadStats, *, wait_seconds: float) -> None:
        self._store = store
        self._sourcing = sourcing
        self._stats = stats
        self._wait_seconds = wait_seconds
        self._flights: Flights[Buffer | None] = Flights()

    def fetch(self, ref: ObjectRef, run: BlockRun, share: Share) -> Buffer | None:
        """Make blocks present; see `Client.fetch`."""
        try:
            return self._flights.fly(
                (ref.id, run), lambda: self._fetch_locked(ref, run, share), seconds=self._wait_seconds
            )
        except CacheTimeoutError as error:
            _log.warning("fetching beside another thread object=%s reason=%s", ref.uri, error)
            return self._fetch_missing(ref, run, share)

    def fetch_all(self, needs: Sequence[Need], share: Share, crew: Crew) -> list[tuple[Need, Buffer]]:
        """Make many blocks present, side by side; return those that this call, or one that it waited for, fetched.

        Raises:
            ChecksumError, SourceError: As `Client.read`, for the first one that fails; the others are cached.
        """
        tasks = list(self.tasks(needs, share, crew.size))
        if len(tasks) == 1:
            return self.run(tasks[0], share)
        return [found for part in crew.map(lambda task: self.run(task, share), tasks) for found in part]

    def forget_parent(self) -> None:
        """Leave what is being fetched to the parent of a fork."""
        self._flights = Flights()

    def tasks(self, needs: Sequence[Need], share: Share, threads: int) -> Iterator[Task]:
        """Divide needs into what one thread does: a run of blocks, or some small objects of one worker."""
        small: list[Need] = []
        for ref, run in needs:
            if ref.size <= SMALL_BYTES:
                small.append((ref, run))
            else:
                for part in self._split(run):
                    yield [((ref, part), None)]
        groups: dict[Ask | None, list[tuple[Need, Route | None]]] = {}
        for need, route in zip(small, self._sourcing.routes([(ref, 0) for ref, _ in small], share), strict=True):
            groups.setdefault(route.asks[0] if route.asks else None, []).append((need, route))
        for ask, group in groups.items():
            share_of_one = -(-len(group) // threads)
            yield from _chunks(group, _BATCH_ITEMS if ask is not None else min(_ORIGIN_GROUP, share_of_one))

    def _split(self, run: BlockRun) -> Iterator[BlockRun]:
        """Cut a run at the borders of groups, which may have other owners."""
        first = run.first
        while self._sourcing.peers is not None and first // GROUP_BLOCKS < run.last // GROUP_BLOCKS:
            stop = (first // GROUP_BLOCKS + 1) * GROUP_BLOCKS
            yield BlockRun(first, stop - 1)
            first = stop
        yield BlockRun(first, run.last)

    def run(self, task: Task, share: Share) -> list[tuple[Need, Buffer]]:
        """Do one of `tasks`; see `fetch_all`."""
        if len(task) > 1:
            results = Results()
            self._fetch_small([(need[0], route) for need, route in task if route is not None], share, results)
            return results.rows()
        ((need, _),) = task
        data = self.fetch(*need, share)
        return [] if data is None else [(need, data)]

    def gathers(self, ref: ObjectRef) -> bool:
        """Say whether `fetch_each` fetches a small object beside others, not after them."""
        return self._sourcing.reads_together(ref)

    def fetch_each(self, refs: Sequence[ObjectRef], share: Share, taker: Taker) -> None:
        """Make small objects present, side by side, and tell of each as soon as it is here, or cannot be had.

        Args:
            refs: Each once.
            share: As in `fetch`.
            taker: Told; by this thread, and before the bytes are in the store.
        """
        routes = self._sourcing.routes([(ref, 0) for ref in refs], share)
        self._fetch_small([*zip(refs, routes, strict=True)], share, taker)

    def _fetch_small(self, wanted: Sequence[tuple[ObjectRef, Route]], share: Share, taker: Taker) -> None:
        """Fetch small objects that nobody is fetching, then wait for those that somebody is."""
        with self._flights.claim((ref.id, _WHOLE) for ref, _ in wanted) as claim, ExitStack() as stack:
            mine = [(ref, route) for ref, route in wanted if (ref.id, _WHOLE) in claim.mine]
            held = self._claim_locks(stack, [ref for ref, _ in mine])
            mine = [row for row, is_held in zip(mine, held, strict=True) if is_held]
            missing = self._without_present(mine)
            for row in mine:
                if row not in missing:
                    claim.land((row[0].id, _WHOLE), None)
                    taker.found(row[0], None)
            self._get_small(missing, share, claim, taker)
            done = {ref.id for ref, _ in mine}
        for ref, _ in wanted:
            if ref.id not in done and not taker.is_set():
                self._take_other(ref, share, taker)

    def _take_other(self, ref: ObjectRef, share: Share, taker: Taker) -> None:
        """Wait for what another thread or process fetches."""
        try:
            data = self.fetch(ref, _WHOLE, share)
        except (SourceError, CacheError) as error:
            taker.failed(ref, error)
        else:
            taker.found(ref, data)

    def _claim_locks(self, stack: ExitStack, refs: Sequence[ObjectRef]) -> list[bool]:
        """Take the locks that no other process holds."""
        if self._store is None or self._store.off_reason is not None:
            return [True] * len(refs)
        try:
            return stack.enter_context(self._store.locks.claim([(ref.id, _WHOLE) for ref in refs]))
        except OSError as error:
            self._store.fail(error)
            return [True] * len(refs)

    def _without_present(self, rows: Sequence[tuple[ObjectRef, Route]]) -> list[tuple[ObjectRef, Route]]:
        if self._store is None:
            return list(rows)
        missing = self._store.missing_among([(ref, range(1)) for ref, _ in rows])
        return [row for row, blocks in zip(rows, missing, strict=True) if blocks]

    def _get_small(
        self, rows: Sequence[tuple[ObjectRef, Route]], share: Share, claim: Claim[Buffer | None], taker: Taker
    ) -> None:
        """Get objects and store them together, also those that came before one that failed.

        Who waits for one of them has it as soon as it is here.
        """
        landing = _Landing([ref for ref, _ in rows], claim, taker)
        self._note_misses(landing.refs)
        try:
            if any(route.asks for _, route in rows):
                items = [Location(ref, 0, ref.size) for ref in landing.refs]
                for number, fetched in self._sourcing.ranges(items, [route for _, route in rows], share):
                    landing.found(number, fetched)
            else:
                self._sourcing.objects(landing.refs, landing)
        finally:
            for guest in (False, True):
                self._put_small([row for row in landing.got if row[1].guest is guest], share, guest=guest)

    def _put_small(self, got: list[tuple[ObjectRef, Fetched]], share: Share, *, guest: bool) -> None:
        if not got:
            return
        stored = 0
        if self._store is not None:
            crcs = [fetched.crcs[0] for _, fetched in got if fetched.crcs is not None]
            items = [(ref, fetched.data) for ref, fetched in got]
            stored = self._store.put_many(
                items, share=share, guest=guest, crcs=crcs if len(crcs) == len(items) else None
            )
        self._stats.uncached += len(got) - stored

    def _fetch_locked(self, ref: ObjectRef, run: BlockRun, share: Share) -> Buffer | None:
        """Fetch under the lock that excludes other processes, and threads that want only some of the blocks."""
        store = self._store
        with ExitStack() as stack:
            if store is not None and store.off_reason is None:
                try:
                    stack.enter_context(store.locks.fill(ref.id, run, seconds=self._wait_seconds))
                except CacheTimeoutError as error:
                    # its holder hangs: one more request is better than a training that stands still
                    _log.warning("fetching without the lock object=%s reason=%s", ref.uri, error)
                except OSError as error:
                    store.fail(error)
            return self._fetch_missing(ref, run, share)

    def _fetch_missing(self, ref: ObjectRef, run: BlockRun, share: Share) -> Buffer | None:
        """Fetch and store those blocks that are not there by now."""
        wanted = range(run.first, run.last + 1)
        missing = wanted if self._store is None else self._store.missing_blocks(ref, wanted)
        if missing:
            self._note_misses([ref])
        data: Buffer | None = None
        runs = [part for joined in join_blocks(missing) for part in self._split(joined)]
        for part in runs:
            data = self._fetch_admitted(ref, part, share)
        return data if runs == [run] else None

    def _fetch_admitted(self, ref: ObjectRef, run: BlockRun, share: Share) -> Buffer | None:
        """Fetch and store blocks, unless they would not be stored: whoever reads then needs less than whole blocks."""
        store = self._store
        (route,) = self._sourcing.routes([(ref, run.first)], share)
        if store is None or ref.size <= SMALL_BYTES:
            return self._fetch_blocks(ref, run, share, route)
        with store.admitting(ref, run, share=share, guest=route.guest) as count:
            if not count:
                self._stats.uncached += 1
                return None
            part = run._replace(last=run.first + count - 1)
            data = self._fetch_blocks(ref, part, share, route)
            return data if part == run else None

    def _fetch_blocks(self, ref: ObjectRef, run: BlockRun, share: Share, route: Route) -> Buffer:
        fetched = self._sourcing.blocks(ref, run, share, route)
        if self._store is None or not self._store.put(
            ref, run.first, fetched.data, share=share, guest=fetched.guest, crcs=fetched.crcs
        ):
            self._stats.uncached += 1
        return fetched.data

    def _note_misses(self, refs: Sequence[ObjectRef]) -> None:
        if self._store is not None:
            for ref in refs:
                self._stats.miss(self._store.why_missing(ref))


class Taker(Protocol):
    """Who takes what becomes of small objects that are fetched together."""

    def found(self, ref: ObjectRef, data: Buffer | None) -> None:
        """Take an object's bytes; None: it is in the store."""
        ...

    def failed(self, ref: ObjectRef, error: Exception) -> None:
        """Take why an object cannot be had."""
        ...

    def is_set(self) -> bool:
        """Say whether nobody wants the rest any more."""
        ...


class Results:
    """Keeps what was fetched; the first failure is the end."""

    def __init__(self) -> None:
        self._rows: list[tuple[Need, Buffer]] = []
        self._error: Exception | None = None

    def rows(self) -> list[tuple[Need, Buffer]]:
        """Return what was fetched, or raise what failed."""
        if self._error is not None:
            raise self._error
        return self._rows

    def found(self, ref: ObjectRef, data: Buffer | None) -> None:
        """See `Taker`."""
        if data is not None:
            self._rows.append(((ref, _WHOLE), data))

    def failed(self, ref: ObjectRef, error: Exception) -> None:
        """See `Taker`."""
        del ref
        self._error = self._error or error

    def is_set(self) -> bool:
        """See `Taker`."""
        return self._error is not None


class _Landing:
    """Hands what comes to the taker, and to all others who wait for it; see `sourcing.Receiver`.

    Attributes:
        refs: What is fetched.
        got: What came, with where it came from.
    """

    def __init__(self, refs: Sequence[ObjectRef], claim: Claim[Buffer | None], taker: Taker) -> None:
        self.refs = refs
        self.got: list[tuple[ObjectRef, Fetched]] = []
        self._claim = claim
        self._taker = taker
        self.is_set = taker.is_set

    def found(self, number: int, fetched: Fetched) -> None:
        ref = self.refs[number]
        self.got.append((ref, fetched))
        self._claim.land((ref.id, _WHOLE), fetched.data)
        self._taker.found(ref, fetched.data)

    def failed(self, number: int, error: SourceError | ChecksumError) -> None:
        ref = self.refs[number]
        self._claim.fail((ref.id, _WHOLE), error)
        self._taker.failed(ref, error)


def _chunks(group: list[tuple[Need, Route | None]], most: int) -> Iterator[list[tuple[Need, Route | None]]]:
    """Cut a list into parts of at most so many objects, and of what fits into a batch."""
    part: list[tuple[Need, Route | None]] = []
    size = 0
    for row in group:
        if part and (len(part) >= most or size + row[0][0].size > _BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += row[0][0].size
    if part:
        yield part
