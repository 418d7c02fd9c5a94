"""Hits in one piece, the usual answer: header and bytes leave together, usually all at once.

aiohttp reads the request and keeps the connection; its way of writing a header takes as long as all else that a hit
needs, so the header is written here.
"""

from __future__ import annotations

import socket
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web

from cache_runtime.worker.sending import send_at_once, send_rest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from cache_runtime.worker.lending import CachedRange
    from cache_runtime.worker.node import Node


class Sent(web.StreamResponse):
    """An answer that went out by other means than aiohttp's; the connection is kept."""

    @property
    def prepared(self) -> bool:
        """Its header has gone."""
        return True

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing."""


SENT = {status: Sent(status=status) for status in (200, 206)}
_LINES = {status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n" for status in SENT}


def free_transport(node: Node, request: web.BaseRequest) -> asyncio.Transport | None:
    """Return the transport of a request that `send_hit` can answer: plain HTTP/1.1, kept alive, nothing left unsent."""
    transport = request.transport
    if transport is None or node.config.tls is not None or transport.get_write_buffer_size():
        return None
    return transport if request.keep_alive and request.version == HttpVersion11 else None


async def send_hit(
    node: Node, transport: asyncio.Transport, status: int, fields: Mapping[str, str], part: CachedRange
) -> web.StreamResponse:
    """Answer with a cached range.

    Args:
        node: The worker.
        transport: As `free_transport` returned it just now.
        status: 200 or 206.
        fields: The header, in ASCII and without line ends.
        part: The body.

    Raises:
        ConnectionError: As `sending.send`.
    """
    sent = begin_hit(transport, status, fields, part)
    if sent < part.length:
        await send_rest(transport, part, sent, stall_seconds=node.limits.stall_seconds)
    return SENT[status]


def begin_hit(transport: asyncio.Transport, status: int, fields: Mapping[str, str], part: CachedRange) -> int:
    """Send the header and as much of the body as the socket takes at once; return how many bytes of the body.

    Arguments and errors are those of `send_hit`; with bytes left over, the rest is `send_rest`'s.
    """
    header = write_head(status, fields)
    connection: socket.socket = transport.get_extra_info("socket")
    # the kernel holds the header back until the bytes are there: one packet and one reader's turn less
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    try:
        transport.write(header)
        return send_at_once(transport, part, 0, part.length)
    finally:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def write_head(status: int, fields: Mapping[str, str]) -> bytes:
    """Return a header; `fields` are in ASCII and without line ends."""
    rows = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    return f"{_LINES[status]}{rows}Date: {_date(int(time.time()))}\r\n\r\n".encode("ascii")


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
