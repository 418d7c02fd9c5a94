"""How long a training loop waits for its data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class StallReport:
    """What a `StallMeter` saw.

    Attributes:
        batches: Batches delivered.
        samples: Samples delivered.
        wait_seconds: Time inside `next()`: waiting for the first batch and the start of workers included.
        total_seconds: From the first `next()` of an iteration to its end, summed over iterations.
    """

    batches: int
    samples: int
    wait_seconds: float
    total_seconds: float

    @property
    def stall_percent(self) -> float:
        """Share of all time that was spent waiting, 0 to 100."""
        return 100.0 * self.wait_seconds / self.total_seconds if self.total_seconds else 0.0

    @property
    def samples_per_second(self) -> float:
        """Samples delivered per second of all time."""
        return self.samples / self.total_seconds if self.total_seconds else 0.0


class StallMeter(Generic[Batch]):
    """Iterates over a loader and measures how long each `next()` takes against the whole loop.

        meter = StallMeter(loader)
        for batch in meter:
            train(batch)
        print(meter.report().stall_percent)

    On a GPU a step returns before it is done: the waiting that is reported is that of this process.

    Args:
        loader: Anything that yields batches; it may be iterated several times.
        count: Samples in a batch; see `batch_length`.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        *,
        count: Callable[[Batch], int] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loader = loader
        self._count = count or batch_length
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self._batches = 0
        self._samples = 0
        self._wait = 0.0
        self._total = 0.0

    def report(self) -> StallReport:
        """Return what was measured since the last `reset`; the running step is not in it."""
        return StallReport(self._batches, self._samples, self._wait, self._total)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the loader's batches."""
        asked = self._clock()
        for batch in self._loader:
            got = self._clock()
            self._wait += got - asked
            self._total += got - asked
            self._batches += 1
            self._samples += self._count(batch)
            yield batch
            asked = self._clock()
            self._total += asked - got
        ended = self._clock()
        self._wait += ended - asked
        self._total += ended - asked


def batch_length(batch: Any) -> int:
    """Return the number of samples in a batch as DataLoaders make them.

    A dict or a tuple of columns has the length of its first column; a list of samples (dicts) is as long as it is.
    """
    if isinstance(batch, dict):
        return batch_length(next(iter(batch.values()))) if batch else 0
    if isinstance(batch, (tuple, list)) and batch and hasattr(batch[0], "shape"):
        return len(batch[0])
    return len(batch)
