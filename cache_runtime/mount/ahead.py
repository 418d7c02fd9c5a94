"""Reading ahead in large files that are read from front to back."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_all
from functools import partial
from typing import TYPE_CHECKING

from cache_runtime.store.layout import BLOCK_BYTES, BLOCK_SHIFT, RUN_BLOCKS, BlockRun, block_span
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.client import Client
    from cache_runtime.mount.counters import Counters
    from sources import Location, ObjectRef

    Key = tuple[bytes, int]

_NEAR_BYTES = 2 << 20  # the kernel reads ahead by itself, in requests that come out of order
_SURE_BYTES = 512 << 10  # read in order before it is believed


class Stream:
    """How one handle is read.

    Attributes:
        position: Where the next read is expected.
        in_order: Bytes read in order until there.
        reach: The first block that was not asked for yet.
        blocks: How many to be ahead.
        is_wanted: Whether what was asked for is still wanted; what has not begun by then does not begin.
    """

    __slots__ = ("blocks", "in_order", "is_wanted", "position", "reach")

    def __init__(self) -> None:
        self.position = self.in_order = self.reach = 0
        self.blocks = 1
        self.is_wanted = True

    def advance(self, offset: int, end: int) -> bool:
        """Take note of a read; say whether it goes on where the ones before ended, and did so for long enough."""
        if abs(offset - self.position) > _NEAR_BYTES:
            self.position, self.in_order, self.reach, self.blocks = end, 0, 0, 1
            return False
        if end > self.position:
            self.in_order += end - max(offset, self.position)
            self.position = end
        return self.in_order >= _SURE_BYTES


class Ahead:
    """Fetches and checks the blocks that streams come to next. For any number of threads.

    Args:
        client: Fetches them.
        counters: Counted in.
        most_bytes: How far ahead of each stream; 0: not at all.
        threads: How many runs of blocks are fetched at a time, for all streams.
    """

    def __init__(self, client: Client, counters: Counters, *, most_bytes: int, threads: int) -> None:
        self._client = client
        self._counters = counters
        self._most_blocks = most_bytes >> BLOCK_SHIFT
        self._crew = Crew(max(1, threads), name="forebay-mount-ahead")
        self._lock = threading.Lock()
        self._coming: dict[Key, Future[None]] = {}

    def note(self, stream: Stream, location: Location, offset: int, length: int) -> None:
        """Take note of a read of a file, and ask for what it comes to next.

        Args:
            stream: Of its handle.
            location: All of the file.
            offset: Where in the file the read begins.
            length: Its bytes.
        """
        if not self._most_blocks or not stream.advance(offset, offset + length):
            return
        here = (location.offset + stream.position) >> BLOCK_SHIFT
        if stream.reach - here > stream.blocks // 2:  # not yet: a run is not worth less than some blocks
            return
        last = (location.offset + location.length - 1) >> BLOCK_SHIFT
        stream.blocks = min(2 * stream.blocks, self._most_blocks)
        first, stop = max(stream.reach, here), min(here + stream.blocks, last) + 1
        if first < stop and self._client.store is not None:
            stream.reach = stop
            for run in _runs(first, stop, most=max(1, min(RUN_BLOCKS, stream.blocks // 4))):
                self._bring(stream, location.object, run)

    def wait(self, location: Location, *, seconds: float) -> None:
        """Wait for the blocks of a range that are being fetched ahead."""
        first, last = location.offset >> BLOCK_SHIFT, (location.offset + location.length - 1) >> BLOCK_SHIFT
        key = location.object.id
        with self._lock:
            coming = [self._coming[key, n] for n in range(first, last + 1) if (key, n) in self._coming]
        if coming:
            # one that waits for its turn is not waited for: who needs the block now fetches it
            wait_for_all([future for future in coming if future.running()], timeout=seconds)

    def close(self) -> None:
        """Let the threads go."""
        self._crew.close()

    def _bring(self, stream: Stream, ref: ObjectRef, run: BlockRun) -> None:
        keys: list[Key] = [(ref.id, block) for block in range(run.first, run.last + 1)]
        with self._lock:
            if any(key in self._coming for key in keys):  # another handle's stream is as far
                return
            future = self._crew.submit(partial(self._fetch, stream, ref, run))
            self._coming.update(dict.fromkeys(keys, future))
        future.add_done_callback(lambda _: self._forget(keys))

    def _forget(self, keys: list[Key]) -> None:
        with self._lock:
            for key in keys:
                self._coming.pop(key, None)

    def _fetch(self, stream: Stream, ref: ObjectRef, run: BlockRun) -> None:
        store = self._client.store
        if not stream.is_wanted or store is None or not store.admits(ref, length=0):
            return
        missing = store.missing_blocks(ref, range(run.first, run.last + 1))
        if missing:
            self._client.fetch(ref, run)
            self._counters.ahead_bytes += len(missing) * BLOCK_BYTES
        store.find(ref, *block_span(run, ref.size))  # checked here, so that the reads need not


def _runs(first: int, stop: int, *, most: int) -> Iterator[BlockRun]:
    """Cut blocks at multiples of `most`, so that two streams ask for the same runs."""
    while first < stop:
        end = min(stop, (first // most + 1) * most)
        yield BlockRun(first, end - 1)
        first = end
