"""A queue of shards and processes that work it off; what a process that dies had is given to another.

The processes are spawned: they share no lock, thread or connection with this one, and end when it does, for then
the pipe that their tasks come through is closed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from loaders.errors import PackWorkerError
from loaders.packing.making import ShardMaker
from loaders.packing.outcomes import attempt, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path
    from types import TracebackType

    from loaders.packing.tasks import ShardResult, ShardTask

_AHEAD = 2  # tasks of each process: one is made while the other is uploaded
_ATTEMPTS = 3
_END_SECONDS = 5.0
_LOOK_SECONDS = 3600.0


class ProcessQueue:
    """Processes of this machine.

    Args:
        workers: How many.
        spool: Directory of temporary files; the system's own by default.
    """

    def __init__(self, workers: int, *, spool: Path | None = None) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._spool = spool
        self._workers = [_Worker(self._context, spool) for _ in range(workers)]

    def results(self, tasks: Iterable[ShardTask]) -> Iterator[ShardResult]:
        """See `ShardQueue.results`.

        Raises:
            PackWorkerError: If workers died of one task three times.
        """
        rest = iter(tasks)
        again: list[ShardTask] = []
        attempts: dict[int, int] = {}
        for worker in self._workers:
            self._feed(worker, again, rest)
        while any(worker.tasks for worker in self._workers):
            by_handle = {handle: worker for worker in self._workers for handle in worker.handles}
            for handle in connection.wait(list(by_handle), _LOOK_SECONDS):
                worker = by_handle[handle]
                if worker not in self._workers:
                    continue  # its other handle was ready, too
                outcome = worker.receive()
                if outcome is None:
                    again += self._bury(worker, attempts)
                    worker = self._workers[-1]
                self._feed(worker, again, rest)
                if outcome is not None:
                    yield unwrap(outcome)

    def _feed(self, worker: _Worker, again: list[ShardTask], rest: Iterator[ShardTask]) -> None:
        while len(worker.tasks) < _AHEAD:
            task = again.pop() if again else next(rest, None)
            if task is None:
                return
            worker.send(task)

    def _bury(self, worker: _Worker, attempts: dict[int, int]) -> list[ShardTask]:
        """Put a new process in the place of one that died; return the tasks that it had."""
        self._workers.remove(worker)
        status = worker.end()
        lost = list(worker.tasks.values())
        for task in lost:
            attempts[task.number] = attempts.get(task.number, 0) + 1
            if attempts[task.number] >= _ATTEMPTS:
                raise PackWorkerError(
                    f"a worker died {_ATTEMPTS} times with shard {task.number} ({_describe(status)}); with a smaller"
                    " --shard-size or fewer --workers it needs less memory; what is stored is not written again"
                )
        self._workers.append(_Worker(self._context, self._spool))
        return lost

    def __enter__(self) -> ProcessQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close(at_once=kind is not None)
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process, and the tasks that it has."""

    def __init__(self, context: Any, spool: Path | None) -> None:
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, spool), name="forebay-pack", daemon=True
        )
        self._process.start()
        theirs.close()
        self.tasks: dict[int, ShardTask] = {}

    @property
    def handles(self) -> tuple[Any, ...]:
        """What is ready when the worker has said something, or died."""
        return self._pipe, self._process.sentinel

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, task: ShardTask) -> None:
        """Give it a task; a dead one is noticed later."""
        self.tasks[task.number] = task
        with contextlib.suppress(OSError):
            self._pipe.send(task)

    def receive(self) -> Any:
        """Return the next outcome; None: the process is dead."""
        try:
            if not self._pipe.poll():
                return None  # it is the sentinel that is ready
            number, outcome = self._pipe.recv()
        except (EOFError, OSError):
            return None
        del self.tasks[number]
        return outcome

    def close(self, *, at_once: bool) -> None:
        """Let it end when it has done what it has, or now."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        if at_once:
            self._process.terminate()

    def end(self) -> int | None:
        """Wait until it is gone, and return how it ended."""
        self.close(at_once=False)
        self._process.join(_END_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(_END_SECONDS)
        return self._process.exitcode


def _describe(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"{name}, as when memory is short" if name == "SIGKILL" else name
    return f"exit code {status}"


def _serve(pipe: Connection, spool: Path | None) -> None:
    """Work tasks off until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    maker, sending = ShardMaker(spool=spool), threading.Lock()

    def work(task: ShardTask) -> None:
        outcome = attempt(maker, task)
        with sending:
            try:
                pipe.send((task.number, outcome))
            except OSError:
                os._exit(1)  # the parent is gone: nobody wants what is left

    with ThreadPoolExecutor(_AHEAD, "forebay-pack") as pool, contextlib.suppress(EOFError, OSError):
        while True:
            pool.submit(partial(work, pipe.recv()))
