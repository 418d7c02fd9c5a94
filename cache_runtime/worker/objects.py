"""`GET /v1/objects/{id}`: hits by sendfile, misses streamed block by block as they are filled."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from cache_runtime.errors import CacheError, ProtocolError
from cache_runtime.protocol import BlockSums, ErrorKind, Source, blocks_of, covers_blocks
from cache_runtime.store.blockfiles import block_checksum
from cache_runtime.store.layout import BLOCK_BYTES, SMALL_BYTES, checksum
from cache_runtime.worker.answers import REQUEST_ID
from cache_runtime.worker.hits import free_transport, send_hit
from cache_runtime.worker.lending import CachedRange, find_hot_range, find_range
from cache_runtime.worker.sending import send
from cache_runtime.worker.wanted import Wanted, read_wanted
from sources import Location, SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from cache_runtime.worker.node import Node
    from sources import ObjectRef

_log = logging.getLogger(__name__)
_SPAN_BYTES = 16 * BLOCK_BYTES  # looked up at once; a header of 16 checksums is short
_AHEAD = 4  # blocks of one answer that are fetched at a time


class Part(NamedTuple):
    """Some of the body, and what the header can say of it when it comes first."""

    data: CachedRange | memoryview
    source: Source
    sums: BlockSums | None

    @property
    def length(self) -> int:
        """Bytes of it."""
        return self.data.length if isinstance(self.data, CachedRange) else len(self.data)


async def get_object(node: Node, request: web.BaseRequest) -> web.StreamResponse:
    """Answer GET, and HEAD, which never fills."""
    wanted = read_wanted(node, request.raw_path, request.headers.get("Range"))
    # one by one: an object may be said to have a petabyte
    first = await _find_span(node, wanted.ref, *next(split_spans(wanted.offset, wanted.length)))
    alone = first is not None and first.length == wanted.length
    hit = alone or (first is not None and await _has_all(node, wanted))
    node.metrics.count_lookups("hit" if hit else "miss")
    if first is not None and hit and request.method == "HEAD":
        return _header(request, wanted, Part(first, Source.LOCAL, first.sums))
    if first is not None and alone:
        node.recents.note(wanted.ref, wanted.offset, wanted.length, wanted.share)
        return await _send_hit(node, request, wanted, first)
    if not hit and not (wanted.fill and request.method == "GET"):
        raise ProtocolError("not in this worker's store", kind=ErrorKind.NOT_CACHED)
    node.refuse_if_leaving()
    with node.budget.holding(min(wanted.length, _AHEAD * BLOCK_BYTES)):
        return await _stream_parts(node, request, wanted, find_parts(node, wanted))


def split_spans(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut a range at every 64 MiB of its object."""
    end = offset + length
    while offset < end:
        stop = min(end, (offset // _SPAN_BYTES + 1) * _SPAN_BYTES)
        yield offset, stop - offset
        offset = stop


async def find_parts(node: Node, wanted: Wanted) -> AsyncGenerator[Part, None]:
    """Yield the body's parts in order: what is here from its file, the rest as it arrives."""
    for span in split_spans(wanted.offset, wanted.length):
        found = await _find_span(node, wanted.ref, *span)
        node.recents.note(wanted.ref, *span, wanted.share)
        if found is not None:
            yield Part(found, Source.LOCAL, found.sums)
            continue
        async with aclosing(_fill_span(node, wanted, *span)) as parts:
            async for part in parts:
                yield part


async def _find_span(node: Node, ref: ObjectRef, offset: int, length: int) -> CachedRange | None:
    found = find_hot_range(node.store, ref, offset, length)
    return found or await node.on_disk(find_range, node.store, ref, offset, length)


async def _fill_span(node: Node, wanted: Wanted, offset: int, length: int) -> AsyncGenerator[Part, None]:
    """Fetch the blocks of a span, some of them ahead of the reader."""
    rest = iter(list(_split_blocks(wanted.ref.size, offset, length)))
    flying: deque[asyncio.Task[Part]] = deque()
    try:
        while True:
            while len(flying) < _AHEAD and (block := next(rest, None)) is not None:
                flying.append(asyncio.create_task(node.on_fill(_fill_block, node, wanted, *block)))
            if not flying:
                return
            yield await flying.popleft()
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


def _split_blocks(size: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    if size <= SMALL_BYTES:
        yield offset, length
        return
    end = offset + length
    while offset < end:
        stop = min(end, (offset // BLOCK_BYTES + 1) * BLOCK_BYTES)
        yield offset, stop - offset
        offset = stop


def _fill_block(node: Node, wanted: Wanted, offset: int, length: int) -> Part:
    """Get a range inside of one block, caching the block; in a thread."""
    ref = wanted.ref
    view = node.read_as_owner([Location(ref, offset, length)], wanted.share)[0]
    if not covers_blocks(ref.size, offset, length):
        return Part(view, Source.FILLED, None)
    block = blocks_of(ref.size, offset, length).first
    crc = checksum(view, ref.id) if ref.size <= SMALL_BYTES else block_checksum(ref.id, block, view)
    return Part(view, Source.FILLED, BlockSums(block, (crc,)))


async def _has_all(node: Node, wanted: Wanted) -> bool:
    for offset, length in split_spans(wanted.offset, wanted.length):
        run = blocks_of(wanted.ref.size, offset, length)
        if await node.on_disk(node.store.missing_blocks, wanted.ref, range(run.first, run.last + 1)):
            return False
    return True


async def _send_hit(node: Node, request: web.BaseRequest, wanted: Wanted, found: CachedRange) -> web.StreamResponse:
    transport = free_transport(node, request)
    response: web.StreamResponse
    if transport is not None:
        fields = wanted.header(Source.LOCAL, found.sums, request_id=request[REQUEST_ID])
        response = await send_hit(node, transport, wanted.status, fields, found)
    else:
        response = _header(request, wanted, Part(found, Source.LOCAL, found.sums))
        await response.prepare(request)
        await send(node, request, response, found)
        await response.write_eof()
    node.metrics.count_served(Source.LOCAL, found.length)
    return response


async def _stream_parts(
    node: Node, request: web.BaseRequest, wanted: Wanted, parts: AsyncGenerator[Part, None]
) -> web.StreamResponse:
    """Send the header once the first part is there, so that its failure still has a status of its own."""
    async with aclosing(parts):
        part = await anext(parts)
        response = _header(request, wanted, part)
        await response.prepare(request)
        try:
            while True:
                await send(node, request, response, part.data)
                node.metrics.count_served(part.source, part.length)
                following = await anext(parts, None)
                if following is None:
                    break
                part = following
        except (SourceError, CacheError, TimeoutError) as error:
            node.metrics.count_lookups("error")
            _log.warning("answer broken off id=%s object=%s: %s", request[REQUEST_ID], wanted.ref.uri, error)
            raise ConnectionAbortedError("the fill failed underway") from error
        await response.write_eof()
    return response


def _header(request: web.BaseRequest, wanted: Wanted, first: Part) -> web.StreamResponse:
    headers = wanted.header(first.source, first.sums, request_id=request[REQUEST_ID])
    return web.StreamResponse(status=wanted.status, headers=headers)
