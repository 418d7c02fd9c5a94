"""An HTTP server that says what a test tells it to, byte by byte."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Script = Callable[[str], Iterable["bytes | float | None"]]
    """From the head of a request to what happens: bytes are sent, seconds are waited, None ends the connection."""

_SECONDS = 20


@dataclass
class Scripted:
    """A running server.

    Attributes:
        url: Its endpoint.
        heads: Of the requests, in order.
        most_at_once: Requests that were in progress at a time.
    """

    url: str
    heads: list[str] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, client: socket.socket, script: Script) -> None:
        """Answer one connection's requests."""
        client.settimeout(_SECONDS)
        got = b""
        with client, suppress(OSError):
            while True:
                while b"\r\n\r\n" not in got:
                    piece = client.recv(1 << 16)
                    if not piece:
                        return
                    got += piece
                head, _, got = got.partition(b"\r\n\r\n")
                if not self._answer(client, head.decode(), script):
                    return

    def _answer(self, client: socket.socket, head: str, script: Script) -> bool:
        with self._lock:
            self.heads.append(head)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            *most, last = script(head)
            for step in most:
                if not _do(client, step):
                    return False
        finally:  # before the last step: the client may have its bytes, and ask again, before this thread goes on
            with self._lock:
                self._at_once -= 1
        return _do(client, last)


def _do(client: socket.socket, step: bytes | float | None) -> bool:
    if step is None:
        return False
    if isinstance(step, bytes):
        client.sendall(step)
    else:
        time.sleep(step)
    return True


@contextmanager
def scripted_server(script: Script) -> Iterator[Scripted]:
    """Run a server on a free port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = Scripted(f"http://127.0.0.1:{listener.getsockname()[1]}")
        clients: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    clients.append(client)
                    threading.Thread(target=server.serve, args=(client, script), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(_SECONDS)
            for client in clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
