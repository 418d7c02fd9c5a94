"""Waits of the event loop's thread for the disk, which nothing but the kernel sees."""

from __future__ import annotations

import resource
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CAUTIOUS_SECONDS = 1.0


class DiskWaits:
    """Say whether what seemed to be in memory was not, a moment ago; used by the event loop's thread only."""

    def __init__(self) -> None:
        self._cautious_until = 0.0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the block, in which something is given to the kernel from a mapping."""
        before = _count()
        try:
            yield
        finally:
            if _count() != before:
                self._cautious_until = time.monotonic() + _CAUTIOUS_SECONDS

    @property
    def lately(self) -> bool:
        """Whether to leave the disk to threads now."""
        return time.monotonic() < self._cautious_until


def _count() -> int:
    """Return how often this thread waited for a page of a mapping to be read."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
