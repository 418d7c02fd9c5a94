from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from sources import FileStore, SourceAuthError, SourceChangedError
from sources.errors import UnsafeSwapError
from sources.probing import probe_swaps
from sources.s3 import S3Store
from tests.conftest import BUCKET
from tests.services.moto import missing, moto_server
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.weed import S3Server

_CONDITIONS = ("if-match", "if-none-match")


class Forgetful(BaseHTTPRequestHandler):
    """Passes requests on to a server that checks no signatures, without some of their conditions."""

    protocol_version = "HTTP/1.1"
    server_port: ClassVar[int]
    forgotten: ClassVar[tuple[str, ...]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in self.forgotten}
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port, timeout=30)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    do_HEAD = do_PUT = do_DELETE = do_POST = do_GET


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[type[Forgetful], S3Store]]:
    """A real S3 implementation behind a gateway that drops the headers it is told to."""
    require(missing())
    with moto_server(tmp_path_factory.mktemp("moto")) as moto:
        handler = type("Handler", (Forgetful,), {"server_port": moto.port, "forgotten": ()})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            _create_bucket(moto.port)
            options = {**moto.options, "endpoint_url": f"http://127.0.0.1:{server.server_port}"}
            yield handler, S3Store("bucket", options)
            server.shutdown()
            thread.join(timeout=10)


def _create_bucket(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("PUT", "/bucket")
    assert connection.getresponse().status == 200
    connection.close()


def test_stores_that_heed_conditions_are_safe_and_left_as_they_were(
    s3: S3Server, forgetful: tuple[type[Forgetful], S3Store], tmp_path: Path
) -> None:
    handler, moto = forgetful
    handler.forgotten = ()
    for store, prefix in (
        (S3Store(BUCKET, s3.options), "probed/"),
        (FileStore(tmp_path), f"{tmp_path}/"[1:]),
        (moto, "probed/"),
    ):
        report = probe_swaps(store, prefix)
        assert report.is_safe, report
        report.require_safe()
        assert list(store.list(prefix)) == []


@pytest.mark.parametrize(
    ("forgotten", "told"),
    [
        (_CONDITIONS, ["If-None-Match: .* is ignored", "If-Match is ignored", r"\d of 4 racing writers won"]),
        (("if-match",), ["If-Match is ignored"]),
        (("if-none-match",), ["If-None-Match: .* is ignored"]),
    ],
)
def test_a_store_that_ignores_a_condition_is_refused_by_its_name(
    forgetful: tuple[type[Forgetful], S3Store], forgotten: tuple[str, ...], told: list[str]
) -> None:
    handler, store = forgetful
    handler.forgotten = forgotten
    report = probe_swaps(store, "unsafe/")
    assert not report.is_safe
    for text in (*told, "keep the repository in another store", "s3://bucket/unsafe/ cannot hold a repository"):
        with pytest.raises(UnsafeSwapError, match=text):
            report.require_safe()
    if "if-match" not in forgotten:
        assert "If-Match" not in str(report.broken)
    assert list(store.list("unsafe/")) == []


def test_a_read_is_of_the_pinned_version_even_where_conditions_are_ignored(
    forgetful: tuple[type[Forgetful], S3Store],
) -> None:
    handler, store = forgetful
    handler.forgotten = _CONDITIONS
    buffer = memoryview(bytearray(5))
    for key in ("pinned/x", "pinned//x"):  # one for each client
        store.put(key, b"first")
        first = store.stat(key)
        assert store.read(key, start=0, length=5, version=first.version) == b"first"
        store.put(key, b"other")
        with pytest.raises(SourceChangedError) as caught:
            store.read(key, start=0, length=5, version=first.version)
        assert caught.value.found == store.stat(key).version
        with pytest.raises(SourceChangedError):
            store.read_into(key, start=0, buffer=buffer, version=first.version)
    assert bytes(buffer) == bytes(5)


def test_a_store_that_cannot_be_written_is_told_as_that(s3: S3Server) -> None:
    with pytest.raises(SourceAuthError):
        probe_swaps(S3Store(BUCKET, {**s3.options, "secret": "wrong"}), "probed/")
