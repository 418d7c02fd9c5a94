"""Servers that do what some do: redirects, no ranges, no HEAD, pages of their own."""

from __future__ import annotations

import asyncio
import gzip
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from sources import SourceConfigError, SourceUnavailableError
from sources.http import HttpStore
from sources.http.reach import Reach, TooCloseError, closeness

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "hunter2-is-not-to-be-shown"
Seen = list[tuple[str, dict[str, str]]]


class Odd(BaseHTTPRequestHandler):
    """A server that does what some do."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[Seen]
    elsewhere: ClassVar[str] = ""
    here: ClassVar[str] = ""

    def do_GET(self) -> None:
        type(self).seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = self.path.partition("?")[0].strip("/")
        if path == "moved/index.html":
            path = "index"
        elif path.startswith("endless/"):
            path = "endless"
        answer = getattr(self, f"at_{path.removesuffix('.gz')}", self.at_file)
        answer()

    do_HEAD = do_GET

    def at_file(self) -> None:
        self.answer(200, b"0123456789", ETag='"1"')

    def at_huge(self) -> None:
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()

    def at_nohead(self) -> None:
        if self.command == "HEAD":
            self.answer(405, b"")
        else:
            self.answer(206, b"0", ETag='W/"weak"', **{"Content-Range": "bytes 0-0/10"})

    def at_unpinned(self) -> None:
        self.answer(200, b"0123456789")

    def at_shifted(self) -> None:
        self.answer(206, b"012", ETag='"1"', **{"Content-Range": "bytes 0-2/10"})

    def at_away(self) -> None:
        self.answer(302, b"", Location=f"{self.elsewhere}/file?their=query")

    def at_local(self) -> None:
        self.answer(302, b"", Location="file:///etc/passwd")

    def at_bounce(self) -> None:
        self.answer(302, b"", Location=f"{self.elsewhere}/back")

    def at_back(self) -> None:
        self.answer(302, b"", Location=f"{self.here}/file")

    def at_metadata(self) -> None:
        self.answer(302, b"", Location="http://169.254.169.254/latest/meta-data/")

    def at_compressed(self) -> None:
        page = gzip.compress(b'<a href="x">x</a>' * 100)
        self.answer(200, page, ETag='"1"', **{"Content-Encoding": "gzip", "Content-Type": "text/html"})

    def at_parts(self) -> None:
        body = b"--B\r\nContent-Range: bytes 5-7/10\r\n\r\n567\r\n--B--"
        kind = "multipart/byteranges; boundary=B"
        self.answer(206, body, ETag='"1"', **{"Content-Type": kind, "Content-Range": "bytes 5-7/10"})

    def at_zero(self) -> None:
        self.answer(200, b"" if self.command == "HEAD" else b"0123456789", ETag='"1"')

    def at_nameless(self) -> None:
        self.answer(200, b"0123456789", ETag='W/""')

    def at_moved(self) -> None:
        self.answer(302, b"", Location="/moved/index.html")

    def at_endless(self) -> None:
        self.answer(200, f'<a href="{"d" * 200}/">down</a>'.encode(), **{"Content-Type": "text/html"})

    def at_circle(self) -> None:
        self.answer(302, b"", Location="/circle")

    def at_index(self) -> None:
        page = b"""<a href="../">up</a> <a href="?C=N;O=D">sort</a> <a href="http://elsewhere/index/x">x</a>
            <a href="/index/one%20%231">1</a> <a href="two?download=1">2</a> <a href="deep/er">3</a>
            <a href="dir/">4</a>
            <a href="/%69ndex/three">5</a> <a href="/moved/four">6</a>
            <a href="mailto:me@host">mail</a> <a href="javascript:void(0)">js</a> <a href="">self</a>"""
        self.answer(200, page, ETag='"page"', **{"Content-Type": "text/html"})

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[tuple[HttpStore, type[Odd], type[Odd]]]:
    """A store on an odd server with secrets, the server, and another server that redirects lead to."""

    class Here(Odd):
        seen: ClassVar[Seen] = []

    class There(Odd):
        seen: ClassVar[Seen] = []

    with ExitStack() as stack:
        urls = []
        for handler in (Here, There):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(server.shutdown)
            urls.append(f"http://127.0.0.1:{server.server_port}")
        Here.elsewhere, There.here = urls[1], urls[0]
        options = {"user": "me", "password": SECRET, "headers": {"X-Token": SECRET}, "params": {"sig": SECRET}}
        yield HttpStore.open(f"{urls[0]}/", options), Here, There


Odds = tuple[HttpStore, type[Odd], type[Odd]]


def test_a_redirect_carries_no_credentials_to_another_host(odd: Odds) -> None:
    store, here, there = odd
    stat = store.stat("away")
    assert bytes(store.read("away", start=2, length=3, version=stat.version)) == b"234"
    path, headers = here.seen[-1]
    assert SECRET in path
    assert headers["x-token"] == SECRET
    assert headers["authorization"].startswith("Basic ")
    path, headers = there.seen[-1]
    assert path == "/file?their=query"
    assert headers["range"] == "bytes=2-4"
    assert headers["if-match"] == '"1"'
    assert not {"authorization", "x-token", "cookie"} & set(headers)


def test_a_redirect_leads_to_no_other_scheme_and_not_in_circles(odd: Odds) -> None:
    store, _, _ = odd
    with pytest.raises(SourceConfigError, match="a redirect leads to file://"):
        store.read("local", start=0, length=1, version=None)
    with pytest.raises(SourceUnavailableError, match="more than 10 redirects") as caught:
        store.stat("circle")
    assert not caught.value.retryable


def test_a_server_without_ranges_never_gives_wrong_bytes(odd: Odds) -> None:
    store, _, _ = odd
    assert bytes(store.read("file", start=3, length=4, version=None)) == b"3456"
    with pytest.raises(SourceConfigError, match="knows no byte ranges"):
        store.read("huge", start=1 << 30, length=1, version=None)


def test_another_range_than_asked_for_is_refused(odd: Odds) -> None:
    with pytest.raises(SourceUnavailableError, match="another range"):
        odd[0].read("shifted", start=5, length=3, version=None)


def test_a_server_that_refuses_head_is_asked_for_a_byte(odd: Odds) -> None:
    stat = odd[0].stat("nohead")
    assert (stat.size, stat.version) == (10, 'etag:W/"weak"')
    assert bytes(odd[0].read("nohead", start=0, length=1, version=stat.version)) == b"0"
    assert "if-match" not in odd[1].seen[-1][1]  # a weak etag never matches there


def test_what_tells_no_version_cannot_be_pinned(odd: Odds) -> None:
    with pytest.raises(SourceConfigError, match="cannot be pinned"):
        odd[0].stat("unpinned")


def test_an_index_page_lists_what_lies_directly_below_it(odd: Odds) -> None:
    page = odd[0].scan_directory("index/")
    assert page.files.column("key").to_pylist() == ["index/one #1", "index/three", "index/two"]
    assert page.directories == ["index/dir/"]
    with pytest.raises(SourceConfigError, match="no index page"):
        odd[0].scan_directory("file/")


def test_an_index_page_may_have_a_name_of_its_own(odd: Odds) -> None:
    assert "moved/four" in odd[0].scan_directory("moved/").files.column("key").to_pylist()


def test_who_redirects_back_gets_no_credentials(odd: Odds) -> None:
    store, here, there = odd
    assert store.stat("bounce").size == 10
    assert [path for path, _ in there.seen] == ["/back"]
    path, headers = here.seen[-1]
    assert path == "/file"
    assert not {"authorization", "x-token"} & set(headers)


def test_a_redirect_does_not_lead_closer_than_the_source(odd: Odds) -> None:
    with pytest.raises(SourceConfigError, match=r"/metadata: a redirect leads from another network into this one"):
        odd[0].stat("metadata")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", 0), ("2606:2800::1", 0), ("10.1.2.3", 1), ("100.100.100.200", 1), ("fd00:ec2::254", 1),
        ("127.0.0.1", 2), ("::1", 2), ("0.0.0.0", 2), ("::ffff:127.0.0.1", 2), ("169.254.169.254", 3), ("fe80::1%lo", 3)
    ],
)  # fmt: skip
def test_closeness_of_an_address(address: str, expected: int) -> None:
    assert closeness(address) == expected


async def resolve(reach: Reach, host: str) -> None:
    await reach.resolve(host, 80)


def test_a_name_of_this_machine_is_refused_to_a_public_source() -> None:
    public, local = Reach("93.184.215.14"), Reach("localhost")
    with pytest.raises(TooCloseError):
        asyncio.run(resolve(public, "localhost"))
    asyncio.run(resolve(local, "localhost"))
    local.check("127.0.0.1")
    public.trust("localhost")
    asyncio.run(resolve(public, "localhost"))


def test_what_was_compressed_on_the_way_is_refused(odd: Odds) -> None:
    store, here, _ = odd
    for call in (
        lambda: store.stat("compressed"),
        lambda: store.read("compressed", start=0, length=5, version=None),
        lambda: store.scan_directory("compressed/"),
    ):
        with pytest.raises(SourceConfigError, match="compresses it on the way"):
            call()
        assert here.seen[-1][1]["accept-encoding"] == "identity"
    stored = store.stat("compressed.gz")  # so some mirrors label what they store
    assert bytes(store.read(stored.key, start=0, length=2, version=stored.version)) == b"\x1f\x8b"


def test_several_ranges_in_one_answer_are_refused(odd: Odds) -> None:
    with pytest.raises(SourceUnavailableError, match="another range"):
        odd[0].read("parts", start=5, length=3, version=None)


def test_a_size_of_zero_is_asked_for_again(odd: Odds) -> None:
    assert odd[0].stat("zero").size == 10


def test_an_empty_etag_names_no_version(odd: Odds) -> None:
    with pytest.raises(SourceConfigError, match="cannot be pinned"):
        odd[0].stat("nameless")


def test_a_tree_without_end_has_one(odd: Odds) -> None:
    with pytest.raises(SourceConfigError, match="no path for a web server"):
        list(odd[0].list("endless/"))


def test_no_error_shows_a_secret(odd: Odds) -> None:
    store, here, _ = odd
    here.elsewhere = "http://127.0.0.1:1"
    for name in ("away", "local", "circle", "unpinned"):
        with pytest.raises((SourceConfigError, SourceUnavailableError)) as caught:
            store.stat(name)
        assert SECRET not in f"{caught.value!r}{caught.value.__cause__!r}"
    assert SECRET not in repr(store)
