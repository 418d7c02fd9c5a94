"""What a loader did, and how long each stage of it took."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loaders.stall import StallReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loaders.running.making import Span

_PER_DOUBLING = 4  # buckets: a percentile is off by a tenth at most
_LEAST_SECONDS = 1e-7
_BUCKETS = 4 * 37  # up to 10,000 s


@dataclass(frozen=True, slots=True)
class StageStats:
    """How long one stage took.

    Attributes:
        count: How often: once for each part of a batch; `collate` and `wait` once for each batch.
        seconds: In all, summed over threads and processes.
        cpu_seconds: Of the processor.
        p50_seconds: The median, to about a tenth.
        p99_seconds: Only one in a hundred took longer.
    """

    count: int
    seconds: float
    cpu_seconds: float
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True)
class LoaderStats(StallReport):
    """What a `Loader` did since it was made, or since `reset_stats`: what a `StallMeter` reports, and more.

    Attributes:
        queue_fill: Batches that waited when one was asked for, on average; near 0 the loop waits for data.
        bytes_local: Read from this node's cache; None where the data set does not count, or other processes read.
        bytes_peer: From other nodes; the same.
        bytes_origin: From where the data comes from; the same.
        skipped: Bad samples that were left out.
        replaced: Bad samples in whose place another was delivered.
        quarantined: The bad samples' numbers.
        restarts: Worker processes that were started in the place of dead ones.
        stages: Of `read`, `decode`, `collate`, `wait` (and `load`: the first two where they cannot be told apart).
    """

    queue_fill: float
    bytes_local: int | None
    bytes_peer: int | None
    bytes_origin: int | None
    skipped: int
    replaced: int
    quarantined: tuple[int, ...]
    restarts: int
    stages: dict[str, StageStats]


class Histogram:
    """Durations in buckets of equal ratio: constant memory, however many."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, dtype=np.int64)
        self.count = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def add(self, seconds: float, cpu: float) -> None:
        """Count one."""
        place = int(math.log2(max(seconds, _LEAST_SECONDS) / _LEAST_SECONDS) * _PER_DOUBLING)
        self._counts[min(place, _BUCKETS - 1)] += 1
        self.count += 1
        self.seconds += seconds
        self.cpu_seconds += cpu

    def percentile(self, share: float) -> float:
        """Return the duration below which so large a share of them is, seconds."""
        if not self.count:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), share * self.count))
        return float(_LEAST_SECONDS * 2 ** ((place + 0.5) / _PER_DOUBLING))

    def stats(self) -> StageStats:
        """Return them."""
        return StageStats(self.count, self.seconds, self.cpu_seconds, self.percentile(0.5), self.percentile(0.99))


@dataclass(slots=True)
class Recorder:
    """Adds up what happens, in the thread of the loop.

    Attributes:
        clock: Seconds, monotonic.
        batches: As in `LoaderStats`, with the next ones.
        listener: Gets every span, for a trace.
    """

    clock: Callable[[], float] = time.perf_counter
    batches: int = 0
    samples: int = 0
    wait: float = 0.0
    total: float = 0.0
    fill: int = 0
    listener: Callable[[Iterable[Span]], None] | None = None
    stages: dict[str, Histogram] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def delivered(self, samples: int, *, waited: Span, fill: int, spans: Iterable[Span]) -> None:
        """Count one batch."""
        with self._lock:
            self.batches += 1
            self.samples += samples
            self.fill += fill
            self.wait += waited.seconds
            for span in (*spans, waited):
                found = self.stages.get(span.stage)
                if found is None:
                    found = self.stages[span.stage] = Histogram()
                found.add(span.seconds, span.cpu)
        if self.listener is not None:
            self.listener((*spans, waited))

    def seconds_of(self, stage: str) -> tuple[float, float]:
        """Return seconds and processor seconds of one stage."""
        found = self.stages.get(stage)
        return (found.seconds, found.cpu_seconds) if found else (0.0, 0.0)

    def stages_now(self) -> dict[str, StageStats]:
        """Return all stages, by name."""
        with self._lock:
            return {name: self.stages[name].stats() for name in sorted(self.stages)}


def bytes_read(dataset: Any) -> tuple[int, int, int] | None:
    """Return the bytes that this process read from the cache, peers and the origin, if the data set counts them."""
    stats = getattr(dataset, "stats", None)
    try:
        found = stats() if stats is not None else None
    except TypeError:  # its records are not read through a cache
        return None
    if found is None or not hasattr(found, "bytes_origin"):
        return None
    return found.bytes_local, getattr(found, "bytes_peer", 0), found.bytes_origin
