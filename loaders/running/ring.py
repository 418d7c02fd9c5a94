"""A bounded ring of batches in the making: threads take parts of them, one loop takes the batches, in order."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from loaders.errors import LoaderTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaders.running.making import BatchMaker, Draft, Made, Part, Task
    from loaders.running.sizes import ByteBudget

THREAD_NAME = "forebay-loader"
_PART_SECONDS = 0.002  # a part takes at least this long, so that handing it out costs little
_LEAST_SAMPLES = 8
_LOOK_SECONDS = 30.0  # a wait looks around this often even where nobody wakes it


class Entry:
    """A batch in the ring; its fields are guarded by the ring's lock."""

    def __init__(self, draft: Draft, parts: int) -> None:
        self.draft = draft
        self.parts: list[Part | None] = [None] * parts
        self.missing = parts
        self.made: Made | None = None
        self.failure: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is made, or never will be."""
        return self.made is not None or self.failure is not None


class Piece(NamedTuple):
    """Samples [start, stop) of an entry: part `number` of it. An empty batch has one empty part."""

    entry: Entry
    number: int
    start: int
    stop: int


class Ring:
    """Batches that were begun and not taken yet, in order.

    A batch is begun when a thread has nothing else to do, there are fewer than `prefetch` and they fit into the bytes.
    The failure of a batch is raised when its turn comes: whoever takes gets the same batches before it in every mode.

    Args:
        tasks: What to make; consumed under the lock.
        maker: Makes room for them.
        prefetch: Most batches that are begun.
        budget: Bytes of them.
        threads: How many take pieces.
    """

    def __init__(
        self, tasks: Iterator[Task], maker: BatchMaker, *, prefetch: int, budget: ByteBudget, threads: int
    ) -> None:
        self._tasks = tasks
        self._maker = maker
        self._prefetch = prefetch
        self._budget = budget
        self._threads = threads
        self._lock = threading.RLock()  # the garbage collector may call `stop` in any thread, at any allocation
        self._room = threading.Condition(self._lock)
        self._ready = threading.Condition(self._lock)
        self._entries: deque[Entry] = deque()
        self._pieces: deque[Piece] = deque()
        self._sample_seconds = 0.0
        self._ended = False  # no further batch is begun
        self._stopped = False
        self._failure: BaseException | None = None  # of the order, not of a batch

    def take(self) -> Piece | None:
        """Return something to do, when there is; None if there will be nothing more."""
        with self._lock:
            while not self._stopped:
                if self._pieces:
                    return self._pieces.popleft()
                if self._ended:
                    return None
                if self._has_room():
                    self._begin()
                else:
                    self._room.wait(_LOOK_SECONDS)
        return None

    def put(self, piece: Piece, part: Part) -> bool:
        """Hand in a part; True if it was the last one of its batch, which then is the caller's to collate."""
        entry = piece.entry
        with self._lock:
            entry.parts[piece.number] = part
            entry.missing -= 1
            if piece.stop > piece.start:
                seconds = sum(span.seconds for span in part.spans) / (piece.stop - piece.start)
                self._sample_seconds = 0.8 * self._sample_seconds + 0.2 * seconds if self._sample_seconds else seconds
            return entry.missing == 0 and entry.failure is None

    def finish(self, entry: Entry, made: Made) -> None:
        """Hand in a batch."""
        self._budget.measure(made.batch)
        with self._lock:
            entry.made = made
            self._tell(entry)

    def fail(self, entry: Entry, error: BaseException) -> None:
        """Say that a batch cannot be made; nothing after it is begun."""
        with self._lock:
            entry.failure = entry.failure or error
            self._ended = True
            self._pieces.clear()
            self._tell(entry)
            self._room.notify_all()

    def get(self, timeout: float) -> Made | None:
        """Return the next batch; None after the last one.

        Raises:
            LoaderTimeoutError: If it is not there in time.
            BaseException: What made the batch fail.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                if self._entries and self._entries[0].is_over:
                    return self._pop()
                if not self._entries and (self._ended or self._stopped):
                    if self._failure is not None:
                        raise self._failure
                    return None
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._late(timeout)
                self._ready.wait(min(left, _LOOK_SECONDS))

    def fill(self) -> int:
        """Count the batches that wait to be taken."""
        return sum(entry.is_over for entry in list(self._entries))

    def stop(self) -> None:
        """Let every thread end; what is in the ring is lost."""
        with self._lock:
            self._stopped = True
            self._pieces.clear()
            self._entries.clear()
            self._room.notify_all()
            self._ready.notify_all()

    def _has_room(self) -> bool:
        begun = len(self._entries)
        return begun == 0 or (begun < self._prefetch and self._budget.allows(begun + 1))

    def _begin(self) -> None:
        try:
            task = next(self._tasks, None)
            draft = None if task is None else self._maker.begin(task)
        except BaseException as error:  # noqa: BLE001 - it is raised in the loop, after the batches before it
            self._failure = error
            task = draft = None
        if task is None or draft is None:
            self._ended = True
            self._room.notify_all()
            self._ready.notify_all()
            return
        cuts = self._cuts(len(task.numbers))
        entry = Entry(draft, len(cuts) - 1)
        self._entries.append(entry)
        self._pieces += [Piece(entry, index, cuts[index], cuts[index + 1]) for index in range(len(cuts) - 1)]
        self._room.notify(len(self._pieces))

    def _cuts(self, size: int) -> list[int]:
        each = -(-size // self._threads)
        if self._sample_seconds:
            each = max(_LEAST_SAMPLES, int(_PART_SECONDS / self._sample_seconds))
        return [*range(0, size, max(1, each)), size] if size else [0, 0]

    def _tell(self, entry: Entry) -> None:
        if self._entries and self._entries[0] is entry:
            self._ready.notify_all()

    def _pop(self) -> Made:
        entry = self._entries.popleft()
        self._room.notify()
        if entry.failure is not None:
            raise entry.failure
        assert entry.made is not None
        return entry.made

    def _late(self, timeout: float) -> LoaderTimeoutError:
        task = self._entries[0].draft.task if self._entries else None
        return LoaderTimeoutError(
            f"{task or 'the next batch'} was not there within {timeout:g} s; raise `timeout` if the store is that slow."
            f" What the threads do:\n{_stacks()}",
            numbers=tuple(task.numbers) if task else (),
        )


def _stacks() -> str:
    """Return where this process's loader threads are."""
    frames: dict[int, Any] = sys._current_frames()
    return "\n".join(
        f"{thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident], limit=6))}"
        for thread in threading.enumerate()
        if thread.name.startswith(THREAD_NAME) and thread.ident in frames
    )
