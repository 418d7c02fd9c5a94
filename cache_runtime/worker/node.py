"""What all handlers of one worker share."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from cache_runtime.errors import CacheOffError, WorkerBusyError
from cache_runtime.worker.budget import Budget
from cache_runtime.worker.metrics import Metrics
from cache_runtime.worker.recents import Recents
from cache_runtime.worker.tokens import Tokens
from cache_runtime.worker.waits import DiskWaits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache_runtime.client import Client
    from cache_runtime.protocol import EvictRequest
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shares import Share
    from cache_runtime.worker.config import WorkerConfig
    from cache_runtime.worker.interfaces import LoadJobs, Neighbours
    from sources import Location, Origins

_SCRATCH_BYTES = 1 << 20  # copied in some 0.2 ms, for which the event loop does nothing else
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Node:
    """One worker: its store, its limits, its threads.

    Args:
        config: As given to it.
        client: Reads and fills this node's store.
        origins: The stores that may be read; an object outside of them is refused, cached or not.
        loads: Its load jobs; without them loads are refused.
        neighbours: The other workers; without them nothing is handed over as it leaves.

    Attributes:
        draining: It is leaving: it answers what it has and gets nothing new.
        incarnation: Another one after each start.
        scratch: Memory for what the event loop's thread sends at once; no longer anyone's when it has.
    """

    def __init__(
        self,
        config: WorkerConfig,
        *,
        client: Client,
        origins: Origins,
        loads: LoadJobs | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        if client.store is None:
            raise CacheOffError("(none)", "the worker's client was made without a store")
        self.config = config
        self.limits = config.limits
        self.client = client
        self.origins = origins
        self.loads = loads
        self.neighbours = neighbours
        self.tokens = Tokens(config.tokens, config.token_file)
        self.shares: dict[str, Share] = {share.name: share for share in config.shares}
        self.budget = Budget(config.limits.max_inflight_bytes)
        self.recents = Recents()
        self.waits = DiskWaits()
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self.metrics = Metrics(self)
        self.draining = False
        self.incarnation = secrets.token_hex(8)
        self.url = config.url or ""
        self.started = time.time()
        self._disk = ThreadPoolExecutor(config.limits.disk_threads, thread_name_prefix="forebay-disk")
        self._fill = ThreadPoolExecutor(config.limits.fill_threads, thread_name_prefix="forebay-fill")

    @property
    def store(self) -> NodeStore:
        """The store of this node."""
        assert self.client.store is not None
        return self.client.store

    def refuse_if_leaving(self) -> None:
        """Begin nothing new once the worker leaves; what is under way goes on.

        Raises:
            WorkerBusyError: If it leaves.
        """
        if self.draining:
            raise WorkerBusyError("this worker is leaving; ask the next one", kind="unavailable")

    async def on_disk(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run what touches only this node's disk in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    async def on_fill(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run what may wait for others in a thread.

        Raises:
            TimeoutError: After `fill_seconds`; the thread goes on, and what it brings is cached.
        """
        async with asyncio.timeout(self.limits.fill_seconds):
            return await asyncio.get_running_loop().run_in_executor(self._fill, work, *arguments)

    def read_as_owner(self, items: Sequence[Location], share: Share) -> list[memoryview]:
        """Read ranges and cache them, from other workers' stores or the origin; in a thread. Raises as `Client.read`.

        It never makes another worker fill: two that disagree about the members would ask each other in circles.
        """
        return self.client.read_many(items, share=share)

    def evict(self, wanted: EvictRequest) -> int:
        """Evict, and return how many bytes that freed; in a thread."""
        return self.store.evict(wanted.ids or (), share=wanted.share, need_bytes=wanted.need_bytes or 0)

    def close(self, *, seconds: float) -> bool:
        """Stop the threads; say whether all of them ended in time."""
        end = time.monotonic() + seconds
        closers = [threading.Thread(target=pool.shutdown, daemon=True) for pool in (self._disk, self._fill)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(max(0.0, end - time.monotonic()))
        return not any(closer.is_alive() for closer in closers)
