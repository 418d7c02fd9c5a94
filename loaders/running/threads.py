"""Batches made by threads of this process, or by the loop's own."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from loaders.running.ring import THREAD_NAME, Ring

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from loaders.running.making import BatchMaker, Made, Task
    from loaders.running.sizes import ByteBudget

_log = logging.getLogger(__name__)
_JOIN_SECONDS = 10.0


class SyncRunner:
    """Makes each batch when it is asked for, in the thread that asks."""

    def __init__(self, maker: BatchMaker) -> None:
        self._maker = maker

    def run(self, tasks: Iterator[Task]) -> Generator[Made, None, None]:
        """Yield the batches of the tasks, in their order."""
        for task in tasks:
            yield self._maker.make(task)

    def fill(self) -> int:
        """Count the batches that wait: none ever does."""
        return 0

    def close(self) -> None:
        """Do nothing: there is nothing to end."""


class ThreadRunner:
    """Makes batches with threads that live as long as the iteration does.

    Args:
        maker: Makes them.
        threads: How many.
        prefetch: Most batches that are begun and not taken.
        budget: Bytes of these.
        timeout: Seconds that one batch may take.
    """

    def __init__(self, maker: BatchMaker, *, threads: int, prefetch: int, budget: ByteBudget, timeout: float) -> None:
        self._maker = maker
        self._threads = threads
        self._prefetch = prefetch
        self._budget = budget
        self._timeout = timeout
        self._ring: Ring | None = None

    def run(self, tasks: Iterator[Task]) -> Generator[Made, None, None]:
        """Yield the batches of the tasks, in their order; closing it ends the threads.

        Raises:
            LoaderTimeoutError: If a batch takes too long.
        """
        ring = Ring(tasks, self._maker, prefetch=self._prefetch, budget=self._budget, threads=self._threads)
        # Daemons: a loop that was left in a traceback must not keep the process from ending.
        threads = [
            threading.Thread(target=_work, args=(ring, self._maker), name=f"{THREAD_NAME}-{number}", daemon=True)
            for number in range(self._threads)
        ]
        self._ring = ring
        owner = os.getpid()
        try:
            for thread in threads:
                thread.start()
            while (made := ring.get(self._timeout)) is not None:
                yield made
                del made  # a batch that waits here would keep its memory
        finally:
            if self._ring is ring:
                self._ring = None
            if os.getpid() == owner:  # a fork has no such threads, and locks that nobody gives back
                ring.stop()
                if threading.current_thread() not in threads:  # the garbage collector may close this in any thread
                    _join([thread for thread in threads if thread.ident is not None])

    def fill(self) -> int:
        """Count the batches that wait to be taken."""
        ring = self._ring
        return 0 if ring is None else ring.fill()

    def close(self) -> None:
        """Do nothing: threads end with their iteration."""


def _work(ring: Ring, maker: BatchMaker) -> None:
    while (piece := ring.take()) is not None:
        entry = piece.entry
        try:
            part = maker.part(entry.draft, piece.start, piece.stop)
            if ring.put(piece, part):
                ring.finish(entry, maker.join(entry.draft, [one for one in entry.parts if one is not None]))
        except BaseException as error:  # noqa: BLE001 - it is raised in the loop
            ring.fail(entry, error)
        del piece, entry


def _join(threads: list[threading.Thread]) -> None:
    deadline = time.monotonic() + _JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread.name for thread in threads if thread.is_alive()]
    if left:
        _log.warning(
            "threads=%s still read or decode %s s after the loop ended; they end with what they do",
            ",".join(left),
            _JOIN_SECONDS,
        )
