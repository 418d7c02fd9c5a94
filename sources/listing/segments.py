"""What is listed, being listed and to be listed, in the order of keys."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from sources.listing.journal import Journal

WINDOW_BATCHES = 512
WINDOW_BYTES = 64 << 20
_FEW_ROWS = 64
_ROW_BYTES = 200


class State(Enum):
    """What a segment needs."""

    WAITING = "a worker"
    RUNNING = "nothing, a worker has it"
    DONE = "to be handed out"


class Seam(NamedTuple):
    """Where one range ended and the next begins, and what was seen there.

    Attributes:
        cut: Last key that belongs to the first range.
        stop: The first key behind it that the first range's listing gave: the next range has to give it too.
        before: A key from which a listing gives `stop`.
    """

    cut: str
    stop: str
    before: str


@dataclass(slots=True, eq=False, kw_only=True)
class Segment:
    """A stretch of the result; its batches wait here until all before it are handed out.

    Attributes:
        state: What it needs.
        ready: Batches to hand out, in order.
        number: Names it in the journal.
    """

    state: State = State.WAITING
    ready: deque[pa.RecordBatch] = field(default_factory=deque)
    number: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Stored(Segment):
    """Batches that the journal holds, from the place `low` (excluded) to `high` (included, None: to the end).

    Attributes:
        reader: Reads them as they are handed out.
    """

    low: bytes
    high: bytes | None
    state: State = State.DONE
    reader: Iterator[pa.RecordBatch] | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class KeyRange(Segment):
    """The keys in (after, until], listed page by page.

    Attributes:
        until: Last key that belongs to it; None for the end of the listing.
        after: Where a new listing goes on.
        taken: Keys behind `after` that are taken already.
        last: Last key taken; before the first, the key it starts after.
        pages: The listing under way.
        skip: Keys that the listing under way gives again.
        level: How many times its range was halved.
        taken_pages: Batches taken since it was last split.
        total_pages: Batches taken at all.
        most_rows: Rows of its largest page.
        is_full: Whether its last page was no short one, such as the last page of a listing is.
        failures: Splits of it that were not worth a request.
        parent: What it was split off.
        seam: What came behind `until`, once it is done.
    """

    after: str = ""
    until: str | None = None
    taken: tuple[str, ...] = ()
    last: str = ""
    pages: Iterator[pa.RecordBatch] | None = None
    skip: tuple[str, ...] = ()
    level: int = 0
    taken_pages: int = 0
    total_pages: int = 0
    most_rows: int = 0
    is_full: bool = False
    failures: int = 0
    parent: KeyRange | None = None
    seam: Seam | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Directory(Segment):
    """One directory that is to be scanned."""

    key: str


@dataclass(slots=True, eq=False, kw_only=True)
class Siblings(Segment):
    """What a directory holds and is not taken apart yet: files from `offset`, directories from `index`.

    Taken apart only as workers ask for more, so that a million directories are a million strings and nothing else.
    """

    files: pa.RecordBatch
    offset: int
    directories: list[str]
    numbers: int
    index: int = 0


def _size(batch: pa.RecordBatch) -> int:
    """Return the bytes of a batch, roughly if it is small: to sum them up takes as long as to scan a directory."""
    return batch.nbytes if batch.num_rows > _FEW_ROWS else batch.num_rows * _ROW_BYTES


class Plan:
    """All segments in order, and how much of the look-ahead they use.

    Attributes:
        rows: How many wait to be handed out.
    """

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = deque(segments)  # changed near its front, and as long as there are directories to resume
        self.rows = 0
        self._batches = 0
        self._bytes = 0

    @property
    def room(self) -> float:
        """How much of the look-ahead is free: 1 is all of it, 0 or less nothing."""
        return 1 - max(self._batches / WINDOW_BATCHES, self._bytes / WINDOW_BYTES)

    def is_awaited(self, segment: Segment) -> bool:
        """Say whether the reader can get nothing before this segment gives something: then it must not wait."""
        return segment is self.segments[0] and not segment.ready

    def rank(self, segment: Segment) -> int:
        """Count the unfinished segments before one."""
        before = itertools.takewhile(lambda other: other is not segment, self.segments)
        return sum(other.state is not State.DONE for other in before)

    def put(self, segment: Segment, batch: pa.RecordBatch) -> None:
        """Add to the end of a segment."""
        if batch.num_rows:
            segment.ready.append(batch)
            self.rows += batch.num_rows
            self._batches += 1
            self._bytes += _size(batch)

    def take(self, segment: Segment) -> pa.RecordBatch:
        """Remove the first batch of a segment."""
        batch = segment.ready.popleft()
        self.rows -= batch.num_rows
        self._batches -= 1
        self._bytes -= _size(batch)
        return batch

    def read(self, segment: Segment, journal: Journal | None) -> pa.RecordBatch | None:
        """Read the next batch of a stored segment; None at its end, and of every other segment."""
        if not isinstance(segment, Stored) or journal is None:
            return None
        if segment.reader is None:
            segment.reader = journal.batches(segment.low, segment.high)
        return next(segment.reader, None)

    def insert_behind(self, segment: Segment, new: Segment) -> None:
        """Put a segment behind another."""
        self.segments.insert(self.segments.index(segment) + 1, new)
