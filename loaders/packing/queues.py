"""Working a queue of shards off: in this process, or on an executor of the standard library's kind."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, wait
from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from loaders.errors import PackWorkerError
from loaders.packing.making import ShardMaker
from loaders.packing.outcomes import attempt, unwrap
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor, Future
    from types import TracebackType

    from loaders.packing.outcomes import Failure
    from loaders.packing.tasks import ShardResult, ShardTask

Outcome = TypeVar("Outcome")
_WAIT_SECONDS = 3600.0  # between two looks, only so that no wait is endless


class ShardQueue(Protocol):
    """Workers that take shards as they get free, so that none waits for a slow one."""

    def results(self, tasks: Iterable[ShardTask]) -> Iterator[ShardResult]:
        """Yield the result of each task as it comes, in any order; raise what the first failing one raised.

        The tasks are taken from the iterable a few at a time, so that they need not all be in memory.
        """
        ...

    def __enter__(self) -> ShardQueue: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalQueue:
    """Threads of this process: one shard is made while the one before it is uploaded.

    Args:
        maker: Makes them.
    """

    def __init__(self, maker: ShardMaker) -> None:
        self._maker = maker
        self._crew = Crew(2, name="forebay-pack")

    def results(self, tasks: Iterable[ShardTask]) -> Iterator[ShardResult]:
        """See `ShardQueue.results`."""
        yield from _in_window(tasks, lambda task: self._crew.submit(partial(self._maker.make, task)), 2)

    def __enter__(self) -> LocalQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crew.close()


class ExecutorQueue:
    """Somebody's executor; it is not shut down.

    Args:
        executor: Of processes or of machines, which import this package in the same release. Of threads, too.
        at_once: Tasks that are submitted at a time.
    """

    def __init__(self, executor: Executor, *, at_once: int) -> None:
        self._executor = executor
        self._at_once = at_once

    def results(self, tasks: Iterable[ShardTask]) -> Iterator[ShardResult]:
        """See `ShardQueue.results`.

        Raises:
            PackWorkerError: If the executor lost its workers.
        """
        try:
            for outcome in _in_window(tasks, lambda task: self._executor.submit(work, task), self._at_once):
                yield unwrap(outcome)
        except (BrokenExecutor, CancelledError) as error:
            raise PackWorkerError(
                f"the executor lost its workers ({type(error).__name__}: {error}); see their logs (memory?), then pack"
                " again: shards that are stored are not written again"
            ) from error

    def __enter__(self) -> ExecutorQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def work(task: ShardTask) -> ShardResult | Failure:
    """Make a shard in a process of an executor."""
    return attempt(_maker(), task)


@cache
def _maker() -> ShardMaker:
    return ShardMaker(at_once=None)


def _in_window(
    tasks: Iterable[ShardTask], submit: Callable[[ShardTask], Future[Outcome]], at_once: int
) -> Iterator[Outcome]:
    """Keep a few tasks submitted; yield what they return as it comes."""
    rest = iter(tasks)
    running = {submit(task) for task in islice(rest, at_once)}
    try:
        while running:
            done, running = wait(running, _WAIT_SECONDS, FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                running |= {submit(task) for task in islice(rest, 1)}
                yield outcome
    finally:
        for future in running:
            future.cancel()
