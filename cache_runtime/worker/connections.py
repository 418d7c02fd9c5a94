"""One connection of a worker: hits are answered as they are asked for, the rest is aiohttp's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from cache_runtime.protocol import ErrorKind, PeerFailure
from cache_runtime.worker.answers import refuse
from cache_runtime.worker.heads import Framing
from cache_runtime.worker.quick import Begun, begin_answer
from cache_runtime.worker.quick_batches import begin_batch

if TYPE_CHECKING:
    import asyncio

    from cache_runtime.worker.node import Node

_log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """aiohttp's handler, with a look at each request before it.

    Args:
        node: The worker.
        server: Whose connection it is.
        loop: The event loop.
        settings: Of aiohttp's `RequestHandler`.

    Attributes:
        since: When it was accepted, by the loop's clock.
        is_made: Whether it is open: a TLS handshake comes before that.
    """

    def __init__(self, node: Node, server: web.Server, *, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(server, loop=loop, **settings)
        self.since = loop.time()
        self.is_made = False
        self._node = node
        self._framing = Framing()
        self._begun: Begun | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.is_made = True
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Answer a hit now, or leave the bytes to aiohttp."""
        transport = self.transport
        if transport is not None and self._framing.is_clean and self._is_idle():
            try:
                begin = begin_batch if data.startswith(b"POST") else begin_answer
                begun = begin(self._node, transport, data)
            except ConnectionError:
                transport.abort()
                return
            if begun is not None:
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                if begun.is_whole:
                    return
                self._begun = begun
        self._framing.note(data)
        super().data_received(data)

    def take_begun(self) -> Begun | None:
        """Return the answer that the request of now has got a part of, once."""
        begun, self._begun = self._begun, None
        return begun

    def _is_idle(self) -> bool:
        """Say whether aiohttp waits for the first byte of a request, in the clear; as its own keep-alive timer does."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._messages or self._force_close or self._close:
            return False
        return self._node.config.tls is None

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
