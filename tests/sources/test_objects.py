from __future__ import annotations

import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from sources import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
    StoreId,
    SwapLostError,
    Version,
    object_clients,
)
from sources.object_failures import Failure, Kind, UnnameableKeyError, source_error
from sources.objects import ObjectStore, is_listable, is_nameable
from sources.s3 import S3Store
from tests.conftest import BUCKET
from tests.services.faults import FaultProxy, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.weed import S3Server

MIB = 1 << 20


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as running:
        yield running


@pytest.fixture
def store(s3: S3Server, proxy: FaultProxy) -> S3Store:
    return S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url})


def requests_of(store: S3Store, directory: str = "faults/") -> dict[str, Callable[[], object]]:
    return {
        "stat": lambda: store.stat(f"{directory}x"),
        "read": lambda: store.read(f"{directory}x", start=0, length=1, version=None),
        "list": lambda: list(store.list(directory)),
        "put": lambda: store.put(f"{directory}x", b"1"),
        "create": lambda: store.swap(f"{directory}y", b"1", expect=None),
        "replace": lambda: store.swap(f"{directory}y", b"1", expect=Version('etag:"1"')),
        "delete": lambda: store.delete(f"{directory}x"),
        "fetch": lambda: store.fetch(f"{directory}x"),
    }


@pytest.mark.parametrize("name", ["stat", "read", "list", "put", "create", "replace", "delete", "fetch"])
@pytest.mark.parametrize("status", ["503 Slow Down", "429 Too Many Requests"])
def test_a_throttled_request_is_sent_once_and_told_as_throttled(
    store: S3Store, proxy: FaultProxy, name: str, status: str
) -> None:
    proxy.faults.unavailable_times = 5
    proxy.faults.unavailable_status = status
    with pytest.raises(SourceUnavailableError, match="throttling") as caught:
        requests_of(store)[name]()
    assert caught.value.throttled
    assert caught.value.retryable
    assert proxy.counts.requests == 1


@pytest.mark.parametrize("name", ["stat", "read", "list", "put", "create", "replace", "delete", "fetch"])
def test_the_client_for_odd_keys_sends_once_too_and_is_told_when_to_come_back(
    store: S3Store, proxy: FaultProxy, name: str
) -> None:
    proxy.faults.unavailable_times = 5
    proxy.faults.unavailable_headers = {"Retry-After": "7"}
    with pytest.raises(SourceUnavailableError, match="throttling") as caught:
        requests_of(store, "faults//")[name]()
    assert (caught.value.throttled, caught.value.retry_after) == (True, 7)
    assert proxy.counts.requests == 1


def test_a_servers_own_failure_can_be_tried_again(store: S3Store, proxy: FaultProxy) -> None:
    proxy.faults.unavailable_times = 1
    proxy.faults.unavailable_status = "500 Internal Server Error"
    with pytest.raises(SourceUnavailableError, match="answered 500") as caught:
        store.stat("faults/x")
    assert (caught.value.throttled, caught.value.retryable) == (False, True)


@pytest.mark.parametrize("way", ["reset", "truncate"])
@pytest.mark.parametrize("key", ["faults/body", "faults//body"])  # one for each client
def test_what_came_before_a_broken_body_is_counted_and_right(
    store: S3Store, proxy: FaultProxy, way: str, key: str
) -> None:
    data = bytes(range(256)) * (3 * MIB // 256)
    store.put(key, data)
    version = store.stat(key).version
    before = proxy.counts.requests
    setattr(proxy.faults, f"{way}_after", 2 * MIB)
    setattr(proxy.faults, f"{way}_times", 1)
    buffer = memoryview(bytearray(len(data)))
    with pytest.raises(SourceUnavailableError, match="broke off") as caught:
        store.read_into(key, start=0, buffer=buffer, version=version)
    received = caught.value.received
    assert 0 < received <= 2 * MIB
    assert buffer[:received] == data[:received]
    assert proxy.counts.requests == before + 1
    store.read_into(key, start=received, buffer=buffer[received:], version=version)
    assert buffer == data


@pytest.mark.parametrize("way", ["reset", "truncate"])
def test_a_small_body_that_breaks_off_is_never_returned(store: S3Store, proxy: FaultProxy, way: str) -> None:
    store.put("faults/small", bytes(1000))
    setattr(proxy.faults, f"{way}_after", 500)
    setattr(proxy.faults, f"{way}_times", 1)
    with pytest.raises(SourceUnavailableError, match="broke off"):
        store.read("faults/small", start=0, length=1000, version=None)


def test_a_server_that_is_down_is_told_at_once(store: S3Store, proxy: FaultProxy) -> None:
    proxy.refuse()
    began = time.monotonic()
    for request in requests_of(store).values():
        with pytest.raises(SourceUnavailableError, match="connection refused; is the endpoint right"):
            request()
    assert time.monotonic() - began < 5


def test_a_server_that_hangs_is_noticed(s3: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_clients, "IDLE_SECONDS", 1)
    store = S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url})
    proxy.faults.hang = True
    with pytest.raises(SourceUnavailableError, match="no answer in time"):
        store.stat("faults/x")


def test_a_body_that_stalls_is_noticed_and_a_slow_one_is_not_cut(
    s3: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_clients, "IDLE_SECONDS", 1)
    store = S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url})
    data = bytes(range(256)) * 1000
    store.put("faults/slow", data)
    proxy.faults.drip_bytes_per_second = 100_000  # 2.5 s, longer than the time-out
    assert bytes(store.read("faults/slow", start=0, length=len(data), version=None)) == data
    proxy.faults.drip_bytes_per_second = 0.3  # one byte every 3 s
    with pytest.raises(SourceUnavailableError, match="no answer in time"):
        store.read("faults/slow", start=0, length=len(data), version=None)


class Lossy(BaseHTTPRequestHandler):
    """Takes every write and loses the answer."""

    protocol_version = "HTTP/1.1"
    written: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.send_header("Content-Length", "1")
        self.end_headers()

    def do_PUT(self) -> None:
        self.written.append(self.path)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def lossy() -> Iterator[tuple[str, list[str]]]:
    written: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Lossy,), {"written": written})) as server:
        server.daemon_threads = True  # the client keeps its connections
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", written
        server.shutdown()
        thread.join(timeout=10)


@pytest.mark.parametrize("directory", ["x", "x/"])  # one for each client
def test_a_conditional_write_is_not_sent_again_when_its_answer_is_lost(
    lossy: tuple[str, list[str]], directory: str
) -> None:
    endpoint, written = lossy
    store = S3Store("bucket", {"key": "k", "secret": "s", "endpoint_url": endpoint})
    for number in range(10):
        store.stat(f"{directory}/{number}")  # so that the write goes over a connection that is open already
        with pytest.raises(SourceUnavailableError):
            store.swap(f"{directory}/{number}", b"1", expect=Version('etag:"1"') if number % 2 else None)
    assert written == [f"/bucket/{directory}/{number}" for number in range(10)]


def test_requests_tell_who_asks(store: S3Store, proxy: FaultProxy) -> None:
    list(store.list("faults/"))
    assert proxy.heads[-1].headers["user-agent"].startswith("forebay/")


def test_a_range_beyond_the_end_is_not_worth_a_second_try(store: S3Store) -> None:
    store.put("faults/short", b"12345")
    for start in (3, 5, 100):
        with pytest.raises(SourceUnavailableError, match="shorter") as caught:
            store.read("faults/short", start=start, length=10, version=None)
        assert not caught.value.retryable


@pytest.mark.parametrize(
    ("failure", "expected", "text"),
    [
        (Failure(Kind.ANSWERED, 404), SourceNotFoundError, "no such object: x://b/k"),
        (Failure(Kind.ANSWERED, 404, "NoSuchBucket"), SourceNotFoundError, "no such bucket: x://b"),
        (Failure(Kind.ANSWERED, 412), SwapLostError, "another writer"),
        (Failure(Kind.ANSWERED, 403, "AccessDenied"), SourceAuthError, r"\(403 AccessDenied\); check the keys"),
        (Failure(Kind.ANSWERED, 400, "ExpiredToken"), SourceAuthError, "refuses these credentials"),
        (Failure(Kind.ANSWERED, 301, "PermanentRedirect"), SourceConfigError, "another region"),
        (Failure(Kind.ANSWERED, 301), SourceConfigError, "another region"),  # of a HEAD
        (Failure(Kind.ANSWERED, 403, "RequestTimeTooSkewed"), SourceAuthError, "this machine's clock is wrong"),
        (Failure(Kind.ANSWERED, 403, "InvalidObjectState"), SourceUnavailableError, "x://b/k is archived"),
        (Failure(Kind.ANSWERED, 507, "XMinioStorageFull"), SourceFullError, "no room left"),
        (Failure(Kind.ANSWERED, 400, "SomethingElse"), SourceUnavailableError, "answered 400 SomethingElse"),
        (Failure(Kind.UNSIGNED), SourceAuthError, "no credentials found"),
        (Failure(Kind.INVALID_KEY), UnnameableKeyError, "cannot name a key"),
        (Failure(Kind.NO_RANGES), SourceConfigError, "ignores ranges"),
        (Failure(Kind.TIMED_OUT), SourceUnavailableError, "no answer in time"),
    ],
)
def test_each_failure_is_the_error_that_a_caller_can_act_on(
    failure: Failure, expected: type[SourceError], text: str
) -> None:
    error = source_error(failure, uri="x://b/k", store_id="x://b", next_step="check the keys", received=7)
    assert type(error) is expected
    with pytest.raises(expected, match=text):
        raise error


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(400, "RequestTimeout", True), (400, "InvalidRequest", False), (403, "InvalidObjectState", False)],
)
def test_only_what_may_pass_is_worth_a_second_try(status: int, code: str, retryable: bool) -> None:
    failure = Failure(Kind.ANSWERED, status, code)
    error = source_error(failure, uri="x://b/k", store_id="x://b", next_step="")
    assert isinstance(error, SourceUnavailableError)
    assert error.retryable is retryable


@pytest.mark.parametrize("name", ["NoSuchBucket", "The specified bucket does not exist", "<Code>SlowDown"])
def test_the_name_of_a_missing_object_does_not_decide_what_is_missing(s3: S3Server, name: str) -> None:
    store = S3Store(BUCKET, s3.options)
    for directory in ("named", "named/"):
        key = f"{directory}/{name}"
        with pytest.raises(SourceNotFoundError, match="no such object"):
            store.stat(key)
        with pytest.raises(SourceNotFoundError, match="no such object"):
            store.read(key, start=0, length=1, version=None)
        with pytest.raises(SourceChangedError, match="gone"):
            store.read(key, start=0, length=1, version=Version('etag:"1"'))


def test_the_name_of_an_object_does_not_decide_why_a_request_failed(lossy: tuple[str, list[str]]) -> None:
    store = S3Store("bucket", {"key": "k", "secret": "s", "endpoint_url": lossy[0]})
    for name in ("InvalidCertificate", "ConnectionRefused", "credential"):
        with pytest.raises(SourceUnavailableError, match="broke off") as caught:
            store.put(name, b"1")
        assert caught.value.retryable


@pytest.mark.parametrize("key", ["x", "x//y"])
@pytest.mark.parametrize("told", [None, "bytes 0-4/9", "bytes 2-8/9"])
def test_other_bytes_than_were_asked_for_are_never_returned(
    store: S3Store, proxy: FaultProxy, key: str, told: str | None
) -> None:
    proxy.faults.unavailable_status = "206 Partial Content" if told else "200 OK"
    headers = {"ETag": '"1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
    proxy.faults.unavailable_headers = headers | ({"Content-Range": told} if told else {})
    proxy.faults.unavailable_body = b"01234" if told == "bytes 0-4/9" else b"0123456"
    proxy.faults.unavailable_times = 2
    buffer = memoryview(bytearray(5))
    with pytest.raises(SourceError):
        store.read(key, start=2, length=5, version=Version('etag:"1"'))
    with pytest.raises(SourceError):
        store.read_into(key, start=2, buffer=buffer, version=None)
    assert bytes(buffer) == bytes(5)


@pytest.mark.parametrize("key", ["x", "x//y"])
def test_a_refusal_without_a_code_is_told_by_its_status(store: S3Store, proxy: FaultProxy, key: str) -> None:
    proxy.faults.unavailable_times, proxy.faults.unavailable_status = 1, "403 Forbidden"
    with pytest.raises(SourceAuthError, match=r"\(403\)"):
        store.stat(key)


def test_what_a_store_says_about_waiting_is_passed_on() -> None:
    failure = Failure(Kind.ANSWERED, 503, "SlowDown", retry_after=7)
    error = source_error(failure, uri="x://b/k", store_id="x://b", next_step="", received=7)
    assert isinstance(error, SourceUnavailableError)
    assert (error.throttled, error.retry_after, error.received) == (True, 7, 7)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=3), min_size=1, max_size=4).map("/".join))
def test_a_key_that_counts_as_nameable_is_stored_under_that_very_name(key: str) -> None:
    store = ObjectStore(StoreId("memory://"), MemoryStore(), next_step="")
    if not is_nameable(key):
        with pytest.raises(UnnameableKeyError):
            store.put(key, b"1")
        return
    store.put(key, b"1")
    assert [stat.key for stat in store.list("")] == [key]
    assert is_listable(f"{key}/")


def test_a_changed_object_is_noticed_whatever_its_token_looks_like() -> None:
    store = ObjectStore(StoreId("memory://"), MemoryStore(), next_step="")
    store.put("x", b"12345")
    for version in (Version('etag:"other"'), Version("stat:1:5"), Version("vid:1")):
        with pytest.raises(SourceChangedError):
            store.read("x", start=0, length=5, version=version)
    assert store.read("x", start=0, length=5, version=Version("oid:00")) == b"12345"
