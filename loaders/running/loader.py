"""The loop's view: batches in the sampler's order, counted as they are delivered."""

from __future__ import annotations

import inspect
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, get_args

from loaders.errors import IterationError
from loaders.running.announcing import Announcer
from loaders.running.collating import choose_collate
from loaders.running.contention import LockWatch
from loaders.running.headspace import Headspace, measure_headspace
from loaders.running.leases import ArrayPool
from loaders.running.making import BatchMaker, Made, Samples, Span, Task
from loaders.running.options import LoaderOptions, Mode, RunOptions, split_options
from loaders.running.policies import ErrorPolicy, Ledger
from loaders.running.processes import ProcessRunner, usable_cpus
from loaders.running.quarantine import Quarantine
from loaders.running.sizes import ByteBudget
from loaders.running.statistics import LoaderStats, Recorder, bytes_read
from loaders.running.threads import SyncRunner, ThreadRunner
from loaders.running.tracing import Trace
from loaders.sampler import ElasticBatchSampler, rank_options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

    from loaders.running.collating import Collate, CollateName
    from loaders.running.policies import OnError

Batch = TypeVar("Batch")


class Loader(Generic[Batch]):
    """Iterates over batches, one epoch at a time, and knows what was delivered.

        loader = Loader(dataset, 256, workers=8, seed=7)
        loader.load_state_dict(saved)            # where there is one
        while loader.epoch < epochs:
            for batch in loader:
                train(batch)
                save(loader.state_dict())        # this batch counts as delivered

    One iteration goes to the end of the epoch and moves on to the next. After a `break` the next iteration goes on
    after the last batch that was delivered; `set_epoch` leaves the rest of an epoch out. The batches and the state do
    not depend on mode, workers and prefetch, and the state fits another world size.

    A batch's arrays may lie in memory of the loader's, which is used again when nothing refers to them any more; they
    may be kept and changed. Closing an iteration (a `break`, an exception, the garbage collector) ends its threads;
    worker processes stay for the next epoch, until `close`, the end of this object or of this process.

    Args:
        dataset: Gives samples by number, some at a time: `ShardDataset`, `Mixture` or alike.
        batch_size: Samples of one *global* batch, a multiple of the world size. None with a `sampler`.
        sampler: The order, instead of what `order` says.
        workers: Threads or processes; None: as many as this process has processors, at most 8.
        mode: `thread`: the best where decoders release the interpreter's lock, as ours do. `process`: for transforms in
            Python that take long. `sync`: in the loop's own thread, to debug.
        collate: Makes a batch of a list of samples, where the samples are made; see `choose_collate` for names.
        on_error: See `OnError`, or an `ErrorPolicy` with limits.
        quarantine: A file to name bad samples in, as lines of JSON.
        device: A CUDA device to copy tensors to, one batch ahead. Not tested: see `loaders.running.device`.
        options: See `LoaderOptions`: `seed`, `order`, `drop_last`, `rank`, `world_size`, `prefetch`, `timeout`, more.

    Raises:
        ValueError: If arguments do not fit together.
        NoSamplesError: If an epoch would deliver nothing.
    """

    def __init__(
        self,
        dataset: Samples,
        batch_size: int | None = None,
        *,
        sampler: ElasticBatchSampler | None = None,
        workers: int | None = None,
        mode: Mode = "thread",
        collate: Collate | CollateName | None = None,
        on_error: OnError | ErrorPolicy = "raise",
        quarantine: str | os.PathLike[str] | None = None,
        device: str | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"unknown mode {mode!r}; known: {', '.join(get_args(Mode))}")
        if workers is not None and workers < 1:
            raise ValueError(f'workers is {workers}; expected at least 1, or mode="sync"')
        _check_dataset(dataset)
        self.dataset = dataset
        order, run = split_options(options)
        self.batch_sampler = _sampler(dataset, batch_size, sampler, order)
        self.mode = mode
        self.workers = min(8, usable_cpus()) if workers is None else workers
        self._policy = on_error if isinstance(on_error, ErrorPolicy) else ErrorPolicy(on_error)
        seed = int(self.batch_sampler.position()["seed"])
        self._maker = BatchMaker(dataset, choose_collate(collate), self._policy, seed=seed, pool=ArrayPool())
        self._runner = self._new_runner(run)
        behind = 0 if mode == "sync" else (run.prefetch or 2 * self.workers + 2) + self.workers
        self._announcer = _announcer(dataset, run.read_ahead, behind)
        self._last = (0, 0)
        self._copier = _copier(device)
        self._quarantine = Quarantine(None if quarantine is None else Path(quarantine), rank=self.batch_sampler.rank)
        self._ledger = Ledger(self._policy, len(self.batch_sampler) * self._share)
        self._running: Generator[Made, None, None] | None = None
        self.reset_stats()

    def __len__(self) -> int:
        """Count the steps of one whole epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        """Yield what is left of the current epoch.

        Raises:
            IterationError: If another iteration began, or the loader was closed, while this one went on.
            BadSamplesError, CollateError, LoaderTimeoutError, WorkerEndedError: See `loaders.errors`.
            Exception: Of the data set, with a note that names the sample.
        """
        self._stop()
        owner = os.getpid()
        batches = self._runner.run(self._tasks())
        if self._copier is not None:
            batches = self._copier.ahead(batches)
        self._running = batches
        epoch, step = self.batch_sampler.epoch, self.batch_sampler.step
        began = time.perf_counter()
        try:
            while True:
                if os.getpid() != owner:
                    raise IterationError(
                        f"this iteration is one of process {owner}, of which this process is a fork; iterate anew here"
                    )
                asked, fill = time.perf_counter(), self._runner.fill()
                made = next(batches, None)
                now = time.perf_counter()
                self._recorder.total += now - began
                began = now
                if self._running is not batches:
                    raise IterationError(
                        "the loader was closed or iterated anew inside of this iteration; use one loader for each loop"
                    )
                if made is None:
                    return
                self._count(made, fill, Span("wait", asked, now - asked, 0.0, os.getpid(), threading.get_native_id()))
                self._last = (epoch, step)
                step += 1
                self.batch_sampler.seek(epoch, step)
                batch, made = made.batch, None
                yield batch
                del batch
                now = time.perf_counter()
                self._recorder.total += now - began
                began = now
        finally:
            batches.close()
            if self._running is batches:
                self._running = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self.batch_sampler.epoch

    @property
    def step(self) -> int:
        """Batches of this epoch that were delivered."""
        return self.batch_sampler.step

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Which samples of the batch that was delivered last are no repeats; see `ElasticBatchSampler.mask_at`.

        As many as were asked for: with `on_error="skip"` the batch may be shorter.
        """
        return self.batch_sampler.mask_at(*self._last)

    @property
    def sampler(self) -> ElasticBatchSampler:
        """The order; Lightning and Accelerate look for `set_epoch` here."""
        return self.batch_sampler

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, which ends an iteration of another one; in the current one, stay."""
        if epoch != self.batch_sampler.epoch:
            self._stop()
        self.batch_sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return a few numbers that name the next batch; the same on every rank, for JSON."""
        return self.batch_sampler.position()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was saved, by this class or a `ResumableLoader`; before iterating.

        Raises:
            StateMismatchError: If it was saved for other samples, another order or batch size; nothing is changed.
        """
        self._stop()
        self.batch_sampler.restore(state)

    def stats(self) -> LoaderStats:
        """Return what was done since the loader was made, or since `reset_stats`."""
        recorder, read = self._recorder, bytes_read(self.dataset) if self.mode != "process" else None
        local, peer, origin = (None, None, None) if read is None else read
        return LoaderStats(
            batches=recorder.batches,
            samples=recorder.samples,
            wait_seconds=recorder.wait,
            total_seconds=recorder.total,
            queue_fill=recorder.fill / recorder.batches if recorder.batches else 0.0,
            bytes_local=local,
            bytes_peer=peer,
            bytes_origin=origin,
            skipped=self._ledger.skipped,
            replaced=self._ledger.replaced,
            quarantined=tuple(self._quarantine.numbers),
            restarts=self._runner.restarts if isinstance(self._runner, ProcessRunner) else 0,
            stages=recorder.stages_now(),
        )

    def reset_stats(self) -> None:
        """Forget the times; what was read and which samples are bad stays."""
        self._recorder = Recorder()
        self._watch = LockWatch(self._recorder, cores=usable_cpus())

    @contextmanager
    def trace(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Write what is done inside of the `with` to a file for Perfetto (ui.perfetto.dev) or chrome://tracing."""
        found = Trace()
        self._recorder.listener = found.add
        try:
            yield
        finally:
            self._recorder.listener = None
            found.write(Path(path))

    def headspace(self, train: Callable[[Batch], object], *, batches: int = 20) -> Headspace:
        """Measure what the loop could do with all data at hand, and what holds it up; moves no position.

        Args:
            train: One step of the loop, which does not iterate over this loader; called 2 * `batches` times with real
                batches, of which the first are alike.
            batches: How many are measured.
        """
        self._stop()
        tasks = [task for task, _ in zip(self._tasks(), range(batches + 1), strict=False)]
        return measure_headspace(self._maker, self._runner.run, tasks, train)

    def close(self) -> None:
        """End threads and worker processes; a later iteration starts new ones."""
        self._stop()
        self._runner.close()

    def _stop(self) -> None:
        running = self._running
        if running is None:
            return
        if inspect.getgeneratorstate(running) == inspect.GEN_RUNNING:
            raise IterationError(
                "another thread waits for a batch of this loader; end its loop first, or use one loader for each loop"
            )
        self._running = None
        running.close()

    @property
    def _share(self) -> int:
        return self.batch_sampler.batch_size // self.batch_sampler.world_size

    def _tasks(self) -> Iterator[Task]:
        epoch, first = self.batch_sampler.epoch, self.batch_sampler.step
        numbered = enumerate(iter(self.batch_sampler), start=first)
        tasks = (Task(epoch, step, numbers) for step, numbers in numbered)
        return tasks if self._announcer is None else self._announcer.pass_on(tasks)

    def _count(self, made: Made, fill: int, waited: Span) -> None:
        self._quarantine.add(made.bad)
        self._ledger.account(made.task.epoch, len(made.task.numbers), made.bad)
        self._recorder.delivered(made.size, waited=waited, fill=fill, spans=made.spans)
        if self.mode == "thread":
            self._watch.look()

    def _new_runner(self, run: RunOptions) -> SyncRunner | ThreadRunner | ProcessRunner:
        if self.mode == "sync":
            return SyncRunner(self._maker)
        budget = ByteBudget(run.prefetch_bytes)
        if self.mode == "thread":
            prefetch = run.prefetch or self.workers + 2
            return ThreadRunner(
                self._maker, threads=self.workers, prefetch=prefetch, budget=budget, timeout=run.timeout
            )
        return ProcessRunner(
            self._maker,
            workers=self.workers,
            prefetch=run.prefetch or 2 * self.workers,
            budget=budget,
            timeout=run.timeout,
            start_method=run.start_method,
        )


def _check_dataset(dataset: Any) -> None:
    missing = [name for name in ("__len__", "__getitems__", "fingerprint") if not hasattr(dataset, name)]
    if missing:
        raise TypeError(
            f"a Loader reads map-style data sets; {type(dataset).__name__} has no {', '.join(missing)}. Use a"
            " ShardDataset or a Mixture, put yours into a `PlainDataset`, or give it these members (see `Samples`)"
        )


def _sampler(
    dataset: Samples, batch_size: int | None, sampler: ElasticBatchSampler | None, order: dict[str, Any]
) -> ElasticBatchSampler:
    if sampler is not None:
        if order or batch_size not in {None, sampler.batch_size}:
            raise ValueError("a sampler brings its own batch size and order; pass those to it, not to the loader")
        if sampler.position()["samples"] != dataset.fingerprint:
            raise ValueError("the sampler was made for other samples than the data set has; make it with this data set")
        return sampler
    if batch_size is None:
        raise ValueError("batch_size is missing: the samples of one global batch, over all ranks")
    rank, world_size = order.pop("rank", None), order.pop("world_size", None)
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank is {rank} and world_size is {world_size}; pass both or none")
    ranks = rank_options(os.environ) if rank is None else {"rank": rank, "world_size": world_size}
    return ElasticBatchSampler(dataset, batch_size, **order, **ranks)


def _announcer(dataset: Any, ahead: int, behind: int) -> Announcer | None:
    prefetch = getattr(dataset, "prefetch", None)
    return Announcer(prefetch, ahead=ahead, behind=behind) if prefetch is not None and ahead else None


def _copier(device: str | None) -> Any:
    if device is None or device == "cpu":
        return None
    from loaders.running.device import DeviceCopier

    return DeviceCopier(device)
