"""The limit of connections: one too many is told so and closed, before a byte of it is read."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

from cache_runtime.protocol import ErrorKind, error_document
from cache_runtime.worker.connections import Connection

if TYPE_CHECKING:
    from aiohttp import web

    from cache_runtime.worker.node import Node

_BODY = json.dumps(error_document(ErrorKind.UNAVAILABLE, "too many connections; use those you have")).encode()
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_LINGER_SECONDS = 1.0
HANDSHAKE_SECONDS = 10.0


class Doorman:
    """Makes the protocol of each new connection.

    Args:
        node: The worker, whose limit of connections is kept; a TLS handshake counts as one.
        server: Answers those within the limit.
        settings: Of aiohttp's `RequestHandler`.
    """

    def __init__(self, node: Node, server: web.Server, **settings: Any) -> None:
        self._node = node
        self._server = server
        self._limit = node.limits.max_connections
        self._settings = settings
        self._coming: list[Connection] = []

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the server's protocol, or one that refuses."""
        loop = asyncio.get_running_loop()
        # several are accepted in one turn of the loop, before the server is told of the first
        self._coming = [one for one in self._coming if not one.is_made and one.since > loop.time() - HANDSHAKE_SECONDS]
        if len(self._server.connections) + len(self._coming) >= self._limit:
            return _Refusal()
        handler = Connection(self._node, self._server, loop=loop, **self._settings)
        self._coming.append(handler)
        return handler


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(_ANSWER)
        # closed at once, with a request unread, the kernel would reset the connection and lose the answer
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._transport.close)

    def data_received(self, data: bytes) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
