"""What a worker process does: make the batches that it is asked for, until nobody is there to ask.

It ends when its pipe is closed, and at once when the process that started it has ended, whatever ended that.
"""

from __future__ import annotations

import mmap
import os
import pickle
import select
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.reduction import recv_handle
from typing import TYPE_CHECKING, Any, NamedTuple

from loaders.running.slabs import OpenSlabs
from loaders.running.wire import Range, TooLargeError, dump, pickled_error, write

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from loaders.running.making import BatchMaker, Span, Task
    from loaders.running.policies import BadSample


GOODBYE = "goodbye"
"""There is nothing more to do; a pipe that closes without it is that of a process that was killed."""

_DYING_SECONDS = 1.0  # between the end of a process's pipes and its own


class UseSlabs(NamedTuple):
    """From now on write into another ring, whose descriptor follows."""

    size: int


class Ask(NamedTuple):
    """Make a batch, and write it into a slab (-1: send it)."""

    ticket: int
    task: Task
    slab: int


class Ready(NamedTuple):
    """The worker can make batches."""


class Unusable(NamedTuple):
    """The worker cannot make batches."""

    error: bytes | None
    text: str


class Answer(NamedTuple):
    """A batch was made.

    Attributes:
        ticket: Which.
        ranges: Where it lies in its slab; empty if it follows.
        sizes: Of the parts that follow, bytes.
        size: Samples.
        bad: See `Made`.
        spans: See `Made`.
    """

    ticket: int
    ranges: list[Range]
    sizes: list[int]
    size: int
    bad: list[BadSample]
    spans: list[Span]


class Failure(NamedTuple):
    """A batch cannot be made."""

    ticket: int
    error: bytes | None
    text: str


def serve(pipe: Connection, parent: int, leftovers: tuple[str, ...] = ()) -> None:
    """Make batches until the pipe is closed.

    Args:
        pipe: Gets the pickled `BatchMaker` as a descriptor, then `UseSlabs`, `Ask` and `GOODBYE`.
        parent: The process that closes it; its end is ours.
        leftovers: A file, and its directory, that are removed if the parent was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the loop's process says what happens
    watched = _end_with(parent, leftovers)
    if not _was_dismissed(pipe):
        _has_ended(watched, _DYING_SECONDS, leftovers)


def _was_dismissed(pipe: Connection) -> bool:
    """Work; False if the pipe ended and nobody said that this was all."""
    try:
        maker = _opened(recv_handle(pipe))
    except (EOFError, ConnectionError):
        return False
    except Exception as error:  # noqa: BLE001 - unpickling runs anybody's code; the loop raises it
        return _send(pipe, Unusable(pickled_error(error), traceback.format_exc()))
    return _send(pipe, Ready()) and _loop(pipe, maker)


def _loop(pipe: Connection, maker: BatchMaker) -> bool:
    slabs: OpenSlabs | None = None
    while True:
        try:
            message = pipe.recv()
            if message == GOODBYE:
                return True
            if isinstance(message, UseSlabs):
                slabs = OpenSlabs(recv_handle(pipe), message.size)
                continue
        except (EOFError, ConnectionError):
            return False
        slab = None if slabs is None or message.slab < 0 else slabs.slab(message.slab)
        if not _send(pipe, *_answer(maker, message, slab)):
            return False


def _answer(maker: BatchMaker, asked: Ask, slab: memoryview | None) -> list[Any]:
    """Make a batch; return the answer and what follows it."""
    try:
        made = maker.make(asked.task)
        ranges: list[Range] = []
        parts: list[Any] = []
        try:
            if slab is None:
                raise TooLargeError
            ranges = write(made.batch, slab)
        except TooLargeError:
            parts = dump(made.batch)
        sizes = [len(part) for part in parts]
        return [Answer(asked.ticket, ranges, sizes, made.size, made.bad, made.spans), *parts]
    except Exception as error:  # noqa: BLE001 - the loop raises it
        return [Failure(asked.ticket, pickled_error(error), traceback.format_exc())]


def _send(pipe: Connection, message: NamedTuple, *parts: Any) -> bool:
    """Send a message and what follows it; False if nobody reads."""
    try:
        pipe.send(message)
        for part in parts:
            if len(part):
                pipe.send_bytes(part)
    except ConnectionError:
        return False
    return True


def _opened(handle: int) -> BatchMaker:
    try:
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as data:
            maker: BatchMaker = pickle.loads(data)
    finally:
        os.close(handle)
    _one_thread_each()
    return maker


def _one_thread_each() -> None:
    """Keep libraries from starting a thread for every core in every worker."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


def _end_with(parent: int, leftovers: tuple[str, ...]) -> int:
    """End this process as soon as another one has ended; pipes do not tell where a third process holds them too."""
    try:
        watched = os.pidfd_open(parent)
    except ProcessLookupError:
        _remove(leftovers)
        os._exit(1)
    arguments = (watched, leftovers)
    threading.Thread(target=_wait_and_exit, args=arguments, name="forebay-parent", daemon=True).start()
    return watched


def _wait_and_exit(watched: int, leftovers: tuple[str, ...]) -> None:
    while not _has_ended(watched, None, leftovers):
        pass
    os._exit(1)


def _has_ended(watched: int, seconds: float | None, leftovers: tuple[str, ...]) -> bool:
    """Wait for the end of a process, and remove what it left behind."""
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    if not poll.poll(None if seconds is None else 1000 * seconds):
        return False
    _remove(leftovers)
    return True


def _remove(leftovers: tuple[str, ...]) -> None:
    for path, remove in zip(leftovers, (os.unlink, os.rmdir), strict=False):
        with suppress(OSError):  # another worker was faster, or others have files there
            remove(path)
