"""Getting the bytes of pieces, from workers that have them or from the origin, and noting what cannot be had."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.errors import CacheError
from cache_runtime.loading.outages import Outages
from cache_runtime.loading.reading import read_run, read_whole
from cache_runtime.loading.together import TogetherReader
from cache_runtime.peers.asking import Asker
from cache_runtime.peers.downloads import Download
from cache_runtime.peers.routing import Route
from cache_runtime.sourcing import has_digest
from cache_runtime.store.shares import Share
from sources import Location, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Buffer

    from cache_runtime.loading.tally import Tally
    from cache_runtime.peers.cluster import Peers
    from cache_runtime.peers.routing import Ask
    from cache_runtime.stats import ReadStats
    from cache_runtime.store.layout import BlockRun
    from sources import ObjectRef, Origins


class Brought(NamedTuple):
    """Bytes of an object or of blocks; `crcs` are their checksums if they came from a worker, which they passed."""

    data: Buffer
    crcs: Sequence[int] | None


class Bringer:
    """Reads for one load, for any number of threads; failures go to the tally, and nothing is raised for them.

    Args:
        origins: The stores that may be read.
        peers: Other workers; None: there are none.
        stats: Counted in.
        tally: Told of what cannot be had.
        share: Whose bytes workers are to fetch.
    """

    def __init__(
        self, origins: Origins, peers: Peers | None, stats: ReadStats, *, tally: Tally, share: Share | None
    ) -> None:
        self.outages = Outages()
        self._origins = origins
        self._stats = stats
        self._tally = tally
        self._share = share or Share()
        self._together = TogetherReader(origins, self.outages, tally)
        self._asker = None if peers is None else Asker(peers, stats)

    def bring_small(
        self, refs: Sequence[ObjectRef], asks: Sequence[Ask], *, at_once: int, is_over: Callable[[], bool]
    ) -> Iterator[tuple[ObjectRef, Brought]]:
        """Yield whole small objects as they come, until it is over.

        Args:
            refs: The objects.
            asks: Workers to ask before the origin.
            at_once: Requests of the whole load at a time.
            is_over: Asked before each object.
        """
        left = list(refs)
        for ask in asks if self._asker is not None else ():
            if not left or is_over():
                break
            got = self._from_worker(ask, left)
            yield from ((ref, brought) for ref, brought in zip(left, got, strict=True) if brought is not None)
            left = [ref for ref, brought in zip(left, got, strict=True) if brought is None]
        read, left = self._together.read(left, at_once=at_once, is_over=is_over)
        count, total = len(read), sum(ref.size for ref, _ in read)
        try:
            yield from ((ref, Brought(data, None)) for ref, data in read)
            for ref in left:
                if is_over():
                    break
                data = self._ask_origin(ref, partial(read_whole, self._origins, ref))
                if data is not None:
                    count, total = count + 1, total + ref.size
                    yield ref, Brought(data, None)
        finally:
            self._count_origin(count, total)

    def bring_run(self, ref: ObjectRef, run: BlockRun, asks: Sequence[Ask]) -> Brought | None:
        """Return blocks of a large object; they are valid until this thread's next call. None if it failed."""
        if self._asker is not None and asks:
            download = Download(ref, run)
            had = self._asker.bring(download, Route(tuple(asks), False, None), self._share)
            if had and has_digest(ref, download.data):
                return Brought(download.data, download.crcs)
        data = self._ask_origin(ref, partial(read_run, self._origins, ref, run))
        if data is None:
            return None
        self._count_origin(1, memoryview(data).nbytes)
        return Brought(data, None)

    def _from_worker(self, ask: Ask, refs: Sequence[ObjectRef]) -> list[Brought | None]:
        assert self._asker is not None
        answers = self._asker.ask_ranges(ask, [Location(ref, 0, ref.size) for ref in refs], self._share)
        return [
            Brought(one.data, [one.crc])
            if one is not None and one.error is None and has_digest(ref, one.data)
            else None
            for ref, one in zip(refs, answers, strict=True)
        ]

    def _ask_origin(self, ref: ObjectRef, read: Callable[[], Buffer]) -> Buffer | None:
        if self.outages.reason(ref) is not None:
            return None
        try:
            data = read()
        except (SourceError, CacheError) as error:
            self.outages.note_failure(ref, error)
            self._tally.fail(ref, str(error), kind=error.kind)
            return None
        self.outages.note_success(ref)
        return data

    def _count_origin(self, reads: int, nbytes: int) -> None:
        self._stats.reads_origin += reads
        self._stats.bytes_origin += nbytes
