"""A TCP proxy that breaks things on purpose, between a client and a real server on loopback."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.services.framing import Framing, Head, Piece

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

_SECONDS = 10
"""For starting, stopping and reaching the server."""
_CHUNK = 64 << 10
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST
_KEPT_HEADS = 1000


@dataclass
class Faults:
    """What goes wrong from now on; assign while the proxy runs. A `*_times` counts down as it strikes.

    Attributes:
        latency_seconds: Before a request (of HTTP) or any bytes (of other protocols) go on to the server.
        drip_bytes_per_second: How fast bytes go to the client.
        hang: Nothing is passed on in either direction; connections are accepted and stay open.
        reset_after: A connection is reset (RST) after so many bytes of a response's body (other protocols: of all that
            the server sends on a connection).
        reset_times: How many responses that strikes.
        truncate_after: The same with an orderly end (FIN).
        truncate_times: How many responses that strikes.
        unavailable_times: So many HTTP requests are answered by the proxy itself, with what follows.
        unavailable_status: Status line of those answers, without the version.
        unavailable_headers: Their headers, such as `Retry-After`.
        unavailable_body: Their body.
    """

    latency_seconds: float = 0
    drip_bytes_per_second: float = 0
    hang: bool = False
    reset_after: int = 0
    reset_times: int = 0
    truncate_after: int = 0
    truncate_times: int = 0
    unavailable_times: int = 0
    unavailable_status: str = "503 Slow Down"
    unavailable_headers: dict[str, str] = field(default_factory=dict)
    unavailable_body: bytes = b""


@dataclass
class Counts:
    """What went through so far.

    Attributes:
        connections: Accepted.
        requests: HTTP requests seen, those that the proxy answered included.
        bytes_up: From clients.
        bytes_down: To clients.
        struck: Resets, truncations and answers of the proxy's own.
    """

    connections: int = 0
    requests: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    struck: int = 0


class FaultProxy:
    """A running proxy; see `fault_proxy`.

    Attributes:
        port: Where clients connect, on 127.0.0.1.
        faults: What goes wrong from now on.
        counts: What went through.
        heads: First line and headers of the last 1000 HTTP requests, oldest first.
    """

    def __init__(self, server_port: int, *, http: bool) -> None:
        self.faults = Faults()
        self.counts = Counts()
        self.heads: deque[Head] = deque(maxlen=_KEPT_HEADS)
        self._server_port = server_port
        self._http = http
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._listener = _bound(0)
        self._listening = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: list[asyncio.StreamWriter] = []
        self.port = int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The proxy as an HTTP endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """End all faults; what hung goes on."""
        self.faults = Faults()
        self._call(self._listen())

    def refuse(self) -> None:
        """Refuse connections from now on, and reset those that are open, until `heal`."""
        self._call(self._refuse())

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        """Reset what is open and end the thread.

        Raises:
            TimeoutError: If that takes too long.
        """
        self._call(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._listener.close()
        self._loop.close()

    def _call(self, action: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(_SECONDS)

    async def _listen(self) -> None:
        if not self._listening:
            self._listener.listen()
            self._loop.add_reader(self._listener, self._accept)
            self._listening = True

    async def _refuse(self) -> None:
        if self._listening:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = _bound(self.port)  # bound and not listening: refused, and the port stays ours
            self._listening = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        # Not asyncio's start_server or sock_accept: cancelled while they accept, both leak the connection.
        client, _ = self._listener.accept()
        client.setblocking(False)
        self.counts.connections += 1
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, client))

    def _ended(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        client.close()  # a task that was cancelled before it began did not
        self._tasks.discard(task)

    async def _serve(self, client: socket.socket) -> None:
        down = await asyncio.open_connection(sock=client)
        try:
            async with asyncio.timeout(_SECONDS):
                up = await asyncio.open_connection("127.0.0.1", self._server_port)
            try:
                await _Connection(self, down, up, http=self._http).serve()
            finally:
                await _reset(up[1])
        except (OSError, TimeoutError):
            pass  # no server: the client is told by the reset
        finally:
            await _reset(down[1])


class _Connection:
    """One client's connection and ours to the server."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        http: bool,
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client = client
        self._server_reader, self._server = server
        self._http = http
        self._methods: deque[str] = deque()
        self._sent = 0  # bytes of the current response's body
        self._clean = False
        self._answering = False

    async def serve(self) -> None:
        """Pass bytes on until either side ends or a fault strikes."""
        pumps = [asyncio.create_task(self._upwards()), asyncio.create_task(self._downwards())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if pumps[0].done() and not pumps[0].exception() and not pumps[1].done():
                await asyncio.wait(pumps[1:])  # the client sends no more, and still reads
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)  # a side that broke off ends the other
        if self._clean:
            self._client.close()
            await self._client.wait_closed()

    async def _upwards(self) -> None:
        framing = Framing.of_requests()
        while data := await self._client_reader.read(_CHUNK):
            self._proxy.counts.bytes_up += len(data)
            if not self._http:
                await asyncio.sleep(self._proxy.faults.latency_seconds)
                await self._send_up(data)
                continue
            for piece in framing.feed(data):
                await self._pass_up(piece)
        with suppress(OSError):
            self._server.write_eof()

    async def _pass_up(self, piece: Piece) -> None:
        faults = self._proxy.faults
        if piece.head is not None:
            self._proxy.counts.requests += 1
            self._proxy.heads.append(piece.head)
            self._answering = faults.unavailable_times > 0
            if self._answering:
                faults.unavailable_times -= 1
            else:
                self._methods.append(piece.head.method)
                await asyncio.sleep(faults.latency_seconds)
        if not self._answering:
            await self._send_up(piece.data)
        elif piece.ends or (piece.head is not None and "expect" in piece.head.headers):
            await self._answer(faults, whole=piece.ends)

    async def _answer(self, faults: Faults, *, whole: bool) -> None:
        headers = {**faults.unavailable_headers, "Content-Length": str(len(faults.unavailable_body))}
        if not whole:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {faults.unavailable_status}", *(f"{name}: {value}" for name, value in headers.items())]
        self._proxy.counts.struck += 1
        await self._wait_while_hanging()
        await self._send_down("\r\n".join(lines).encode() + b"\r\n\r\n" + faults.unavailable_body)

    async def _downwards(self) -> None:
        framing = Framing.of_responses(self._methods)
        while data := await self._server_reader.read(_CHUNK):
            pieces = framing.feed(data) if self._http else [Piece(data, None, is_body=True, ends=False)]
            for piece in pieces:
                await self._wait_while_hanging()
                if piece.head is not None:
                    self._sent = 0
                if await self._strikes(piece):
                    return
                await self._send_down(piece.data)
                self._sent += len(piece.data) if piece.is_body else 0
        self._clean = True

    async def _strikes(self, piece: Piece) -> bool:
        """Send what may pass and return True if the connection ends in this piece."""
        faults = self._proxy.faults
        end = self._sent + len(piece.data)
        if not piece.is_body:
            return False
        if faults.reset_times and end > faults.reset_after:
            faults.reset_times -= 1
            limit = faults.reset_after
        elif faults.truncate_times and end > faults.truncate_after:
            faults.truncate_times -= 1
            limit, self._clean = faults.truncate_after, True
        else:
            return False
        self._proxy.counts.struck += 1
        await self._send_down(piece.data[: max(0, limit - self._sent)])
        if not self._clean:
            await asyncio.sleep(0.02)  # RST throws away what the client's kernel has not handed out yet
        return True

    async def _send_up(self, data: bytes) -> None:
        await self._wait_while_hanging()
        self._server.write(data)
        await self._server.drain()

    async def _send_down(self, data: bytes) -> None:
        while data:
            rate = self._proxy.faults.drip_bytes_per_second
            size = max(1, int(rate / 20)) if rate else len(data)
            self._client.write(data[:size])
            await self._client.drain()
            self._proxy.counts.bytes_down += min(size, len(data))
            data = data[size:]
            if rate:
                await asyncio.sleep(size / rate)

    async def _wait_while_hanging(self) -> None:
        while self._proxy.faults.hang:  # noqa: ASYNC110 - a plain attribute that the test's thread assigns
            await asyncio.sleep(0.01)


@contextmanager
def fault_proxy(server_port: int, *, http: bool = True) -> Iterator[FaultProxy]:
    """Run a proxy on a free port of 127.0.0.1 before a server's port there.

    Nothing that passes is changed, `Host` included. A server that is not up resets the connection.

    Args:
        server_port: The real server's.
        http: False for other protocols: requests are not told apart.
    """
    proxy = FaultProxy(server_port, http=http)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


async def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once, with RST unless it is closed already."""
    with suppress(OSError):  # the other side was quicker
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
