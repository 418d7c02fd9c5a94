"""What the bytes of a mount came from, counted cheaply enough to count all of it."""

from __future__ import annotations

import threading
from bisect import bisect_left

BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)
"""Upper ends of the classes of waiting times, milliseconds; one class more is open."""


class Counters:
    """Counts of one mount, for any number of threads; a number that two of them count at once may lose one.

    Attributes:
        opens_cached: Files opened whose reads come here, unless the kernel has their pages.
        opens_passthrough: Files opened that the kernel reads by itself.
        reads_at_once: Reads that were answered from this node's store without waiting.
        bytes_at_once: Theirs.
        reads_waited: Reads whose bytes were fetched, or checked for the first time.
        bytes_waited: Theirs.
        reads_failed: Reads answered with an error, each logged or counted in a log line.
        interrupted: Requests whose caller did not want to wait any more.
        timed_out: Requests that were given up.
        switches: Times that a file was given its other id, so that new opens read it another way.
        ahead_bytes: Fetched because a file was read from front to back.
        walk_files: Announced because files were read in their order.
        walk_bytes: Of these, what was not here.
        walk_failures: Announcements whose fetch failed; the reads tell why.
    """

    def __init__(self) -> None:
        self.opens_cached = self.opens_passthrough = 0
        self.reads_at_once = self.bytes_at_once = 0
        self.reads_waited = self.bytes_waited = 0
        self.reads_failed = self.interrupted = self.timed_out = 0
        self.switches = 0
        self.ahead_bytes = 0
        self.walk_files = self.walk_bytes = self.walk_failures = 0
        self._lock = threading.Lock()
        self._classes = [0] * (len(BOUNDS_MS) + 1)
        self._seconds = self._longest = 0.0

    def waited(self, size: int, seconds: float) -> None:
        """Count a read that was answered later."""
        with self._lock:
            self.reads_waited += 1
            self.bytes_waited += size
            self._classes[bisect_left(BOUNDS_MS, 1_000 * seconds)] += 1
            self._seconds += seconds
            self._longest = max(self._longest, seconds)

    def as_dict(self) -> dict[str, object]:
        """Return all counts; `waits` has those of each class of `BOUNDS_MS`."""
        with self._lock:
            counts: dict[str, object] = {name: value for name, value in vars(self).items() if name[0] != "_"}
            counts["waits"] = list(self._classes)
            counts["waits_bounds_ms"] = list(BOUNDS_MS)
            counts["waited_seconds"] = round(self._seconds, 6)
            counts["longest_wait_seconds"] = round(self._longest, 6)
            return counts
