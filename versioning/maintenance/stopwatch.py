"""How long something took, with the time that the machine slept."""

from __future__ import annotations

import time


class Stopwatch:
    """Tells the seconds since it was made.

    The monotonic clock stands still while a machine sleeps, and the time of day may be set; what counts is the longer.
    So a laptop that wakes up knows that what it held has lapsed.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self) -> None:
        self._monotonic = time.monotonic()
        self._wall = time.time()

    def seconds(self) -> float:
        """Return the seconds since then."""
        return max(time.monotonic() - self._monotonic, time.time() - self._wall)
