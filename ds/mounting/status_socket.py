"""What a mount says of itself, over a Unix socket: `GET /status` is JSON, `GET /metrics` is Prometheus' text."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ds.mounting.metrics import prometheus_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)
_SECONDS = 5.0
_MOST_BYTES = 4 << 20


class StatusSocket:
    """Answers who asks, one after another, on a thread of its own.

    Args:
        path: Where; what is there is replaced.
        status: Returns what is to be told.
    """

    def __init__(self, path: Path, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status
        self._listener = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError):
            path.unlink()
        with _short(path) as address:
            self._listener.bind(address)
        path.chmod(0o600)
        self._listener.listen(16)
        threading.Thread(target=self._serve, name="forebay-mount-status", daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                try:
                    connection.settimeout(_SECONDS)
                    connection.sendall(self._answer(_head(connection)))
                except OSError as error:  # who asked went away
                    _log.debug("status not told reason=%s", error)

    def _answer(self, head: bytes) -> bytes:
        path = head.split(b" ", 2)[1:2]
        if path == [b"/status"]:
            return _response("200 OK", "application/json", json.dumps(dict(self._status())))
        if path == [b"/metrics"]:
            return _response("200 OK", "text/plain; version=0.0.4", prometheus_text(self._status()))
        return _response("404 Not Found", "text/plain", "ask for /status or /metrics\n")


def ask(path: Path, what: str = "/status") -> bytes | None:
    """Return what a mount says; None if nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(_SECONDS)
        with _short(path) as address:
            connection.connect(address)
        connection.sendall(f"GET {what} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while len(answer) < _MOST_BYTES and (part := connection.recv(1 << 16)):
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return body if b" 200 " in head.partition(b"\r\n")[0] else None
    return None


def ask_status(path: Path) -> dict[str, Any] | None:
    """Return the status of a mount; None if nobody answers."""
    body = ask(path)
    try:
        found: dict[str, Any] | None = json.loads(body) if body else None
    except ValueError:
        return None
    return found


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 1 << 16 and (part := connection.recv(1 << 12)):
        head += part
    return head


def _response(status: str, kind: str, body: str) -> bytes:
    data = body.encode()
    return f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Name a socket whose path may be longer than the kernel's 107 bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
