"""`POST /v1/batch`: many ranges in one answer, in order, one that fails beside the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from cache_runtime.errors import CacheError
from cache_runtime.protocol import (
    BATCH_TYPE,
    REQUEST_HEADER,
    BatchRequest,
    ErrorKind,
    PeerFailure,
    Source,
    decode_batch,
    frame_failure,
    frame_item,
)
from cache_runtime.worker.answers import REQUEST_ID, failure_of
from cache_runtime.worker.requests import decoded, promised
from cache_runtime.worker.sending import send_memory
from sources import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime.store.shares import Share
    from cache_runtime.worker.node import Node
    from sources import Location

    Answer = memoryview | PeerFailure

_QUICK_BYTES = 1 << 20
_NOT_CACHED = PeerFailure(ErrorKind.NOT_CACHED, "not in this worker's store")


async def post_batch(node: Node, request: web.BaseRequest) -> web.StreamResponse:
    """Answer a batch: what is here at once, the rest filled together."""
    batch, answers = await decoded(node, request, _look_up)
    share = promised(node, batch.share)
    wanted_bytes = sum(item.length for item in batch.items)
    with node.budget.holding(wanted_bytes):
        await _fill_missing(node, batch, share, answers)
        # a switch to a thread costs as much as framing a small batch
        quick = wanted_bytes <= _QUICK_BYTES
        data = _frame(batch, answers) if quick else await node.on_disk(_frame, batch, answers)
        headers = {"Content-Type": BATCH_TYPE, "Content-Length": str(len(data)), "Server": "forebay"}
        response = web.StreamResponse(headers={**headers, REQUEST_HEADER: request[REQUEST_ID]})
        await response.prepare(request)
        await send_memory(response, memoryview(data), stall_seconds=node.limits.stall_seconds)
        await response.write_eof()
    for item, answer in zip(batch.items, answers, strict=True):
        if isinstance(answer, memoryview):
            node.recents.note(item.object, item.offset, item.length, share)
    return response


def _look_up(node: Node, body: bytes) -> tuple[BatchRequest, list[Answer | None]]:
    """Return what is here, None for the rest, and a refusal for what no store of this worker covers."""
    batch = decode_batch(body)
    answers: list[Answer | None] = []
    for item, view in zip(batch.items, node.store.find_many(batch.items), strict=True):
        try:
            node.origins.store_for(item.object)
            answers.append(view)
        except SourceError as error:
            answers.append(failure_of(error))
    return batch, answers


async def _fill_missing(node: Node, batch: BatchRequest, share: Share, answers: list[Answer | None]) -> None:
    """Replace each None in `answers`."""
    missing = [number for number, answer in enumerate(answers) if answer is None]
    refused = sum(isinstance(answer, PeerFailure) for answer in answers)
    for result, number in (("hit", len(answers) - len(missing) - refused), ("miss", len(missing)), ("error", refused)):
        node.metrics.count_lookups(result, number)
    node.metrics.count_served(Source.LOCAL, sum(len(found) for found in answers if isinstance(found, memoryview)))
    if not missing:
        return
    filled: Sequence[Answer] = [_NOT_CACHED] * len(missing)
    if batch.fill:
        try:
            node.refuse_if_leaving()
            items = [batch.items[number] for number in missing]
            until = time.monotonic() + node.limits.fill_seconds
            filled = await node.on_fill(_fill, node, items, share, until)
        except (CacheError, TimeoutError) as error:
            filled = [failure_of(error)] * len(missing)
    for number, answer in zip(missing, filled, strict=True):
        answers[number] = answer
    node.metrics.count_served(Source.FILLED, sum(len(found) for found in filled if isinstance(found, memoryview)))


def _fill(node: Node, items: Sequence[Location], share: Share, until: float) -> list[Answer]:
    """Read items all at once; when one of them fails, either half by itself: what was fetched is there by then.

    After `until` (monotonic) nobody waits for the answer any more, and an origin that is down takes long for each item.
    """
    if time.monotonic() >= until:
        return [failure_of(TimeoutError())] * len(items)
    try:
        return list(node.read_as_owner(items, share))
    except (SourceError, CacheError) as error:
        if len(items) == 1:
            return [failure_of(error)]
    middle = len(items) // 2
    return _fill(node, items[:middle], share, until) + _fill(node, items[middle:], share, until)


def _frame(batch: BatchRequest, answers: Sequence[Answer | None]) -> bytes:
    frames: list[bytes | memoryview] = []
    for item, answer in zip(batch.items, answers, strict=True):
        if isinstance(answer, memoryview):
            body = answer if batch.bodies else answer[:0]
            frames += (frame_item(item.object.id, body), body)
        else:
            frames.append(frame_failure(item.object.id, answer or _NOT_CACHED))
    return b"".join(frames)
