"""Reading: this node's store, then other nodes, then the origin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakSet

from cache_runtime.errors import CacheRangeError
from cache_runtime.explaining import explain
from cache_runtime.fetching import Fetcher
from cache_runtime.locationio import BUFFER_BYTES, open_location
from cache_runtime.passing import read_past
from cache_runtime.readahead import AHEAD_BYTES, Announced, ReadAhead
from cache_runtime.sourcing import Sourcing
from cache_runtime.stats import ReadStats
from cache_runtime.store.ghosts import MissReason
from cache_runtime.store.layout import BLOCK_SHIFT, SMALL_BYTES, BlockRun, block_span, join_blocks
from cache_runtime.store.shares import Share
from sources import Location
from sources.crew import Crew

if TYPE_CHECKING:
    import io
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from cache_runtime.explaining import Explanation
    from cache_runtime.fetching import Need, Taker
    from cache_runtime.peers.cluster import Peers
    from cache_runtime.store.nodestore import NodeStore
    from sources import ObjectRef, Origins

_NOTHING = memoryview(b"")


class Client:
    """Reads ranges of immutable objects, from this node's store if they are there, and fills it if they are not.

    For any number of threads; usable in children of a fork. Pickling carries the origins, the store's directory, and
    how to find the peers. An error of an origin passes through unchanged, and nothing is cached then. An error of the
    cache or of a peer never stops a read: the bytes come from the origin.

    Args:
        origins: The stores that may be read.
        store: The node-local store; without one every read goes to a peer or an origin.
        peers: The other nodes; without them misses go to an origin.
        share: Whose bytes the fills are, where a call does not say.
        concurrency: Most requests of one `read_many` at a time.
        fill_wait_seconds: How long to wait for another thread or process that fetches the same bytes, before fetching
            them too.

    Attributes:
        stats: Counters of this process, shared by the clients of one store.
        store: The store.
        origins: The origins.
        peers: The peers.
        share: As given.
    """

    def __init__(
        self,
        origins: Origins,
        store: NodeStore | None,
        *,
        peers: Peers | None = None,
        share: Share | None = None,
        concurrency: int = 16,
        fill_wait_seconds: float = 120.0,
    ) -> None:
        self.origins = origins
        self.store = store
        self.peers = peers
        self.stats = store.stats if store is not None else ReadStats()
        self.share = share or Share()
        self._concurrency = concurrency
        self._wait_seconds = fill_wait_seconds
        self._sourcing = Sourcing(origins, peers, self.stats)
        self._fetcher = Fetcher(store, self._sourcing, self.stats, wait_seconds=fill_wait_seconds)
        self._crew = Crew(concurrency, name="forebay-fetch")
        self._ahead = ReadAhead(self._plan_ahead, self._fetcher, concurrency=concurrency)
        _clients.add(self)

    def __reduce__(self) -> tuple[object, ...]:
        rest = (self.peers, self.share, self._concurrency, self._wait_seconds)
        return _reopen, (self.origins, self.store, *rest)

    def read(self, location: Location, *, share: Share | None = None) -> memoryview:
        """Return the bytes of a location: contiguous, read-only, valid for as long as they are referenced.

        Raises:
            CacheRangeError: If the range is outside of its object.
            ChecksumError: If the origin's bytes do not have the digest that the version names.
            SourceError: If the origin fails; see `sources.ReadRange.read`.
        """
        store = self.store
        if store is not None:
            view = store.recall(location)
            if view is not None:
                stats = self.stats
                stats.reads_local += 1
                stats.bytes_local += location.length
                return view
        view = self.find(location)
        return view if view is not None else self._read_missing([location], share or self.share)[0]

    def read_many(self, locations: Sequence[Location], *, share: Share | None = None) -> list[memoryview]:
        """Do `read` for many locations, in their order.

        What is missing is fetched at once: neighbouring blocks joined, several objects side by side, small objects of
        one peer in one request.

        Raises:
            As `read`, for the first location that fails; what else was fetched stays cached.
        """
        views: list[memoryview | None] = [None] * len(locations)
        if self.store is not None:
            views = self.store.find_many(locations)
        missing = [number for number, view in enumerate(views) if view is None]
        self.stats.reads_local += len(views) - len(missing)
        self.stats.bytes_local += sum([len(view) for view in views if view is not None])
        for number in missing:
            if not _is_inside(locations[number]):
                views[number] = _empty(locations[number])
        missing = [number for number in missing if views[number] is None]
        if missing:
            found = self._read_missing([locations[n] for n in missing], share or self.share)
            for number, view in zip(missing, found, strict=True):
                views[number] = view
        return views  # type: ignore[return-value] # every None was replaced

    def read_ranges(
        self,
        refs: Sequence[ObjectRef],
        numbers: Sequence[int],
        offsets: Sequence[int],
        lengths: Sequence[int],
        *,
        share: Share | None = None,
    ) -> list[memoryview]:
        """Do `read_many` for many ranges of few objects, without an object in Python for each range.

        Args:
            refs: The objects, each once.
            numbers: Of each range, which of them it is in.
            offsets: Of each range, its start in the object.
            lengths: Of each range, its bytes.
            share: As in `read_many`.

        Raises:
            As `read_many`.
        """
        store = self.store
        if store is not None and numbers and min(offsets) >= 0 and min(lengths) >= 0:
            wholes = list(map(store.whole, refs))
            if None not in wholes:
                rows = zip(numbers, offsets, lengths, strict=True)
                views = [wholes[number][start : start + length] for number, start, length in rows]  # type: ignore[index]
                size = sum(lengths)
                if sum(map(len, views)) == size:  # else a range is not inside of its object: told below
                    self.stats.reads_local += len(views)
                    self.stats.bytes_local += size
                    return views
        rows = zip(numbers, offsets, lengths, strict=True)
        return self.read_many([Location(refs[number], start, length) for number, start, length in rows], share=share)

    def will_need(
        self,
        refs: Sequence[ObjectRef],
        numbers: Sequence[int],
        offsets: Sequence[int],
        lengths: Sequence[int],
        *,
        most_bytes: int = AHEAD_BYTES,
        share: Share | None = None,
    ) -> Announced:
        """Fetch in the background what `read_ranges` of the same ranges would fetch; the first ones first.

        Whoever knows the order announces what comes next, part by part. Parts are fetched in their order, at most
        `AHEAD_BYTES` of them at a time, with as many requests side by side as the client may have; the others wait. A
        read of what is being fetched waits for that fetch.

        Args:
            refs: As in `read_ranges`, and so `numbers`, `offsets`, `lengths` and `share`.
            numbers: There.
            offsets: There.
            lengths: There.
            most_bytes: Fetch no more blocks than fit into this, but one.
            share: There.

        Returns:
            How many bytes were not here, once they are, or the error of a source, which the read will raise too unless
            it has passed. Cancelling works until the fetch begins. Keep it until the ranges were read, and call its
            `passed` then: as long, they are evicted after all else, what is needed last first.
        """
        rows = zip(numbers, offsets, lengths, strict=True)
        wanted = [Location(refs[number], start, length) for number, start, length in rows]
        inside = [location for location in wanted if _is_inside(location)]
        share, end = share or self.share, None
        if self.store is not None:
            objects = list(dict.fromkeys(location.object.id for location in inside))
            end = self.store.expect(objects, sum(location.length for location in inside), share=share)
        return self._ahead.announce(inside, most_bytes, share, end=end)

    def open(self, location: Location, *, buffer_bytes: int = BUFFER_BYTES) -> io.BufferedReader:
        """Return a seekable file of a location's bytes. Its reads raise as `read` does.

        Args:
            location: The range.
            buffer_bytes: Read at a time where less is asked for.
        """
        return open_location(location, self.read, buffer_bytes=buffer_bytes)

    def find(self, location: Location) -> memoryview | None:
        """Return the bytes of a location if this node has them, None otherwise.

        Raises:
            CacheRangeError: As `read`.
        """
        if not _is_inside(location):
            return _empty(location)
        if self.store is None:
            return None
        view = self.store.find(location.object, location.offset, location.length)
        if view is not None:
            self.stats.reads_local += 1
            self.stats.bytes_local += location.length
        return view

    def fetch(self, ref: ObjectRef, run: BlockRun, *, share: Share | None = None) -> Buffer | None:
        """Make blocks of an object present in the store; a small object has the one block 0.

        Of all threads and processes that ask for the same blocks one fetches them.

        Returns:
            The bytes of the blocks if this call or one that it waited for fetched them, None if they were there, or
            would find no room: then nothing is fetched of a large object.

        Raises:
            ChecksumError, SourceError: As `read`.
        """
        return self._fetcher.fetch(ref, run, share or self.share)

    def fetches_together(self, ref: ObjectRef) -> bool:
        """Say whether `fetch_each` is for an object: it is small, and its store answers many requests to one thread."""
        if self.store is None or ref.size > SMALL_BYTES or not self._fetcher.gathers(ref):
            return False
        return self.store.admits(ref, length=0)

    def fetch_each(self, refs: Sequence[ObjectRef], taker: Taker, *, share: Share | None = None) -> None:
        """Make objects present that `fetches_together` is true of, side by side, in this thread.

        Args:
            refs: Each once.
            taker: Told of each as soon as its bytes are here, which may be before the store has them, or of its error.
            share: As in `read`.
        """
        self._fetcher.fetch_each(refs, share or self.share, taker)

    def explain(self, location: Location) -> Explanation:
        """Say where a location's bytes are, who owns them, and why they are not here if they are not.

        Asks the first candidates, each within the time-outs of the peers; fetches nothing.

        Raises:
            CacheRangeError: As `read`.
        """
        if not _is_inside(location):
            _empty(location)
        return explain(location, self.store, self.peers)

    def close(self) -> None:
        """Let go of files and connections; bytes that were read stay valid, and the client opens them again."""
        if self.peers is not None:
            self.peers.close()
        if self.store is not None:
            self.store.close()

    def _read_missing(self, locations: Sequence[Location], share: Share) -> list[memoryview]:
        """Fetch what the locations need, each block once, then cut them out of what was fetched or is there now."""
        if len(locations) > 1 or locations[0].object.size > SMALL_BYTES:
            # one small object is not waited for behind others: the one who is fetching it, if any, hands it over
            self._ahead.wait_for(locations, seconds=self._wait_seconds)
        fetched: dict[bytes, list[tuple[BlockRun, Buffer]]] = {}
        needs, refused = self._plan_fetches(locations, share)
        for (ref, run), data in self._fetcher.fetch_all(needs, share, self._crew) if needs else ():
            fetched.setdefault(ref.id, []).append((run, data))
        views = [self._cut(location, fetched.get(location.object.id)) for location in locations]
        left = [number for number, view in enumerate(views) if view is None]
        if self.store is not None:
            for n in set(left) - refused:  # let in above, and found no room: asked again, it is counted
                self.store.admits(locations[n].object, share=share, length=locations[n].length)
        past = read_past([locations[n] for n in left], self._sourcing, share, self._crew) if left else []
        for number, data in zip(left, past, strict=True):
            views[number] = _readable(data)
        return views  # type: ignore[return-value] # every None was replaced

    def _plan_ahead(self, locations: Sequence[Location], share: Share) -> list[Need]:
        needs, _ = self._plan_fetches(locations, share, counts=False)  # what is refused now is counted when it is read
        return needs

    def _plan_fetches(
        self, locations: Sequence[Location], share: Share, *, counts: bool = True
    ) -> tuple[list[Need], set[int]]:
        """Return which blocks to fetch, and the numbers of the locations that are not let in."""
        refused: set[int] = set()
        if self.store is None:
            return [], refused
        blocks: dict[bytes, tuple[ObjectRef, set[int]]] = {}
        for number, (ref, offset, length) in enumerate(
            (location.object, location.offset, location.length) for location in locations
        ):
            if self.store.admits(ref, share=share, length=length if counts else 0):
                wanted = range(offset >> BLOCK_SHIFT, ((offset + length - 1) >> BLOCK_SHIFT) + 1)
                blocks.setdefault(ref.id, (ref, set()))[1].update(wanted)
                continue
            refused.add(number)
            if counts:
                self.stats.miss(MissReason.NOT_ADMITTED if self.store.off_reason is None else MissReason.STORE_OFF)
        wants = [(ref, sorted(numbers)) for ref, numbers in blocks.values()]
        missing = self.store.missing_among(wants)
        return [(ref, run) for (ref, _), gone in zip(wants, missing, strict=True) for run in join_blocks(gone)], refused

    def _cut(self, location: Location, fetched: list[tuple[BlockRun, Buffer]] | None) -> memoryview | None:
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
        return None

    def forget_parent(self) -> None:
        """Leave threads and fetches to the parent of this fork; called by the fork itself."""
        self._crew = Crew(self._concurrency, name="forebay-fetch")
        self._ahead = ReadAhead(self._plan_ahead, self._fetcher, concurrency=self._concurrency)
        self._fetcher.forget_parent()


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


def _reopen(
    origins: Origins,
    store: NodeStore | None,
    peers: Peers | None,
    share: Share,
    concurrency: int,
    wait_seconds: float,
) -> Client:
    return Client(origins, store, peers=peers, share=share, concurrency=concurrency, fill_wait_seconds=wait_seconds)


_clients: WeakSet[Client] = WeakSet()


def _after_fork_in_child() -> None:
    for client in _clients:
        client.forget_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
