"""The limit of connections: one too many is told so and closed, before a byte of it is read."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast

from aiohttp import web

from cache_runtime.protocol import ErrorKind, PeerFailure, error_document
from cache_runtime.worker.answers import refuse

_log = logging.getLogger(__name__)

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
        server: Answers those within the limit.
        limit: Most connections at a time; a TLS handshake counts as one.
        settings: Of aiohttp's `RequestHandler`.
    """

    def __init__(self, server: web.Server, limit: int, **settings: Any) -> None:
        self._server = server
        self._limit = limit
        self._settings = settings
        self._coming: list[_Handler] = []

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the server's protocol, or one that refuses."""
        loop = asyncio.get_running_loop()
        # several are accepted in one turn of the loop, before the server is told of the first
        self._coming = [one for one in self._coming if not one.is_made and one.since > loop.time() - HANDSHAKE_SECONDS]
        if len(self._server.connections) + len(self._coming) >= self._limit:
            return _Refusal()
        handler = _Handler(self._server, loop=loop, **self._settings)
        self._coming.append(handler)
        return handler


class _Handler(web.RequestHandler):
    def __init__(self, server: web.Server, *, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(server, loop=loop, **settings)
        self.since = loop.time()
        self.is_made = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_made = True
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP; aiohttp would log it, and the token may be in it."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        _log.info("no http request remote=%s error=%s", request.remote, type(exc).__name__)
        answer = refuse(PeerFailure(ErrorKind.BAD_REQUEST, "this is no HTTP/1.1, or a line of its header is too long"))
        answer.force_close()
        return answer


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
