"""What a load has done so far: counted by its threads, told by the one that called it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from cache_runtime.loading.pieces import is_small, piece_bytes
from cache_runtime.loading.progress import LoadFailure, LoadProgress, LoadReport, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cache_runtime.loading.losses import Losses
    from cache_runtime.loading.pieces import Piece
    from cache_runtime.loading.plan import LoadPlan
    from cache_runtime.loading.progress import LoadStop
    from cache_runtime.loading.room import Room
    from sources import ObjectRef

TELL_SECONDS = 0.1
MAX_FAILURES = 10_000
_COUNTS = ("done_bytes", "done_objects", "fetched_bytes", "peer_bytes")


class Tally:
    """Counters of one load, for any number of threads; `tell` is for one.

    Args:
        plan: What is to be done.
        on_progress: Called by `tell`, at most ten times a second.

    Attributes:
        fetched_objects, fetched_bytes: So far.
        peer_bytes: Of these, from other workers.
        failures: By object id, of those that failed on their own, at most 10,000.
    """

    def __init__(self, plan: LoadPlan, on_progress: Callable[[LoadProgress], None] | None) -> None:
        self._plan = plan
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._left: Counter[bytes] = Counter()
        self._pace = Pace()
        self._start = self._told = time.monotonic()
        self._done_objects = self._done_bytes = 0
        self.fetched_objects = self.fetched_bytes = self.peer_bytes = 0
        self.failures: dict[bytes, LoadFailure] = {}
        self._sources: dict[str, dict[str, int]] = {}
        self._pace.rate(0.0, 0)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def expect(self, ref: ObjectRef, pieces: int) -> None:
        """Note how many pieces of a large object are going to be fetched; it is done with the last of them."""
        with self._lock:
            self._left[ref.id] += pieces

    def add(self, pieces: Sequence[Piece], *, fetched: bool = True, from_peers: int = 0) -> None:
        """Count pieces that are there now.

        Args:
            pieces: Whole ones.
            fetched: By this load; others may have brought them meanwhile.
            from_peers: How many of their bytes came from other workers.
        """
        total = sum(map(piece_bytes, pieces))
        with self._lock:
            objects = sum(map(self._completes, pieces))
            self._done_bytes += total
            self._done_objects += objects
            if fetched:
                self.fetched_bytes += total
                self.fetched_objects += objects
                self.peer_bytes += from_peers

    def _completes(self, piece: Piece) -> bool:
        object_id = piece[0].id
        if is_small(piece[0]):
            return True
        self._left[object_id] -= 1
        if self._left[object_id] > 0:
            return False
        del self._left[object_id]
        return True

    def fail(self, ref: ObjectRef, reason: str, *, kind: str = "lost") -> None:
        """Note why an object failed; the first reason stays."""
        with self._lock:
            if len(self.failures) < MAX_FAILURES:
                self.failures.setdefault(ref.id, LoadFailure(ref.uri, reason, kind))

    def tell(self, *, last: bool = False) -> None:
        """Tell the progress, unless it was told just now."""
        now = time.monotonic()
        if self._on_progress is None or (now - self._told < TELL_SECONDS and not last):
            return
        self._told = now
        plan = self._plan
        with self._lock:
            seconds, fetched = now - self._start, self.fetched_bytes
            progress = LoadProgress(
                bytes_done=min(plan.total_bytes, plan.present_bytes + self._done_bytes),
                bytes_total=plan.total_bytes,
                objects_done=min(plan.total_objects, plan.present_objects + self._done_objects),
                objects_total=plan.total_objects,
                failed_objects=len(self.failures),
                seconds=seconds,
                fetched_bytes=fetched,
                bytes_per_second=self._pace.rate(seconds, fetched),
            )
        self._on_progress(progress)

    def note(self, source: str, counts: Mapping[str, int]) -> None:
        """Replace what a worker's load counted so far by what it counts now."""
        with self._lock:
            before = self._sources.get(source, {})
            self._sources[source] = dict(counts)
            gained = {name: counts.get(name, 0) - before.get(name, 0) for name in _COUNTS}
            self._done_bytes += gained["done_bytes"]
            self._done_objects += gained["done_objects"]
            self.fetched_bytes += gained["fetched_bytes"]
            self.fetched_objects += gained["done_objects"]
            self.peer_bytes += gained["peer_bytes"]

    def report(self, losses: Losses, rooms: Collection[Room], stopped: LoadStop | None) -> LoadReport:
        """Tell the last progress, and sum up."""
        self.tell(last=True)
        return LoadReport(
            total_objects=self._plan.total_objects,
            total_bytes=self._plan.total_bytes,
            # workers count each their part of an object
            fetched_objects=min(self.fetched_objects, self._plan.total_objects),
            fetched_bytes=self.fetched_bytes,
            left_out_objects=sum(map(len, rooms)),
            left_out_bytes=sum(room.left_out_bytes for room in rooms),
            failed_objects=losses.objects,
            failures=tuple(losses.failures),
            seconds=self.seconds,
            stopped=stopped if losses.objects else None,
            origin_bytes=self.fetched_bytes - self.peer_bytes,
            peer_bytes=self.peer_bytes,
        )
