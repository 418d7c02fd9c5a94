"""Reading past the cache: exact ranges of what this node does not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

from cache_runtime.store.layout import BLOCK_BYTES, BLOCK_SHIFT, RUN_BLOCKS, SMALL_BYTES
from sources import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from cache_runtime.peers.routing import Ask, Route
    from cache_runtime.sourcing import Sourcing
    from cache_runtime.store.shares import Share
    from sources.crew import Crew

    Task = list[tuple[int, Location, Route]]

_PART_BYTES = RUN_BLOCKS * BLOCK_BYTES
_BATCH_ITEMS = 1024


def read_past(items: Sequence[Location], sourcing: Sourcing, share: Share, crew: Crew) -> list[Buffer]:
    """Get ranges of any length from other nodes or the origin, side by side, and store nothing.

    Args:
        items: Not empty, inside of their objects.
        sourcing: Where they come from.
        share: For what other nodes keep of it.
        crew: Runs the requests.

    Raises:
        ChecksumError, SourceError: As `Client.read`, for the first one that fails.
    """
    parts = [(number, part) for number, item in enumerate(items) for part in _split(item, sourcing)]
    tasks = list(_plan(parts, sourcing, share))

    def run(task: Task) -> list[tuple[Location, int, Buffer]]:
        got = sourcing.ranges([part for _, part, _ in task], [route for *_, route in task], share)
        return [(task[place][1], task[place][0], fetched.data) for place, fetched in got]

    found = [run(tasks[0])] if len(tasks) == 1 else crew.map(run, tasks)
    return _join(items, [row for rows in found for row in rows])


def _plan(parts: Sequence[tuple[int, Location]], sourcing: Sourcing, share: Share) -> Iterator[Task]:
    """Put together what one worker is asked for first; origins are asked for one range at a time."""
    routes = sourcing.routes([(part.object, _block_of(part)) for _, part in parts], share)
    batches: dict[Ask, Task] = {}
    sizes: dict[Ask, int] = {}
    for (number, part), route in zip(parts, routes, strict=True):
        if not route.asks:
            yield [(number, part, route)]
            continue
        ask = route.asks[0]
        batch = batches.setdefault(ask, [])
        if batch and (len(batch) >= _BATCH_ITEMS or sizes[ask] + part.length > _PART_BYTES):
            yield batch
            batch, sizes[ask] = [], 0
            batches[ask] = batch
        batch.append((number, part, route))
        sizes[ask] = sizes.get(ask, 0) + part.length
    yield from (batch for batch in batches.values() if batch)


def _join(items: Sequence[Location], parts: Sequence[tuple[Location, int, Buffer]]) -> list[Buffer]:
    """Put the parts of each item into one piece of memory."""
    joined: dict[int, Buffer] = {}
    for part, number, data in parts:
        item = items[number]
        if part.length == item.length:
            joined[number] = data
            continue
        if number not in joined:
            joined[number] = numpy.empty(item.length, numpy.uint8).data
        whole = memoryview(joined[number])
        start = part.offset - item.offset
        whole[start : start + part.length] = memoryview(data).cast("B")
    return [joined[number] for number in range(len(items))]


def _block_of(item: Location) -> int:
    return 0 if item.object.size <= SMALL_BYTES else item.offset >> BLOCK_SHIFT


def _split(item: Location, sourcing: Sourcing) -> Iterator[Location]:
    """Cut a range at every 16 MiB of its object, which no group of blocks crosses, if workers may be asked for it."""
    if sourcing.peers is None:
        yield item
        return
    offset, end = item.offset, item.offset + item.length
    while offset < end:
        stop = min(end, (offset // _PART_BYTES + 1) * _PART_BYTES)
        yield Location(item.object, offset, stop - offset)
        offset = stop
