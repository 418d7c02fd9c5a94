"""Worker processes: started, told what to do, replaced and ended."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import select
import signal
import socket
import struct
import time
import weakref
from contextlib import suppress
from multiprocessing.reduction import send_handle
from typing import TYPE_CHECKING, Any

from loaders.errors import WorkerEndedError
from loaders.running.slabs import SlabRing, new_memory_file
from loaders.running.worker import GOODBYE, Ask, UseSlabs, serve

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from loaders.running.making import BatchMaker, Task

_JOIN_SECONDS = 5.0
_IN_A_ROW = 10  # workers that end without one answer between them
_SILENT_SECONDS = 30  # in the middle of a message: a worker that was stopped there would stop the loop too


class Worker:
    """One process and the pipe to it."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe
        self.tickets: list[int] = []
        self.is_ready = False
        self.is_gone = False
        self._slabs: SlabRing | None = None
        self._handle: int | None = None  # names this process, also when its number is another's
        with suppress(ProcessLookupError):
            self._handle = os.pidfd_open(process.pid or -1)

    def ask(self, ticket: int, task: Task, slabs: SlabRing | None, slab: int) -> None:
        """Send a task; that nobody reads it shows when answers are waited for."""
        try:
            if slabs is not None and slabs is not self._slabs:
                self.pipe.send(UseSlabs(slabs.size))
                send_handle(self.pipe, slabs.handle, self.process.pid)
                self._slabs = slabs
            self.pipe.send(Ask(ticket, task, slab))
        except OSError:
            pass

    def hang_up(self) -> None:
        """Close the pipe, in such a way that the worker sees it even if a fork of this process holds the pipe too."""
        self.is_gone = True
        with suppress(OSError), socket.socket(fileno=os.dup(self.pipe.fileno())) as end:
            with suppress(BlockingIOError):  # full: it is busy, or hangs
                end.send(_framed(GOODBYE), socket.MSG_DONTWAIT)
            end.shutdown(socket.SHUT_RDWR)
        self.pipe.close()

    def kill(self) -> None:
        """Make sure that it has ended: it goes on where its server of forks was killed, which looks like its own end.

        It may have a slab that is used again now.
        """
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(1000 * _JOIN_SECONDS)  # bounded: a read from a dead network file system cannot be killed
        os.close(handle)


class Pool:
    """A fixed number of workers.

    Args:
        maker: What they run; pickled once, when the first ones start.
        workers: How many.
        start_method: `forkserver` or `spawn`.

    Attributes:
        restarts: Workers that were started in the place of dead ones.
    """

    def __init__(self, maker: BatchMaker, *, workers: int, start_method: str) -> None:
        self._maker = maker
        self._count = workers
        self._context: Any = multiprocessing.get_context(start_method)
        self._workers: list[Worker] = []
        self._payload = -1
        self._owner = -1
        self._ended_in_a_row = 0
        self._finalizer: Any = None
        self.restarts = 0

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def start(self) -> bool:
        """Start the workers unless they run; True if these are new ones.

        Raises:
            PicklingError, TypeError, AttributeError: If the data set, its transform or the collate function cannot be
                pickled.
        """
        if self._workers and self._owner == os.getpid():
            return False
        if self._workers:  # those of a process that forked us are not ours, nor is its server of forks
            self._workers, self._context = [], multiprocessing.get_context("spawn")
        self._owner = os.getpid()
        self._payload = _payload(self._maker)
        self._finalizer = weakref.finalize(self, _end, self._workers, self._payload, self._owner)
        try:
            for _ in range(self._count):
                self._workers.append(self._new())
        except BaseException:  # too few would be taken for all of them
            self.close()
            raise
        return True

    def idlest(self) -> Worker:
        """Return the worker with the fewest tasks."""
        return min(self._workers, key=lambda worker: len(worker.tickets))

    def waited_for(self) -> dict[Any, Worker]:
        """Return what to wait for: pipes, and what tells that a process has ended."""
        found: dict[Any, Worker] = {}
        for worker in self._workers:
            found[worker.pipe] = worker
            found[worker.process.sentinel] = worker
        return found

    def note_answer(self) -> None:
        """Note that workers do work."""
        self._ended_in_a_row = 0

    def replace(self, worker: Worker, task: str) -> int | None:
        """Start another worker in the place of one that ended, and return that one's exit code.

        Raises:
            WorkerEndedError: If a new one would not fare better.
        """
        worker.hang_up()
        worker.process.join(_JOIN_SECONDS)
        worker.kill()
        worker.process.join(_JOIN_SECONDS)
        code = worker.process.exitcode
        self._ended_in_a_row += 1
        if not worker.is_ready and (code is None or code >= 0):
            raise WorkerEndedError(
                f"a worker process ended with exit code {code} before it was ready; what it printed says why. A script"
                ' that starts workers needs `if __name__ == "__main__":` around what it does',
                exit_code=code,
            )
        if self._ended_in_a_row >= _IN_A_ROW:
            raise WorkerEndedError(
                f"{self._ended_in_a_row} worker processes ended one after the other, the last one with exit code {code}"
                f" {f'while it made {task}' if task else 'while it had nothing to do'}; look at the machine's memory",
                exit_code=code,
            )
        self.restarts += 1
        self._workers[self._workers.index(worker)] = self._new()
        return code

    def close(self) -> None:
        """End the workers, those that do not want to as well."""
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None
        self._workers = []

    def _new(self) -> Worker:
        mine, theirs = self._context.Pipe()
        _be_patient(mine)
        try:
            process = self._started(theirs)
        finally:
            theirs.close()
        worker = Worker(process, mine)
        with suppress(ConnectionError):  # it has ended already, which shows when it is waited for
            send_handle(mine, self._payload, process.pid)
        return worker

    def _started(self, pipe: Connection) -> BaseProcess:
        """Start a process, by another server of forks where the one that was there is just ending."""
        deadline = time.monotonic() + _JOIN_SECONDS
        while True:
            leftovers = _leftovers() if self._context.get_start_method() == "forkserver" else ()
            process: BaseProcess = self._context.Process(
                target=serve, args=(pipe, os.getpid(), leftovers), name="forebay-loader", daemon=True
            )
            try:
                process.start()
            except (ConnectionError, EOFError):  # it no longer listens, and is not yet to be waited for
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return process


def _payload(maker: BatchMaker) -> int:
    try:
        data = pickle.dumps(maker, protocol=5)
    except Exception as error:
        error.add_note(
            'mode="process" pickles the data set, its transform and the collate function: use functions of a module,'
            ' not lambdas or inner functions; or use mode="thread"'
        )
        raise
    handle = new_memory_file("forebay-loader", len(data))
    with os.fdopen(os.dup(handle), "wb") as file:
        file.write(data)
    return handle


def _end(workers: list[Worker], payload: int, owner: int) -> None:
    os.close(payload)
    if os.getpid() != owner:  # a fork of the process that started them
        for worker in workers:
            worker.is_gone = True
            worker.pipe.close()
        return
    for worker in workers:
        worker.hang_up()
    deadline = time.monotonic() + _JOIN_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.kill()
        worker.process.join(_JOIN_SECONDS)
        with suppress(ValueError):  # not even killing ended it
            worker.process.close()


def _be_patient(pipe: Connection) -> None:
    """Let what waits inside of a message for too long raise, instead of waiting for ever."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as end:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _SILENT_SECONDS, 0))


def _framed(message: object) -> bytes:
    """Return a short message as `Connection.send` frames it."""
    data = pickle.dumps(message)
    return struct.pack("!i", len(data)) + data


def _leftovers() -> tuple[str, ...]:
    """Return the socket of this process's server of forks, and its directory, where nobody else needs that.

    Only an orderly end of this process removes them; after a crash the workers do it.
    """
    multiprocessing.forkserver.ensure_running()
    server: Any = multiprocessing.forkserver._forkserver
    path: str | None = getattr(server, "_forkserver_address", None)
    if not path or path.startswith("\0"):
        return ()
    return (path,) if multiprocessing.parent_process() is not None else (path, os.path.dirname(path))
