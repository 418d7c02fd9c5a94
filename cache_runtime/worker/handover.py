"""Leaving: the next candidates take over what was read lately, newest first, until the deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.errors import CacheError
from cache_runtime.protocol import MAX_BATCH_BYTES
from cache_runtime.store.layout import BLOCK_BYTES, SMALL_BYTES, BlockRun, block_span
from sources import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache_runtime.store.shares import Share
    from cache_runtime.worker.interfaces import Neighbours
    from cache_runtime.worker.node import Node
    from sources import ObjectRef

_log = logging.getLogger(__name__)
_GROUP_BLOCKS = MAX_BATCH_BYTES // BLOCK_BYTES
_GROUPS_AT_ONCE = 512
_BATCH_ITEMS = 256  # short enough that a deadline does not lose much
_SENDERS = 4


class Handing(NamedTuple):
    """What one neighbour is asked to take, in one batch."""

    neighbour: str
    share: Share
    items: list[Location]


async def hand_over(node: Node, neighbours: Neighbours, *, deadline: float) -> int:
    """Ask the next candidates to fetch from this worker, through their normal fills, until `deadline` (monotonic).

    This worker still answers what it has meanwhile. A neighbour that fails is not asked again. Whatever is not handed
    over is a miss later, and nothing else.

    Returns:
        Bytes that were taken.
    """
    recents = node.recents.newest_first()
    failed: set[str] = set()
    taken = 0
    while time.monotonic() < deadline:
        groups = list(islice(recents, _GROUPS_AT_ONCE))
        if not groups:
            break
        batches = await node.on_disk(_pack, node, neighbours, groups)
        rest = iter([batch for batch in batches if batch.neighbour not in failed])
        senders = [_send_all(node, neighbours, rest, failed, deadline=deadline) for _ in range(_SENDERS)]
        taken += sum(await asyncio.gather(*senders))
    _log.info("handed over name=%s bytes=%d failed=%s", node.config.name, taken, sorted(failed))
    return taken


def _pack(node: Node, neighbours: Neighbours, groups: Sequence[tuple[ObjectRef, int, Share]]) -> list[Handing]:
    """Join what is still here into batches for each neighbour, full ones first, the order kept inside."""
    full: list[Handing] = []
    open_batches: dict[tuple[str, Share], list[Location]] = defaultdict(list)
    for ref, group, share in groups:
        neighbour = neighbours.next_for(ref, group)
        if neighbour is None:
            continue
        for item in _present_items(node, ref, group):
            items = open_batches[neighbour, share]
            if len(items) == _BATCH_ITEMS or sum(one.length for one in items) + item.length > MAX_BATCH_BYTES:
                full.append(Handing(neighbour, share, items))
                items = open_batches[neighbour, share] = []
            items.append(item)
    return full + [Handing(neighbour, share, items) for (neighbour, share), items in open_batches.items()]


def _present_items(node: Node, ref: ObjectRef, group: int) -> Iterator[Location]:
    last = 0 if ref.size <= SMALL_BYTES else (ref.size - 1) // BLOCK_BYTES
    blocks = range(group * _GROUP_BLOCKS, min(last + 1, (group + 1) * _GROUP_BLOCKS))
    missing = set(node.store.missing_blocks(ref, blocks))
    for block in blocks:
        if block not in missing:
            yield Location(ref, *block_span(BlockRun(block, block), ref.size))


async def _send_all(
    node: Node, neighbours: Neighbours, batches: Iterator[Handing], failed: set[str], *, deadline: float
) -> int:
    taken = 0
    for batch in batches:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            break
        if batch.neighbour in failed:
            continue
        try:
            size = await node.on_disk(_send_one, neighbours, batch, seconds)
        except CacheError as error:
            failed.add(batch.neighbour)
            _log.warning("not handed over neighbour=%s reason=%s", batch.neighbour, error)
            continue
        node.metrics.count_handed_over(size)
        taken += size
    return taken


def _send_one(neighbours: Neighbours, batch: Handing, seconds: float) -> int:
    return neighbours.hand(batch.neighbour, batch.items, share=batch.share, seconds=seconds)
