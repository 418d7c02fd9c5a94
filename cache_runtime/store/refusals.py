"""What found no room: remembered for a while, so that a refusal costs next to nothing, and counted as the clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.ghosts import MissReason
from cache_runtime.store.shares import Fill, Grade, cycle_window_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache_runtime.store.index import Index
    from cache_runtime.store.tables import Tables
    from cache_runtime.store.visited import VisitedMap

_FULL_SECONDS = 5.0  # after a failed search for room, reads go straight to the origin for their exact range
_TICKS_PER_WINDOW = 4
_COUNTS_PER_TICK = 16
_FIRST_STEP_BYTES = 1 << 20


class _Full(NamedTuple):
    """How things were when no room was found."""

    generation: int
    mark: int
    used: int
    share_used: int
    until: float


class Refusals:
    """Which fills need not try, as far as this process knows.

    A fill that found no room will find none until something was evicted or uncharged, or until the clock went on by
    which it is told what was not read lately.

    Args:
        index: The index.
        visited: The visited map.
    """

    def __init__(self, index: Index, visited: VisitedMap) -> None:
        self._index = index
        self._visited = visited
        self._full: dict[tuple[int, Grade], _Full] = {}
        self._pending: dict[int, int] = {}  # bytes by share
        self._pending_bytes = 0
        self._step_bytes = _FIRST_STEP_BYTES

    def remember(self, fill: Fill) -> None:
        """Remember that there is no room for a fill."""
        self._full[fill.number, fill.grade] = self._look(fill)

    def holds(self, fill: Fill) -> bool:
        """Say whether there still is no room for a fill, as far as one can tell without looking for it.

        Raises:
            lmdb.Error: If the index cannot be read.
        """
        full = self._full.get((fill.number, fill.grade))
        if full is None:
            return False
        is_over = time.monotonic() >= full.until
        if full.generation == self._visited.words[0] and not is_over:
            return True
        now = self._look(fill)
        # what another process holds or pins may have been let go meanwhile: whoever may evict looks again
        may_evict = not fill.keeps and fill.grade != Grade.GUEST
        if now.used < full.used or now.share_used < full.share_used or now.mark != full.mark or (is_over and may_evict):
            self._full.pop((fill.number, fill.grade), None)
            return False
        self._full[fill.number, fill.grade] = now._replace(until=now.until if is_over else full.until)
        return True

    def forget(self) -> None:
        """Let all fills try again, because something was let go that is not seen by its bytes."""
        self._full.clear()

    def count(self, fill: Fill, object_ids: Iterable[bytes], size: int) -> None:
        """Count a refused fill: as a ghost of its objects, and by its bytes for the clock.

        Raises:
            CacheTimeoutError, lmdb.Error: If the clock cannot be set; some bytes are not counted then.
        """
        self._visited.ghosts.note(object_ids, MissReason.NOT_ADMITTED)
        if fill.keeps:
            self._pending_bytes += size
            self._pending[fill.number] = self._pending.get(fill.number, 0) + size
            if self._pending_bytes >= self._step_bytes:
                self._set_clock()

    def _set_clock(self) -> None:
        """Add what was refused; a quarter of the window makes a tick, after which old marks are older."""
        pending, self._pending, self._pending_bytes = self._pending, {}, 0

        def add(tables: Tables) -> tuple[int, int]:
            ticks = tables.counter(b"ticks")
            for number in pending:
                tables.mark_refused(number, ticks + 1)
            window = cycle_window_bytes(tables.share_rows().values(), ticks=ticks)
            refused = tables.counter(b"refused") + sum(pending.values())
            due = refused >= window // _TICKS_PER_WINDOW
            tables.set_counter(b"refused", 0 if due else refused)
            tables.set_counter(b"ticks", ticks + due)
            return window, ticks + 1 if due else 0

        window, ticks = self._index.change(add)
        self._step_bytes = max(1, window // (_TICKS_PER_WINDOW * _COUNTS_PER_TICK))
        if ticks:
            self._visited.tick(ticks)

    def _look(self, fill: Fill) -> _Full:
        generation, mark = self._visited.words[0], self._visited.now
        with self._index.reading() as tables:
            used, share_used = tables.counter(b"used"), tables.share_row(fill.number).used
        return _Full(generation, mark, used, share_used, time.monotonic() + _FULL_SECONDS)
