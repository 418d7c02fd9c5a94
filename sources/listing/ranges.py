"""Flat key spaces: ranges of keys, listed page by page, split where workers are idle."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sources.listing.keys import check_ascending, position_after, restart_point, without
from sources.listing.segments import WINDOW_BATCHES, KeyRange, Plan, Seam, Segment, State
from sources.listing.splitting import Alphabet, split_key

if TYPE_CHECKING:
    import pyarrow as pa

    from sources.listing.journal import Journal
    from sources.stores import ListPages

_SAMPLES = 6  # keys of a batch that are looked at one by one
_LEAST_PAGES = 2  # that any segment may hold ahead of its turn
_HALF = 0.5
_EMPTY_TRIES = 8  # splits with nothing behind the cut: each narrows the range, so they are not failures at once
_MOST_FAILURES = 6


class KeyRanges:
    """Lists `KeyRange` segments of one plan. Only `fetch` and `examine` run outside the crew's lock."""

    def __init__(self, store: ListPages, prefix: str, *, plan: Plan, journal: Journal | None, concurrency: int) -> None:
        self._store = store
        self._prefix = prefix
        self._plan = plan
        self._journal = journal
        self._concurrency = concurrency
        self._alphabet = Alphabet()
        self._splits = 0

    def fetch(self, segment: Segment) -> pa.RecordBatch | None:
        """Get the next page; None at the end. A listing that broke is opened again where it stopped."""
        assert isinstance(segment, KeyRange)
        if segment.pages is None:
            segment.pages = iter(self._store.pages(self._prefix, after=segment.after))
            segment.skip = segment.taken
        pages = segment.pages
        segment.pages = None  # an iterator that raised is at its end, and would look like a complete listing
        batch = next(pages, None)
        segment.pages = pages
        return batch

    def examine(self, segment: Segment, batch: pa.RecordBatch | None) -> tuple[pa.RecordBatch | None, bytes]:
        """Check the order of a page and pack it for the journal.

        Raises:
            OrderBroken: If a key does not come after the one before it.
        """
        assert isinstance(segment, KeyRange)
        if batch is None:
            return None, b""
        if segment.skip and batch.num_rows:
            batch = without(batch, segment.skip)
            segment.skip = () if batch.num_rows else segment.skip
        if batch.num_rows:
            check_ascending(batch.column("key"), segment.last)
        return batch, self._journal.pack(batch) if self._journal else b""

    def apply(self, segment: Segment, page: tuple[pa.RecordBatch | None, bytes]) -> bool:
        """Take a page, up to the end of the segment; say whether the worker goes on with it."""
        assert isinstance(segment, KeyRange)
        batch, packed = page
        if batch is None:
            self._finish(segment, stop=None)
            return False
        if not batch.num_rows:
            return True
        segment.most_rows = max(segment.most_rows, batch.num_rows)
        segment.is_full = 2 * batch.num_rows > segment.most_rows
        keys = batch.column("key")
        stop = None
        if segment.until is not None and str(keys[-1].as_py()) > segment.until:
            count = position_after(keys, segment.until)
            stop = keys[count].as_py()
            batch = batch.slice(0, count)
            packed = self._journal.pack(batch) if self._journal and count else b""
        if batch.num_rows:
            self._take(segment, batch, packed)
        if stop is not None:
            self._finish(segment, stop=stop)
            return False
        if self._may_run(segment):
            return True
        segment.state = State.WAITING
        return False

    def find(self) -> Segment | None:
        """Give an idle worker the earliest segment that waits, or else a part of one that runs."""
        for segment in self._plan.segments:
            if segment.state is State.WAITING and isinstance(segment, KeyRange) and self._may_run(segment):
                segment.state = State.RUNNING
                return segment
        return self._split()

    def is_broken_at(self, seam: Seam) -> bool:
        """Look whether a key that should have begun a range is there but not listed by it (two requests).

        Not if it was created or deleted meanwhile, which is the usual reason.
        """
        return self._gives(seam.before, seam.stop) and not self._gives(seam.cut, seam.stop)

    def _gives(self, after: str, key: str) -> bool:
        for page in self._store.pages(self._prefix, after=after):
            keys = [str(found) for found in page.column("key").to_pylist()]
            if key in keys:
                return True
            if any(found > key for found in keys):
                return False
        return False

    def release(self, segment: Segment) -> None:
        """Close the listing under way."""
        if isinstance(segment, KeyRange) and segment.pages is not None:
            close = getattr(segment.pages, "close", None)
            if close is not None:
                with suppress(ValueError):  # a worker that did not end in time is still inside the generator
                    close()
            segment.pages = None

    def _may_run(self, segment: KeyRange) -> bool:
        """Bound what segments hold ahead: the less the fuller the window and the further from the head."""
        room = self._plan.room
        share = max(_LEAST_PAGES, int(room * WINDOW_BATCHES) // (2 * self._plan.rank(segment) + 2))
        return self._plan.is_awaited(segment) or (room > 0 and len(segment.ready) < share)

    def _take(self, segment: KeyRange, batch: pa.RecordBatch, packed: bytes) -> None:
        keys = batch.column("key")
        step = max(1, len(keys) // _SAMPLES)
        sample: list[str] = [
            keys[0].as_py(),
            *(keys[at].as_py() for at in range(step, len(keys) - 1, step)),
            keys[-1].as_py(),
        ]
        self._alphabet.add(sample)
        segment.last = sample[-1]
        segment.after, segment.taken = restart_point(keys, segment.after, segment.taken)
        segment.taken_pages += 1
        segment.total_pages += 1
        self._plan.put(segment, batch)
        if self._journal:
            self._journal.add_batch(sample[0], packed)
            self._journal.put_range(segment)

    def _finish(self, segment: KeyRange, *, stop: str | None) -> None:
        self.release(segment)
        segment.state = State.DONE
        parent = segment.parent
        if parent is not None and segment.total_pages <= 2:
            parent.failures += 1 if segment.total_pages or parent.failures >= _EMPTY_TRIES else 0
            parent.level -= 0 if segment.total_pages else 1
        if stop is not None and segment.until is not None:
            segment.seam = Seam(segment.until, stop, segment.after)
        if self._journal:
            self._journal.drop_range(segment)

    def _split(self) -> KeyRange | None:
        for victim in self._victims():
            cut = split_key(victim.last, victim.until, prefix=self._prefix, alphabet=self._alphabet)
            if cut is not None:
                return self._split_at(victim, cut)
            victim.failures = _MOST_FAILURES
        return None

    def _victims(self) -> list[KeyRange]:
        """Order what may be split: the largest first while there is room, and else what is needed first."""
        needed = 1 if 0 < self._splits < self._concurrency else 3
        ranges = [
            segment
            for segment in self._plan.segments
            if isinstance(segment, KeyRange)
            and segment.state is State.RUNNING
            and segment.taken_pages >= needed << min(segment.failures, _MOST_FAILURES)
            and segment.is_full
        ]
        if self._plan.room <= 0:
            return []
        return sorted(ranges, key=lambda segment: segment.level) if self._plan.room > _HALF else ranges

    def _split_at(self, victim: KeyRange, cut: str) -> KeyRange:
        upper = KeyRange(after=cut, last=cut, until=victim.until, parent=victim, state=State.RUNNING)
        victim.until = cut
        victim.level += 1
        upper.level = victim.level
        upper.failures = victim.failures
        victim.taken_pages = 0
        self._splits += 1
        self._plan.insert_behind(victim, upper)
        if self._journal:
            upper.number = self._journal.new_number()
            self._journal.put_range(victim)
            self._journal.put_range(upper)
        return upper
