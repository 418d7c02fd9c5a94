"""Bytes to the caller: from a file (mapped, or by sendfile), or from memory; a reader that takes nothing is cut off."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from cache_runtime.worker.lending import CachedRange

if TYPE_CHECKING:
    import socket

    from aiohttp import web

    from cache_runtime.worker.node import Node

_FILE_CHUNK = 16 << 20
_MEMORY_CHUNK = 1 << 20


async def send(
    node: Node, request: web.BaseRequest, response: web.StreamResponse, part: CachedRange | memoryview
) -> None:
    """Send a part of a body whose header was sent.

    Raises:
        ConnectionError: If the caller went away, takes nothing for `stall_seconds`, or the file is too short.
    """
    if not isinstance(part, CachedRange):
        await send_memory(response, part, stall_seconds=node.limits.stall_seconds)
    elif node.config.tls is None:
        if request.transport is None:
            raise ConnectionResetError("the reader went away")
        await send_rest(request.transport, part, 0, stall_seconds=node.limits.stall_seconds)
    else:
        for start in range(0, part.length, _MEMORY_CHUNK):
            wanted = min(_MEMORY_CHUNK, part.length - start)
            data = await node.on_disk(part.read, start, wanted)
            if len(data) != wanted:
                raise ConnectionAbortedError("a cached file is too short")
            await send_memory(response, memoryview(data), stall_seconds=node.limits.stall_seconds)


async def send_memory(response: web.StreamResponse, data: memoryview, *, stall_seconds: float) -> None:
    """Send bytes from memory; raises as `send`."""
    for start in range(0, len(data), _MEMORY_CHUNK):
        try:
            async with asyncio.timeout(stall_seconds):
                await response.write(data[start : start + _MEMORY_CHUNK])
        except TimeoutError as error:
            raise ConnectionAbortedError("the reader takes nothing") from error


async def write_rest(request: web.BaseRequest, data: memoryview, *, stall_seconds: float) -> None:
    """Send the rest of an answer that did not go out through aiohttp; raises as `send`."""
    try:
        async with asyncio.timeout(stall_seconds):
            await request.writer.write(data)
            await request.writer.drain()
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError("the reader takes nothing") from error


async def send_rest(transport: asyncio.Transport, part: CachedRange, start: int, *, stall_seconds: float) -> None:
    """Send a cached range from `start` on by sendfile; raises as `send`."""
    while start < part.length:
        if transport.is_closing():
            raise ConnectionResetError("the reader went away")
        wanted = min(_FILE_CHUNK, part.length - start)
        sent = send_at_once(transport, part, start, wanted)
        if sent < wanted:
            sent += await _send_with_patience(transport, part, start + sent, wanted - sent, seconds=stall_seconds)
        start += sent


def send_at_once(transport: asyncio.Transport, part: CachedRange, start: int, length: int) -> int:
    """Give the kernel as much as the socket takes: usually all of a block, without a turn of the event loop.

    Raises:
        ConnectionError: If the reader went away, or the bytes cannot be read.
    """
    if transport.get_write_buffer_size():
        return 0
    connection: socket.socket = transport.get_extra_info("socket")
    try:
        if part.view is not None:
            return os.write(connection.fileno(), part.view[start : start + length])
        return os.sendfile(connection.fileno(), part.fileno(), part.lent.offset + start, length)
    except BlockingIOError:
        return 0
    except ConnectionError:
        raise
    except OSError as error:  # no other answer can follow a header
        raise ConnectionAbortedError("a cached file cannot be read") from error


async def _send_with_patience(
    transport: asyncio.Transport, part: CachedRange, start: int, length: int, *, seconds: float
) -> int:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            sent = await loop.sendfile(transport, part, part.lent.offset + start, length)  # type: ignore[arg-type]
    except TimeoutError as error:
        transport.abort()
        raise ConnectionAbortedError("the reader takes nothing") from error
    if sent != length:
        raise ConnectionAbortedError("a cached file is too short")
    return sent
