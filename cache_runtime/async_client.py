"""Reading from an event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache_runtime.client import Client
    from cache_runtime.explaining import Explanation
    from cache_runtime.store.shares import Share
    from sources import Location

Result = TypeVar("Result")


class AsyncClient:
    """A `Client` for services: what is cached here is returned at once, all else is waited for in a thread.

    Cancelling a read frees the caller; a fetch that has begun goes on, and is cached.

    Args:
        client: Does the reading.
        threads: Most reads that wait at a time; further ones queue.
    """

    def __init__(self, client: Client, *, threads: int = 32) -> None:
        self.client = client
        self._crew = Crew(threads, name="forebay-async")  # not the client's own, whose threads these wait for

    async def read(self, location: Location, *, share: Share | None = None) -> memoryview:
        """Do `Client.read`, with its guarantees and errors."""
        view = self.client.find(location)
        return view if view is not None else await self._run(partial(self.client.read, location, share=share))

    async def read_many(self, locations: Sequence[Location], *, share: Share | None = None) -> list[memoryview]:
        """Do `Client.read_many`, in a thread: a list takes long enough to be in the way of the loop."""
        return await self._run(partial(self.client.read_many, locations, share=share))

    async def explain(self, location: Location) -> Explanation:
        """Do `Client.explain`."""
        return await self._run(partial(self.client.explain, location))

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._crew.submit(work))
