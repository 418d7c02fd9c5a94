"""Answers the API server's AdmissionReviews over TLS."""

from __future__ import annotations

import json
import logging
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

from dataset_controller.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    Review = Callable[[dict[str, Any]], dict[str, Any]]

_log = logging.getLogger(__name__)
_SECONDS = 10
_MAX_BYTES = 8 << 20
"""More than a server stores of two objects."""
VALIDATE, MUTATE = "/validate", "/mutate"


def server_context(certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return how connections are secured; without a certificate none comes about until the context gets one.

    Raises:
        OSError: If the certificate cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


@contextmanager
def admitting(
    host: str, port: int, context: ssl.SSLContext, reviews: Mapping[str, Review]
) -> Iterator[tuple[str, int]]:
    """Answer `POST` of AdmissionReviews until the end of the block.

    Args:
        host: "" for every address.
        port: 0 for any that is free.
        context: With a certificate that the `caBundle` of the webhook's configuration trusts.
        reviews: What answers them, by path.

    Yields:
        Where it listens.

    Raises:
        OSError: If it cannot listen there.
    """

    class Handler(_Handler):
        pass

    Handler.reviews = reviews
    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    # the handshake is the handler's thread's: one who connects and says nothing keeps nobody waiting
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, name="admit", daemon=True)
    thread.start()
    try:
        yield str(server.server_address[0]), int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = _SECONDS
    reviews: ClassVar[Mapping[str, Review]] = {}

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        review = self.reviews.get(self.path.partition("?")[0])
        if review is None:
            self._answer(404, {"message": f"there is {', '.join(sorted(self.reviews))}"})
        elif not length.isdecimal() or int(length) > _MAX_BYTES:
            self._answer(413, {"message": f"a Content-Length of at most {_MAX_BYTES} is needed"})
        else:
            self._review(review, self.rfile.read(int(length)))

    def _review(self, review: Review, body: bytes) -> None:
        try:
            answer = review(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("not an AdmissionReview: %r", error)
            self._answer(400, {"message": "not an AdmissionReview of admission.k8s.io/v1"})
        except ClusterError as error:  # failurePolicy says what becomes of it
            self._answer(503, {"message": str(error)})
        else:
            self._answer(200, answer)

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: refusals are told to who asked."""
