"""Hits answered as their request arrives, before aiohttp has parsed it: its turns of the loop take longer.

Whatever is not usual here (a miss, another token, an error, a reader that takes no whole answer at once) goes on, or
begins, the ordinary way: see `application.make_server`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol import OBJECTS_PATH, Source
from cache_runtime.worker.answers import Answered, choose_id, note_answer
from cache_runtime.worker.heads import read_head
from cache_runtime.worker.hits import SENT, begin_hit
from cache_runtime.worker.lending import find_hot_range
from cache_runtime.worker.objects import split_spans
from cache_runtime.worker.sending import send_rest, write_rest
from cache_runtime.worker.wanted import read_wanted
from sources import SourceError

if TYPE_CHECKING:
    import asyncio

    from cache_runtime.worker.lending import CachedRange
    from cache_runtime.worker.node import Node

_ROUTE = f"{OBJECTS_PATH}{{id}}"


class Begun(NamedTuple):
    """An answer that has begun.

    Attributes:
        part: What is sent from: a body whose header went out, or a copy of what did not go of an answer from memory.
        sent: Bytes of it that went.
        served_bytes: Of objects, in the whole answer.
    """

    part: CachedRange | memoryview
    sent: int
    served_bytes: int
    answered: Answered
    since: float

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to send."""
        return self.sent == (len(self.part) if isinstance(self.part, memoryview) else self.part.length)


def begin_answer(node: Node, transport: asyncio.Transport, data: bytes) -> Begun | None:
    """Answer a request at once if it is for a hit, all of `data`, and nothing else is to be said.

    Returns:
        None if nothing was sent, and nothing counted. What was sent whole is counted and logged; the rest of another
        one, and that, is up to `finish_answer`.

    Raises:
        ConnectionError: If the reader went away; the header may have gone.
    """
    since = time.perf_counter()
    head = read_head(data, max_bytes=node.limits.max_header_bytes)
    if head is None or transport.get_write_buffer_size() or not node.tokens.accept(head.authorization):
        return None
    try:
        wanted = read_wanted(node, head.target, head.range)
    except (ProtocolError, SourceError):
        return None
    if next(split_spans(wanted.offset, wanted.length))[1] != wanted.length:
        return None
    part = find_hot_range(node.store, wanted.ref, wanted.offset, wanted.length)
    if part is None:
        return None
    request_id = choose_id(head.request_id)
    fields = wanted.header(Source.LOCAL, part.sums, request_id=request_id)
    remote = transport.get_extra_info("peername")
    answered = Answered(request_id, "GET", _ROUTE, wanted.status, remote[0] if remote else None)
    node.metrics.count_lookups("hit")
    node.recents.note(wanted.ref, wanted.offset, wanted.length, wanted.share)
    begun = Begun(part, begin_hit(transport, wanted.status, fields, part), part.length, answered, since)
    if begun.is_whole:
        note_whole(node, begun)
    return begun


async def finish_answer(node: Node, request: web.BaseRequest, begun: Begun) -> web.StreamResponse:
    """Send the rest of an answer; `request` is the one that it answers, as aiohttp read it."""
    try:
        if request.transport is None:
            raise ConnectionResetError("the reader went away")
        if isinstance(begun.part, memoryview):
            with node.budget.holding_at_any_rate(len(begun.part)):
                await write_rest(request, begun.part, stall_seconds=node.limits.stall_seconds)
        else:
            await send_rest(request.transport, begun.part, begun.sent, stall_seconds=node.limits.stall_seconds)
    except ConnectionError:
        # what was sent goes out, then the connection ends: fewer bytes than promised tell the reader
        request.protocol.force_close()
        note_answer(node, begun.answered._replace(status=499), seconds=time.perf_counter() - begun.since)
        return web.Response(status=499)
    note_whole(node, begun)
    return SENT[begun.answered.status]


def note_whole(node: Node, begun: Begun) -> None:
    """Count and log an answer that was sent whole."""
    node.metrics.count_served(Source.LOCAL, begun.served_bytes)
    note_answer(node, begun.answered, seconds=time.perf_counter() - begun.since)
