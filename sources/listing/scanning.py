"""`scan`: list whatever a store can list, as fast as it can, in order."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from sources.errors import SourceConfigError
from sources.listing.crew import Crew, Guard
from sources.listing.directories import Directories
from sources.listing.keys import OrderBroken, restart_point, without
from sources.listing.ranges import KeyRanges
from sources.listing.reader import OrderedReader
from sources.listing.segments import Directory, KeyRange, Plan, Segment, Stored
from sources.stores import ListDirectories, ListPages, batch_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from sources.listing.journal import Journal
    from sources.locations import ObjectStat
    from sources.stores import ListObjects

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_BATCH_ROWS = 1000
_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """How far a listing is.

    Attributes:
        keys: Keys handed out, those from a journal included.
        seconds: Since the start.
    """

    keys: int
    seconds: float

    @property
    def keys_per_second(self) -> float:
        """The rate since the start."""
        return self.keys / self.seconds if self.seconds > 0 else 0.0


def call(request: Callable[[], _T]) -> _T:
    """Run a request once: the guard that does not try again."""
    return request()


def scan(
    store: ListObjects,
    prefix: str,
    *,
    journal: Path | None = None,
    concurrency: int = 16,
    guard: Guard = call,
    on_progress: Callable[[ScanProgress], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """List every object below a prefix, many requests at a time.

    Streams: at most 512 pages or 64 MiB are held ahead of the reader. Each key comes once. Keys come in byte order,
    whatever the threads did; a server of a flat key space that turns out not to keep byte order is listed serially from
    there on, in its own order, and so is a store that can neither start after a key nor list a directory.

    Objects created or deleted meanwhile are listed or not, as in any listing.

    Args:
        store: What to list; `ListPages` or `ListDirectories` are used where it has them.
        prefix: What keys start with; a directory ends in "/".
        journal: A file that records the listing: if it is interrupted, the next scan with the same file gives all
            batches again but asks the store only for what is missing. The file stays, and a complete one is replayed
            without any request: delete it, with all files whose names begin as its own (SQLite's), once the listing has
            been used. A store that can neither go on after a key nor list a directory keeps none.
        concurrency: The most requests at a time.
        guard: Runs each request; it may call it again after an error.
        on_progress: Called now and then, at most ten times a second, by the thread that iterates; and at the end.

    Raises:
        SourceConfigError: If `concurrency` is below 1; on the first batch, if the journal is of another listing, in use
            or damaged, or if there is one and the store cannot go on after a key.
        SourceNotFoundError: If the bucket or the directory is not there.
        SourceError: What the guard lets through; the other requests are given up.
    """
    if concurrency < 1:
        raise SourceConfigError(f"concurrency is the most requests at a time, at least 1; found {concurrency}")
    batches = _batches(store, prefix, journal=journal, concurrency=concurrency, guard=guard)
    return batches if on_progress is None else _counted(batches, on_progress)


def _batches(
    store: ListObjects, prefix: str, *, journal: Path | None, concurrency: int, guard: Guard
) -> Iterator[pa.RecordBatch]:
    if not isinstance(store, ListPages | ListDirectories):
        if journal is not None:
            _log.info("%s cannot list from a key on: an interrupted listing of it begins anew", store.id)
        yield from _plainly(store, prefix, guard)
    elif journal is None:
        yield from _in_parallel(store, prefix, journal=None, concurrency=concurrency, guard=guard)
    else:
        from sources.listing.journal import Journal  # it brings SQLite, and most listings keep none

        with closing(Journal(journal, store=store.id, prefix=prefix)) as record:
            yield from _in_parallel(store, prefix, journal=record, concurrency=concurrency, guard=guard)


def _in_parallel(
    store: ListPages | ListDirectories, prefix: str, *, journal: Journal | None, concurrency: int, guard: Guard
) -> Iterator[pa.RecordBatch]:
    is_flat = isinstance(store, ListPages)
    plan = Plan(_segments(prefix, is_flat=is_flat, journal=journal))
    if isinstance(store, ListPages):
        ranges = KeyRanges(store, prefix, plan=plan, journal=journal, concurrency=concurrency)
        if journal is not None and journal.is_serial:
            yield from journal.batches(b"", None)
            for segment in journal.pending_ranges():
                yield from _serially(ranges, segment, journal, guard)
            return
        crew = Crew(plan, ranges, guard=guard, journal=journal, concurrency=concurrency)
        reader = OrderedReader(crew, seams=journal.seams() if journal else [], least_rows=_BATCH_ROWS)
        try:
            yield from reader.batches(lambda seam: guard(partial(ranges.is_broken_at, seam)))
        except OrderBroken:
            segment = KeyRange(after=reader.after, taken=reader.taken, last=reader.last)
            if journal is not None:
                journal.turn_serial(segment)
            yield from _serially(ranges, segment, journal, guard)
    else:
        directories = Directories(store, prefix, plan=plan, journal=journal)
        crew = Crew(plan, directories, guard=guard, journal=journal, concurrency=concurrency)
        yield from OrderedReader(crew, seams=[], least_rows=_BATCH_ROWS).batches(None)


def _segments(prefix: str, *, is_flat: bool, journal: Journal | None) -> list[Segment]:
    """Start from the top, or with what the journal says is done and left."""
    if journal is None or journal.is_new:
        first = KeyRange() if is_flat else Directory(key=prefix[: prefix.rfind("/") + 1])
        if journal is not None:
            journal.start(first)
        return [first]
    segments: list[Segment] = []
    low = b""
    for segment in journal.pending_ranges() if is_flat else journal.pending_directories():
        start = segment.last if isinstance(segment, KeyRange) else segment.key
        segments += [Stored(low=low, high=start.encode()), segment]
        if isinstance(segment, Directory):
            low = segment.key.encode() + b"\xff"  # behind all that is in it
        elif segment.until is not None:
            low = segment.until.encode()
        else:
            return segments
    return [*segments, Stored(low=low, high=None)]


def _serially(ranges: KeyRanges, segment: KeyRange, journal: Journal | None, guard: Guard) -> Iterator[pa.RecordBatch]:
    """List from a position to the end in the server's order, whatever that is."""
    try:
        while (batch := guard(partial(ranges.fetch, segment))) is not None:
            rows = without(batch, segment.skip) if segment.skip else batch
            if not rows.num_rows:
                continue
            segment.skip = ()
            segment.after, segment.taken = restart_point(rows.column("key"), segment.after, segment.taken)
            if journal is not None:
                journal.add_arrival(journal.pack(rows))
                journal.put_range(segment)
                journal.settle()
            yield rows
        if journal is not None:
            journal.drop_range(segment)
    finally:
        ranges.release(segment)


def _plainly(store: ListObjects, prefix: str, guard: Guard) -> Iterator[pa.RecordBatch]:
    """List what only has `list()`: it cannot go on after an error, so only the start is tried again."""

    def start() -> tuple[Iterator[ObjectStat], list[ObjectStat]]:
        stats = iter(store.list(prefix))
        return stats, list(islice(stats, _BATCH_ROWS))

    stats, rows = guard(start)
    while rows:
        yield batch_of(rows)
        rows = list(islice(stats, _BATCH_ROWS))


def _counted(
    batches: Iterator[pa.RecordBatch], on_progress: Callable[[ScanProgress], None]
) -> Iterator[pa.RecordBatch]:
    start = told = time.monotonic()
    keys = 0
    for batch in batches:
        keys += batch.num_rows
        now = time.monotonic()
        if now - told >= _PROGRESS_SECONDS:
            told = now
            on_progress(ScanProgress(keys, now - start))
        yield batch
    on_progress(ScanProgress(keys, time.monotonic() - start))
