"""One batch from its sample numbers: read, decoded, bad samples dealt with, collated. The same in every mode."""

from __future__ import annotations

import copy
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loaders.drawing import Drawn
from loaders.errors import BadSamplesError, RunningError
from loaders.running.policies import BadSample, ErrorPolicy, describe, key_of, peers_of, replacement
from loaders.running.slots import SlotPlan, plan_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from loaders.running.collating import Collate
    from loaders.running.leases import ArrayPool


class Samples(Protocol):
    """What a `Loader` reads from: map-style, with the batched read that DataLoader uses too."""

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Equal for the same samples in the same order only."""
        ...

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return these samples, in this order."""
        ...


class Task(NamedTuple):
    """One batch to make: which one, and of what."""

    epoch: int
    step: int
    numbers: list[int]

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.numbers[:8])) + (", ..." if len(self.numbers) > 8 else "")
        return f"epoch {self.epoch}, step {self.step} (samples {shown})"


class Span(NamedTuple):
    """A stage of the work, where and when: for statistics and traces.

    Attributes:
        stage: `read`, `decode`, `collate` or `wait`; `load` is reading and decoding where they cannot be told apart.
        start: `time.perf_counter()`, which all processes of a Linux machine share.
        seconds: How long.
        cpu: Seconds of the processor that the thread used.
        pid: Process.
        tid: Thread.
    """

    stage: str
    start: float
    seconds: float
    cpu: float
    pid: int
    tid: int


class Part(NamedTuple):
    """Some neighbouring samples of a batch: the place of each, the samples, the bad ones, and what it took."""

    places: list[int]
    samples: list[Any]
    bad: list[BadSample]
    spans: list[Span]


class Made(NamedTuple):
    """A batch, how many samples (`size`) are in it, which ones are bad, and what it took."""

    task: Task
    batch: Any
    size: int
    bad: list[BadSample]
    spans: list[Span]


class Draft(NamedTuple):
    """A batch that is being made.

    Attributes:
        task: Which.
        arrays: Of each field that is decoded in place, the array that it goes to, one row a sample.
    """

    task: Task
    arrays: dict[str, npt.NDArray[Any]]


class BatchMaker:
    """Makes batches; every result depends on the task alone. Threads may use one together, processes get a copy.

    Args:
        dataset: What the numbers index.
        collate: Makes a batch of a list of samples.
        policy: What to do about bad samples.
        seed: Of replacements and of decoders that draw.
        pool: Where arrays of whole batches come from, to be used again.
    """

    def __init__(self, dataset: Samples, collate: Collate, policy: ErrorPolicy, *, seed: int, pool: ArrayPool) -> None:
        self._dataset = dataset
        self._collate = collate
        self._policy = policy
        self._seed = seed
        self._pool = pool
        self._plan: SlotPlan = plan_slots(dataset, seed=seed)
        self._clock, self._reader = _timed(self._plan.dataset)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_dataset", "_collate", "_policy", "_seed", "_pool")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._plan = plan_slots(self._dataset, seed=self._seed)
        self._clock, self._reader = _timed(self._plan.dataset)

    @property
    def tells_reading(self) -> bool:
        """Whether reading and decoding can be told apart."""
        return self._clock is not None

    def begin(self, task: Task) -> Draft:
        """Make room for a batch."""
        rows = len(task.numbers)
        return Draft(
            task, {field: self._pool.empty((rows, *slot.shape), slot.dtype) for field, slot in self._plan.slots.items()}
        )

    def part(self, draft: Draft, start: int, stop: int) -> Part:
        """Read and decode samples [start, stop) of a batch.

        Raises:
            Exception: The first sample's that fails, named in a note, where the policy does not leave it out.
        """
        began, cpu = time.perf_counter(), time.thread_time()
        if self._clock is not None:
            self._clock.start()
        places = list(range(start, stop))
        bad: list[BadSample] = []
        try:
            samples = self._load(draft, places)
        except Exception as error:  # noqa: BLE001 - a decoder or transform may be anybody's: one by one it is told which
            places, samples, bad = self._one_by_one(draft, places, error)
        return Part(places, samples, bad, self._spans(began, cpu))

    def join(self, draft: Draft, parts: Sequence[Part]) -> Made:
        """Collate the parts of a batch, in their order.

        Raises:
            BadSamplesError: If none of its samples is left.
            CollateError: If they do not fit together.
        """
        places = [place for part in parts for place in part.places]
        samples = [sample for part in parts for sample in part.samples]
        bad = [one for part in parts for one in part.bad]
        if bad and not samples:
            raise BadSamplesError(
                f"all {len(bad)} samples of {draft.task} are bad, the first one: {bad[0].error};"
                ' look at them, or use on_error="replace"',
                count=len(bad),
                numbers=tuple(one.number for one in bad),
            )
        began, cpu = time.perf_counter(), time.thread_time()
        try:
            batch = self._plan.collate(self._collate, draft.arrays, places, samples)
        except Exception as error:
            error.add_note(f"while collating {draft.task}")
            raise
        spans = [span for part in parts for span in part.spans]
        spans.append(_span("collate", began, time.perf_counter() - began, time.thread_time() - cpu))
        return Made(draft.task, batch, len(samples), bad, spans)

    def make(self, task: Task) -> Made:
        """Make a whole batch in this thread."""
        draft = self.begin(task)
        return self.join(draft, [self.part(draft, 0, len(task.numbers))] if task.numbers else [])

    def _load(self, draft: Draft, places: list[int], numbers: list[int] | None = None) -> list[Any]:
        if numbers is None:
            numbers = [draft.task.numbers[place] for place in places]
        samples = self._reader.__getitems__(Drawn(numbers, self._seed, draft.task.epoch))
        if len(samples) != len(numbers):
            raise RunningError(
                f"{type(self._dataset).__name__} gave {len(samples)} samples of {len(numbers)} asked for"
            )
        return self._plan.fill(samples, draft.arrays, places, numbers, draft.task.epoch)

    def _one_by_one(
        self, draft: Draft, places: list[int], first: Exception
    ) -> tuple[list[int], list[Any], list[BadSample]]:
        good: list[int] = []
        samples: list[Any] = []
        bad: list[BadSample] = []
        for place in places:
            try:
                samples += self._load(draft, [place])
                good.append(place)
            except Exception as error:
                number = draft.task.numbers[place]
                error.add_note(f"sample {number} ({key_of(self._dataset, number)}), {draft.task}")
                if not self._policy.covers(error):
                    raise
                found, sample = self._instead(draft, place, error)
                bad += found
                if sample is not None:
                    samples += sample
                    good.append(place)
        if not bad and not self._policy.covers(first):
            first.add_note(f"in {draft.task}; each sample of it alone could be read")
            raise first
        return good, samples, bad

    def _instead(self, draft: Draft, place: int, error: Exception) -> tuple[list[BadSample], list[Any] | None]:
        """Return what is bad, and the sample that takes the place of the first one, if any does."""
        task, number = draft.task, draft.task.numbers[place]
        bad = [self._bad(task, place, number, error)]
        if self._policy.on_error == "skip":
            return bad, None
        peers = peers_of(self._dataset, number)
        for attempt in range(self._policy.attempts):
            other = peers[replacement(self._seed, task.epoch, number, attempt, size=len(peers))]
            try:
                sample = self._load(draft, [place], [other])
            except Exception as another:
                if not self._policy.covers(another):
                    another.add_note(f"sample {other}, instead of {number}, {task}")
                    raise
                bad.append(self._bad(task, place, other, another))
            else:
                bad[0] = bad[0]._replace(replaced_by=other)
                return bad, sample
        raise BadSamplesError(
            f"sample {number} of {task} is bad, and so are {self._policy.attempts} that were drawn to replace it;"
            f" the first one: {bad[0].error}; look at the data before going on",
            count=len(bad),
            numbers=tuple(one.number for one in bad),
        ) from error

    def _bad(self, task: Task, place: int, number: int, error: Exception) -> BadSample:
        key = key_of(self._dataset, number)
        return BadSample(number, key, task.epoch, task.step, place, type(error).__name__, describe(error))

    def _spans(self, began: float, cpu_began: float) -> list[Span]:
        seconds, cpu = time.perf_counter() - began, time.thread_time() - cpu_began
        if self._clock is None:
            return [_span("load", began, seconds, cpu)]
        read, read_cpu = self._clock.stop()
        return [
            _span("read", began, read, read_cpu),
            _span("decode", began + read, max(0.0, seconds - read), max(0.0, cpu - read_cpu)),
        ]


def _span(stage: str, start: float, seconds: float, cpu: float) -> Span:
    return Span(stage, start, seconds, cpu, os.getpid(), threading.get_native_id())


class _ReadClock(threading.local):
    """How long this thread was in `Records.fetch` since it last asked."""

    seconds = 0.0
    cpu = 0.0

    def start(self) -> None:
        self.seconds = self.cpu = 0.0

    def stop(self) -> tuple[float, float]:
        return self.seconds, self.cpu


class _TimedRecords:
    """Records that tell a clock how long they read."""

    def __init__(self, records: Any, clock: _ReadClock) -> None:
        self._records = records
        self._clock = clock

    def __len__(self) -> int:
        return len(self._records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def fetch(self, numbers: npt.NDArray[np.int64]) -> Any:
        began, cpu = time.perf_counter(), time.thread_time()
        try:
            return self._records.fetch(numbers)
        finally:
            self._clock.seconds += time.perf_counter() - began
            self._clock.cpu += time.thread_time() - cpu


def _timed(dataset: Samples) -> tuple[_ReadClock | None, Samples]:
    """Return a twin of the data set that tells how long it reads, where it reads records."""
    fetch: Callable[..., Any] | None = getattr(getattr(dataset, "records", None), "fetch", None)
    if fetch is None:
        return None, dataset
    clock, twin = _ReadClock(), copy.copy(dataset)
    twin.records = _TimedRecords(twin.records, clock)  # type: ignore[attr-defined]
    return clock, twin
