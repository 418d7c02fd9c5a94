"""Batches made by processes of their own, for transforms that hold the interpreter's lock."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from itertools import count
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from loaders.errors import LoaderTimeoutError, WorkerEndedError
from loaders.running.making import Made
from loaders.running.pool import Pool, Worker
from loaders.running.slabs import SlabRing
from loaders.running.wire import load, read
from loaders.running.worker import Answer, Failure, Ready, Unusable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from loaders.running.making import BatchMaker, Task
    from loaders.running.sizes import ByteBudget

_log = logging.getLogger(__name__)
_DEATHS = 3  # of workers, at one batch
_LOOK_SECONDS = 30.0  # a wait is no longer than this: one without an end has no number
_SPARE_SLABS = 2  # for the batch that the loop has, and one that it keeps
_LARGE_TASK = 1 << 15  # bytes: a pipe holds a few smaller ones, so sending them never waits


class Ticket:
    """A batch that was asked for."""

    def __init__(self, number: int, task: Task) -> None:
        self.number = number
        self.task = task
        self.slab: tuple[int, memoryview] | None = None
        self.deaths = 0
        self.is_stale = False  # nobody waits for it any more
        self.answer: Answer | None = None
        self.parts: list[Any] = []
        self.failure: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether it was answered."""
        return self.answer is not None or self.failure is not None


class ProcessRunner:
    """Makes batches with worker processes that are kept from epoch to epoch.

    A batch is a pure function of its task: that of a worker that died is asked for again, from a new one.

    Args:
        maker: Makes them; pickled once.
        workers: How many.
        prefetch: Most batches that are asked for and not taken.
        budget: Bytes of these, and of the memory shared with the workers.
        timeout: Seconds that one batch may take.
        start_method: `forkserver` or `spawn`.
    """

    def __init__(
        self,
        maker: BatchMaker,
        *,
        workers: int,
        prefetch: int,
        budget: ByteBudget,
        timeout: float,
        start_method: str,
    ) -> None:
        self._pool = Pool(maker, workers=workers, start_method=start_method)
        self._prefetch = prefetch
        self._depth = -(-prefetch // workers)
        self._budget = budget
        self._timeout = timeout
        self._numbers = count()
        self._asked: dict[int, Ticket] = {}  # of all workers, stale ones too
        self._queue: deque[Ticket] = deque()  # of the iteration, in order
        self._backlog: deque[Ticket] = deque()  # of these, what no worker was asked for
        self._slabs: SlabRing | None = None
        self._slabs_refused = False

    @property
    def restarts(self) -> int:
        """Workers that were started in the place of dead ones."""
        return self._pool.restarts

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return self._pool.pids

    def run(self, tasks: Iterator[Task]) -> Generator[Made, None, None]:
        """Yield the batches of the tasks, in their order.

        Raises:
            LoaderTimeoutError: If a batch takes too long; the workers are ended.
            WorkerEndedError: If workers cannot start, or end again and again; the same.
        """
        self._begin()
        try:
            while (ticket := self._next(tasks)) is not None:
                made = self._open(ticket)
                del ticket
                yield made
                del made
        finally:
            self._give_up()

    def _next(self, tasks: Iterator[Task]) -> Ticket | None:
        """Wait for the next batch; None after the last one."""
        try:
            self._ask(tasks)
            if not self._queue:
                return None
            self._wait_for(self._queue[0])
            ticket = self._queue.popleft()
            self._ask(tasks)
        except BaseException:  # Ctrl-C too: half a message may be left in a pipe
            self.close()
            raise
        return ticket

    def fill(self) -> int:
        """Count the batches that wait to be taken."""
        return sum(ticket.is_over for ticket in self._queue)

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
        self._asked.clear()
        self._drop_slabs()

    def _drop_slabs(self) -> None:
        if self._slabs is not None:
            self._slabs.close()
            self._slabs = None

    def _begin(self) -> None:
        if self._pool.start():  # new ones: what the old ones were asked for is gone
            self._asked.clear()
            self._give_up()
            # After a fork the old ring is the parent's as well: each would take slabs that the other one has.
            self._drop_slabs()

    def _give_up(self) -> None:
        for ticket in self._queue:
            ticket.is_stale = True
        self._queue.clear()
        self._backlog.clear()

    def _ask(self, tasks: Iterator[Task]) -> None:
        while len(self._queue) < self._prefetch and self._budget.allows(len(self._queue) + 1):
            task = next(tasks, None)
            if task is None:
                break
            ticket = Ticket(next(self._numbers), task)
            self._queue.append(ticket)
            self._backlog.append(ticket)
        while self._backlog:
            worker = self._pool.idlest()
            is_large = 8 * len(self._backlog[0].task.numbers) > _LARGE_TASK
            if len(worker.tickets) >= (1 if is_large else self._depth):
                return
            self._send(worker, self._backlog.popleft())

    def _send(self, worker: Worker, ticket: Ticket) -> None:
        ticket.slab = None if self._slabs is None else self._slabs.take()
        self._asked[ticket.number] = ticket
        worker.tickets.append(ticket.number)
        worker.ask(ticket.number, ticket.task, self._slabs, -1 if ticket.slab is None else ticket.slab[0])

    def _wait_for(self, ticket: Ticket) -> None:
        deadline = time.monotonic() + self._timeout
        while not ticket.is_over:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LoaderTimeoutError(
                    f"{ticket.task} was not there within {self._timeout:g} s; raise `timeout` if the store or the"
                    " transform is that slow",
                    numbers=tuple(ticket.task.numbers),
                )
            self._receive(left)
            self._ask(iter(()))

    def _receive(self, seconds: float) -> None:
        workers = self._pool.waited_for()
        for ready in wait(list(workers), min(seconds, _LOOK_SECONDS)):
            worker = workers[ready]
            if worker.is_gone:
                continue
            has_ended = ready is not worker.pipe
            try:
                while worker.pipe.poll():
                    self._read(worker)
                    if not has_ended:
                        break
            except (EOFError, OSError):
                has_ended = True
            if has_ended:
                self._bury(worker)

    def _read(self, worker: Worker) -> None:
        message = worker.pipe.recv()
        if isinstance(message, Ready):
            worker.is_ready = True
            return
        if isinstance(message, Unusable):
            raise WorkerEndedError(
                "a worker process cannot unpickle the data set, its transform or the collate function; they must be"
                f" importable there. In the worker:\n{message.text}"
            )
        parts = []
        for size in message.sizes if isinstance(message, Answer) else ():
            parts.append(bytearray(size))
            if size:
                worker.pipe.recv_bytes_into(parts[-1])
        worker.tickets.remove(message.ticket)
        self._pool.note_answer()
        ticket = self._asked.pop(message.ticket)
        if ticket.is_stale:
            return
        if isinstance(message, Failure):
            ticket.failure = _raised(message, ticket)
        else:
            ticket.answer, ticket.parts = message, parts
            if parts:
                self._make_slabs(sum(map(len, parts)) + 64 * len(parts))

    def _make_slabs(self, size: int) -> None:
        """Make a ring for batches like one that had to be sent, unless that was for want of a free slab."""
        if self._slabs is not None and size <= self._slabs.size:
            return
        slabs = self._prefetch + _SPARE_SLABS
        wanted = size + size // 4
        if self._slabs_refused or slabs * wanted > self._budget.limit_bytes:
            return
        try:
            old, self._slabs = self._slabs, SlabRing(slabs, wanted)
        except OSError as error:
            self._slabs_refused = True
            _log.warning("batches go through pipes: no bytes=%d to share with workers: %s", slabs * wanted, error)
            return
        if old is not None:
            old.close()

    def _open(self, ticket: Ticket) -> Made:
        if ticket.failure is not None:
            if isinstance(ticket.failure, WorkerEndedError):
                self.close()
            raise ticket.failure
        answer = ticket.answer
        assert answer is not None
        if answer.ranges:
            assert ticket.slab is not None
            batch = read(ticket.slab[1], answer.ranges)
        else:
            batch = load(ticket.parts)
        self._budget.measure(batch)
        return Made(ticket.task, batch, answer.size, answer.bad, answer.spans)

    def _bury(self, worker: Worker) -> None:
        """Start another worker, and ask it for what this one was asked for."""
        tickets = [self._asked.pop(number) for number in worker.tickets]
        suspect = tickets[0] if tickets else None
        code = self._pool.replace(worker, "" if suspect is None else str(suspect.task))
        if suspect is not None:
            suspect.deaths += 1
            if suspect.deaths >= _DEATHS:
                suspect.failure = _died(suspect, code)
        again = [ticket for ticket in tickets if not ticket.is_stale and not ticket.is_over]
        self._backlog.extendleft(reversed(again))


def _raised(message: Failure, ticket: Ticket) -> BaseException:
    if message.error is None:
        return WorkerEndedError(
            f"a worker process failed with an error that cannot be sent, in {ticket.task}:\n{message.text}",
            numbers=tuple(ticket.task.numbers),
        )
    import pickle

    error: BaseException = pickle.loads(message.error)
    error.add_note(f"In a worker process:\n{message.text}")
    return error


def _died(ticket: Ticket, code: int | None) -> WorkerEndedError:
    return WorkerEndedError(
        f"{_DEATHS} worker processes ended while they made {ticket.task}, the last one with exit code {code}"
        f"{' (killed; is there enough memory?)' if code == -9 else ''}; samples {ticket.task.numbers}:"
        " decode them in a process of your own to see why",
        exit_code=code,
        numbers=tuple(ticket.task.numbers),
    )


def usable_cpus() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0))
