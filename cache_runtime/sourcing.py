"""Getting bytes that this node does not have: from other nodes in the order of a route, then from the origin."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, Protocol

from blake3 import blake3

from cache_runtime.errors import ChecksumError
from cache_runtime.peers.asking import Asker
from cache_runtime.peers.downloads import Download
from cache_runtime.peers.routing import Route
from cache_runtime.protocol import ErrorKind
from cache_runtime.store.layout import block_span
from sources import Range, SourceError, SourceUnavailableError, SteadyStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from cache_runtime.peers.cluster import Peers
    from cache_runtime.peers.routing import Ask
    from cache_runtime.stats import ReadStats
    from cache_runtime.store.layout import BlockRun
    from cache_runtime.store.shares import Share
    from sources import Location, ObjectRef, Origins

_ALONE = Route((), False, None)
_ELSEWHERE = frozenset({ErrorKind.NOT_CACHED, ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE})
"""Failures of one item after which the next worker may have it; all others are of the object or its origin."""


class Fetched(NamedTuple):
    """Bytes from elsewhere.

    Attributes:
        data: The bytes.
        crcs: Checksums of their blocks, as `NodeStore.put` takes them, which they have passed; None from an origin.
        guest: Whether this node keeps them as a guest.
    """

    data: Buffer
    crcs: Sequence[int] | None
    guest: bool


class Receiver(Protocol):
    """Who takes what becomes of objects that are read side by side, and says whether they are still wanted."""

    def found(self, number: int, fetched: Fetched) -> None:
        """Take the bytes of an object."""
        ...

    def failed(self, number: int, error: SourceError | ChecksumError) -> None:
        """Take why an object cannot be read."""
        ...

    def is_set(self) -> bool:
        """Say whether nobody wants the rest any more."""
        ...


class Sourcing:
    """Asks other nodes and origins; stores nothing. For any number of threads.

    Args:
        origins: The stores that may be read.
        peers: The other nodes; None: there are none.
        stats: Counted in.
    """

    def __init__(self, origins: Origins, peers: Peers | None, stats: ReadStats) -> None:
        self.origins = origins
        self.peers = peers
        self._stats = stats
        self._asker = None if peers is None else Asker(peers, stats)

    def routes(self, wanted: Sequence[tuple[ObjectRef, int]], share: Share) -> list[Route]:
        """Plan whom to ask for some blocks, each of an object; a small one has the block 0."""
        if self.peers is None:
            return [_ALONE] * len(wanted)
        return self.peers.routes(wanted, share=share.name)

    def blocks(self, ref: ObjectRef, run: BlockRun, share: Share, route: Route) -> Fetched:
        """Get neighbouring blocks of one group, by the route of the first one; a small object has the one block 0.

        Raises:
            ChecksumError, SourceError: As `Client.read`.
        """
        download = None
        if self._asker is not None and route.asks:
            download = Download(ref, run)
            if self._asker.bring(download, route, share) and has_digest(ref, download.data):
                return Fetched(download.data, download.crcs, route.guest)
            self._count_loss(route, 1)
        start, length = block_span(run, ref.size)
        if download is not None and 0 < download.proven < length:
            data: Buffer = download.data
            rest = self.ask_origin(ref, start + download.proven, length - download.proven)
            download.data[download.proven :] = memoryview(rest).cast("B")
        else:
            data = self.ask_origin(ref, start, length)
        if length == ref.size:
            check_digest(ref, data)
        return Fetched(data, None, guest=False)  # no worker is known to keep it

    def ranges(self, items: Sequence[Location], routes: Sequence[Route], share: Share) -> Iterator[tuple[int, Fetched]]:
        """Get many ranges of at most some MiB, of an object each: yield their numbers with their bytes as they come.

        Those of one worker are asked for in one request; with them all of one is not more than a batch may have.

        Raises:
            ChecksumError, SourceError: As `Client.read`, for one of them; others may not have been asked for.
        """
        left = dict(enumerate(routes))
        for step in range(max((len(route.asks) for route in routes), default=0)):
            groups: dict[Ask, list[int]] = defaultdict(list)
            for number, route in left.items():
                if step < len(route.asks):
                    groups[route.asks[step]].append(number)
            for ask, numbers in groups.items():
                for number, fetched in self._from_worker(ask, items, numbers, share, left):
                    del left[number]
                    yield number, fetched
        for number in left:
            self._count_loss(routes[number], 1)
            item = items[number]
            data = self.ask_origin(item.object, item.offset, item.length)
            if item.length == item.object.size:
                check_digest(item.object, data)
            yield number, Fetched(data, None, guest=False)

    def objects(self, refs: Sequence[ObjectRef], receiver: Receiver) -> None:
        """Read whole small objects from their origins; side by side, in this thread, where a store can.

        Args:
            refs: Objects of at most a MiB.
            receiver: Told what becomes of each, by its place among them.
        """
        groups: dict[SteadyStore, list[int]] = defaultdict(list)
        alone = []
        for number, ref in enumerate(refs):
            store = self._reads_each(ref)
            if store is None:
                alone.append(number)
            else:
                groups[store].append(number)
        for store, numbers in groups.items():
            whole = [Range(ref.key, ref.version, 0, ref.size) for ref in (refs[number] for number in numbers)]
            alone += [numbers[place] for place in store.read_each(whole, _Group(self, refs, numbers, receiver))]
        for number in alone:
            if receiver.is_set():
                return
            self._object(number, refs[number], receiver)

    def reads_together(self, ref: ObjectRef) -> bool:
        """Say whether `objects` would read a small object beside others."""
        return self.peers is None and self._reads_each(ref) is not None

    def _reads_each(self, ref: ObjectRef) -> SteadyStore | None:
        try:
            store = self.origins.store_for(ref)
        except SourceError:  # whoever reads it alone is told
            return None
        return store if ref.size and isinstance(store, SteadyStore) and store.can_read_each else None

    def _object(self, number: int, ref: ObjectRef, receiver: Receiver) -> None:
        try:
            data = self.ask_origin(ref, 0, ref.size)
            check_digest(ref, data)
        except (SourceError, ChecksumError) as error:
            receiver.failed(number, error)
        else:
            receiver.found(number, Fetched(data, None, guest=False))

    def count_origin(self, size: int) -> None:
        """Count bytes that an origin sent."""
        self._stats.reads_origin += 1
        self._stats.bytes_origin += size

    def ask_origin(self, ref: ObjectRef, start: int, length: int) -> Buffer:
        """Read a range from the origin.

        Raises:
            SourceError: If it fails, or sends another number of bytes.
        """
        data = self.origins.read(ref, start=start, length=length)
        got = memoryview(data).nbytes
        if got != length:
            raise SourceUnavailableError(f"{ref.uri}: asked for {length} bytes at {start}, got {got}; try again")
        self.count_origin(got)
        return data

    def _from_worker(
        self, ask: Ask, items: Sequence[Location], numbers: Sequence[int], share: Share, left: dict[int, Route]
    ) -> Iterator[tuple[int, Fetched]]:
        assert self._asker is not None
        answers = self._asker.ask_ranges(ask, [items[number] for number in numbers], share)
        for number, answer in zip(numbers, answers, strict=True):
            if answer is None:
                continue
            if answer.error is not None:
                if answer.error.kind not in _ELSEWHERE:
                    left[number] = left[number]._replace(asks=())  # the origin itself says what is wrong
                continue
            item = items[number]
            if item.length != item.object.size or has_digest(item.object, answer.data):
                # copied, so that one small range that is kept does not keep all of the answer
                yield number, Fetched(bytes(answer.data), [answer.crc], left[number].guest)

    def _count_loss(self, route: Route, count: int) -> None:
        if route.asks and route.asks[0].fill:
            self._stats.miss_worker_lost += count


class _Group:
    """Takes what one store read; see `sources.reading.together.Taker`.

    Args:
        sourcing: Counts.
        refs: All that is read.
        numbers: The places among them of what this store reads.
        receiver: Told of them.
    """

    def __init__(
        self, sourcing: Sourcing, refs: Sequence[ObjectRef], numbers: Sequence[int], receiver: Receiver
    ) -> None:
        self._sourcing = sourcing
        self._refs = refs
        self._numbers = numbers
        self._receiver = receiver
        self.is_set = receiver.is_set

    def found(self, place: int, data: Buffer) -> None:
        number = self._numbers[place]
        ref = self._refs[number]
        self._sourcing.count_origin(ref.size)
        try:
            check_digest(ref, data)
        except ChecksumError as error:
            self._receiver.failed(number, error)
        else:
            self._receiver.found(number, Fetched(data, None, guest=False))

    def failed(self, place: int, error: SourceError) -> None:
        self._receiver.failed(self._numbers[place], error)


def has_digest(ref: ObjectRef, data: Buffer) -> bool:
    """Compare bytes with the digest that names them, if one does and they are all of the object."""
    if not ref.version.startswith("oid:") or memoryview(data).nbytes != ref.size:
        return True
    return f"oid:{blake3(data).hexdigest()}" == ref.version


def check_digest(ref: ObjectRef, data: Buffer) -> None:
    """Refuse bytes that `has_digest` is not true of.

    Raises:
        ChecksumError: Naming the digest that was found.
    """
    if not has_digest(ref, data):
        raise ChecksumError(ref.uri, expected=ref.version, found=f"oid:{blake3(data).hexdigest()}")
