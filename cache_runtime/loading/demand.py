"""Whether somebody waits for bytes that are not here: loads let such reads go first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_runtime.stats import ReadStats

_RECENT_SECONDS = 0.05
_COUNTERS = (
    "miss_never_cached", "miss_evicted", "miss_not_admitted", "miss_corrupt", "miss_store_off"
)  # fmt: skip


class DemandWatch:
    """Tells from a process's counters whether reads missed within the last 50 ms; loads themselves count no misses."""

    def __init__(self, stats: ReadStats) -> None:
        self._stats = stats
        self._seen = self._count()
        self._busy_until = 0.0

    def __call__(self) -> bool:
        """Say so."""
        now, count = time.monotonic(), self._count()
        if count != self._seen:
            self._seen = count
            self._busy_until = now + _RECENT_SECONDS
        return now < self._busy_until

    def _count(self) -> int:
        return sum(getattr(self._stats, name) for name in _COUNTERS)
