"""Filling this node's store with what reads miss, each block once among all threads and processes of the node."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheTimeoutError
from cache_runtime.flights import Flights
from cache_runtime.peers.placement import GROUP_BLOCKS
from cache_runtime.store.layout import SMALL_BYTES, BlockRun, join_blocks
from sources import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

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
            return self._fetch_small([(need[0], route) for need, route in task if route is not None], share)
        ((need, _),) = task
        data = self.fetch(*need, share)
        return [] if data is None else [(need, data)]

    def _fetch_small(self, wanted: Sequence[tuple[ObjectRef, Route]], share: Share) -> list[tuple[Need, Buffer]]:
        """Fetch small objects that nobody is fetching, then wait for those that somebody is."""
        found: dict[bytes, tuple[Need, Buffer]] = {}
        with self._flights.claim((ref.id, _WHOLE) for ref, _ in wanted) as claim, ExitStack() as stack:
            mine = [(ref, route) for ref, route in wanted if (ref.id, _WHOLE) in claim.mine]
            held = self._claim_locks(stack, [ref for ref, _ in mine])
            mine = [row for row, is_held in zip(mine, held, strict=True) if is_held]
            missing = self._without_present(mine)
            for row in mine:
                if row not in missing:
                    claim.land((row[0].id, _WHOLE), None)
            for ref, data in self._get_small(missing, share, claim):
                found[ref.id] = ((ref, _WHOLE), data)
            done = {ref.id for ref, _ in mine}
        for ref, _ in wanted:
            if ref.id not in done:
                data_of_other = self.fetch(ref, _WHOLE, share)
                if data_of_other is not None:
                    found[ref.id] = ((ref, _WHOLE), data_of_other)
        return list(found.values())

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
        self, rows: Sequence[tuple[ObjectRef, Route]], share: Share, claim: Claim[Buffer | None]
    ) -> list[tuple[ObjectRef, Buffer]]:
        """Get objects and store them together, also those that came before one that failed.

        Who waits for one of them has it as soon as it is here.
        """
        got: list[tuple[ObjectRef, Fetched]] = []
        self._note_misses([ref for ref, _ in rows])
        items = [Location(ref, 0, ref.size) for ref, _ in rows]
        try:
            for number, fetched in self._sourcing.ranges(items, [route for _, route in rows], share):
                got.append((rows[number][0], fetched))
                claim.land((rows[number][0].id, _WHOLE), fetched.data)
        finally:
            for guest in (False, True):
                self._put_small([row for row in got if row[1].guest is guest], share, guest=guest)
        return [(ref, fetched.data) for ref, fetched in got]

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
