from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from sources import SourceConfigError, SourceUnavailableError, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator


class Answers(BaseHTTPRequestHandler):
    """`/broken` fails; anything else has an etag and tells no length."""

    def do_HEAD(self) -> None:
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("ETag", '"1"')
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=10)


def test_an_error_of_the_filesystems_own_is_one_of_ours(web: str) -> None:
    store = open_store(web)
    with pytest.raises(SourceUnavailableError, match="broken"):
        store.read("broken", start=0, length=1, version=None)


def test_an_object_of_unknown_size_cannot_be_pinned(web: str) -> None:
    with pytest.raises(SourceConfigError, match="cannot be pinned"):
        open_store(web).stat("unsized")
