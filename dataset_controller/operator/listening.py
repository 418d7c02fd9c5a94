"""Answers probes and Prometheus."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry

_TEXT = "text/plain; charset=utf-8"
_SECONDS = 10


@contextmanager
def listening(
    host: str, port: int, registry: CollectorRegistry, trouble: Callable[[], str | None]
) -> Iterator[tuple[str, int]]:
    """Answer `GET /healthz`, `/readyz` and `/metrics` until the end of the block.

    Args:
        host: "" for every address.
        port: 0 for any that is free.
        registry: What `/metrics` shows.
        trouble: Says what keeps it from being ready, None if nothing does.

    Yields:
        Where it listens.

    Raises:
        OSError: If it cannot listen there.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif self.path == "/healthz":
                self._answer(200, _TEXT, b"ok\n")
            elif self.path == "/readyz":
                found = trouble()
                self._answer(503 if found else 200, _TEXT, f"{found or 'ok'}\n".encode())
            else:
                self._answer(404, _TEXT, b"there are /healthz, /readyz and /metrics\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: probes come every few seconds."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="listen", daemon=True)
    thread.start()
    try:
        yield str(server.server_address[0]), int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
