"""What a training loop could do if data cost nothing, and which stage keeps it from that."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from loaders.running.making import BatchMaker, Made, Task

_EVEN = 0.8  # a loader that is this close to the loop's own speed does not hold it up


@dataclass(frozen=True, slots=True)
class Headspace:
    """Samples a second, each measured alone.

    Attributes:
        consumer: The loop's step, with one batch again and again.
        loader: The loader, with nobody who uses the batches.
        together: Both, as in training.
        read: One thread that reads, decodes nothing.
        decode: One thread that decodes what is read already; 0 where the data set does not tell reading from decoding,
            `read` is for both then.
        collate: One thread that makes batches of decoded samples.
        bottleneck: What to make faster. `consumer`: the loader is not it. Otherwise the stage that takes longest.
    """

    consumer: float
    loader: float
    together: float
    read: float
    decode: float
    collate: float
    bottleneck: Literal["consumer", "read", "decode", "collate"]

    @property
    def gain(self) -> float:
        """How many times as fast the loop would be with all data at hand."""
        return self.consumer / self.together if self.together else 0.0


def measure_headspace(
    maker: BatchMaker,
    run: Callable[[Iterator[Task]], Generator[Made, None, None]],
    tasks: Sequence[Task],
    train: Callable[[Any], object],
) -> Headspace:
    """Measure; see `Headspace`.

    Args:
        maker: Makes batches in this thread, to tell the stages.
        run: Makes them as the loader does.
        tasks: The first is not measured.
        train: One step of the loop.

    Raises:
        ValueError: If there are fewer than two tasks: the epoch is at its end.
    """
    if len(tasks) < 2:
        raise ValueError(f"{len(tasks)} batches are left of this epoch, too few to measure; set_epoch to another one")
    stages = _stages(maker, tasks[1:])
    cached = maker.make(tasks[0]).batch
    train(cached)  # the first step of a loop prepares much
    samples = sum(len(task.numbers) for task in tasks[1:])
    steps = len(tasks) - 1
    consumer = len(tasks[0].numbers) * steps / _seconds(lambda: [train(cached) for _ in range(steps)])
    loader = _throughput(run, tasks, lambda _batch: None)
    together = _throughput(run, tasks, train)
    slowest = max(stages, key=lambda stage: stages[stage])
    bottleneck: Any = "consumer" if together > _EVEN * consumer else "read" if slowest == "load" else slowest
    rate = {stage: samples / seconds if seconds else 0.0 for stage, seconds in stages.items()}
    return Headspace(
        consumer=consumer,
        loader=loader,
        together=together,
        read=rate.get("read", rate.get("load", 0.0)),
        decode=rate.get("decode", 0.0),
        collate=rate["collate"],
        bottleneck=bottleneck,
    )


def _stages(maker: BatchMaker, tasks: Sequence[Task]) -> dict[str, float]:
    """Return the seconds that each stage takes in this thread."""
    seconds: dict[str, float] = {}
    for task in tasks:
        for span in maker.make(task).spans:
            seconds[span.stage] = seconds.get(span.stage, 0.0) + span.seconds
    return seconds


def _throughput(
    run: Callable[[Iterator[Task]], Generator[Made, None, None]],
    tasks: Sequence[Task],
    train: Callable[[Any], object],
) -> float:
    """Return samples a second after the first batch, which starts workers."""
    batches = run(iter(tasks))
    try:
        train(next(batches).batch)
        began, samples = time.perf_counter(), 0
        for made in batches:
            train(made.batch)
            samples += len(made.task.numbers)
        return samples / max(time.perf_counter() - began, 1e-9)
    finally:
        batches.close()


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return max(time.perf_counter() - began, 1e-9)
