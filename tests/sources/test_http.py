from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sources import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.contract import DeleteBehind, Place, PutBehind, ReadOnlyContract
from sources.http import HttpStore
from sources.reading import Limits
from sources.reading.steady import steady
from tests.services import http as services
from tests.services.faults import FaultProxy, Faults, fault_proxy
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.http import WebServer

DATA = os.urandom(300_000)
SECRET = "hunter2-is-not-to-be-shown"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    require(services.missing())
    with services.nginx(tmp_path_factory.mktemp("web")) as server:
        (server.root / "data").write_bytes(DATA)
        yield server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with services.plain_server(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture
def proxy(web: WebServer) -> Iterator[FaultProxy]:
    with fault_proxy(web.port) as running:
        yield running


def opened(server: WebServer | FaultProxy, **options: object) -> HttpStore:
    return HttpStore.open(f"{server.url}/", options)


class OnAServer(ReadOnlyContract):
    @pytest.fixture
    def server(self) -> WebServer:
        raise NotImplementedError

    @pytest.fixture
    def place(self, server: WebServer, tmp_path: Path) -> Place:
        return opened(server, headers={"X-Token": SECRET}, params={"sig": SECRET}), f"{tmp_path.name}/a b/"

    @pytest.fixture
    def put_behind(self, server: WebServer) -> PutBehind:
        def put(key: str, data: bytes) -> None:
            (server.root / key).parent.mkdir(parents=True, exist_ok=True)
            (server.root / key).write_bytes(data)

        return put

    @pytest.fixture
    def delete_behind(self, server: WebServer) -> DeleteBehind:
        return lambda key: (server.root / key).unlink()

    @pytest.fixture
    def secret_values(self) -> list[str]:
        return [SECRET]


class TestNginx(OnAServer):
    @pytest.fixture
    def server(self, web: WebServer) -> WebServer:
        return web


class TestServerWithoutRangesAndEtags(OnAServer):
    @pytest.fixture
    def server(self, plain: WebServer) -> WebServer:
        return plain


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        ("https:///data/", {}, "names no web server"),
        ("http://host:port/", {}, "names no web server"),
        ("https://host/", {"token": SECRET}, "unknown option 'token'; known: headers, params, password, user"),
        ("https://host/", {"user": "me"}, "user and password go together"),
        (
            "https://host/",
            {"user": "a", "password": SECRET, "headers": {"authorization": SECRET}},
            "exclude each other",
        ),
        ("https://host/", {"headers": SECRET}, "headers is a mapping"),
        ("https://host/", {"headers": {"Range": "bytes=0-1"}}, "the header 'Range' is the store's own"),
        ("https://host/", {"headers": {"X": f"{SECRET}\r\nHost: other"}}, "a line break"),
        (f"https://host/file?sig={SECRET}", {}, "pass it as option params"),
        (f"https://host#{SECRET}/", {}, "pass it as option params"),
        ("https://ho st/", {}, "names no web server"),
        ("https://host/a%20b/", {}, "without escapes"),
        (f"https://me:{SECRET}@host/", {}, "carries credentials"),
    ],
)
def test_a_wrong_uri_or_option_is_named(uri: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SourceConfigError, match=message) as caught:
        HttpStore.open(uri, options)
    assert SECRET not in f"{caught.value}{caught.value.__cause__}"


def test_a_uri_that_names_a_file_lists_that_file(web: WebServer) -> None:
    store = opened(web)
    assert [stat.key for stat in store.list("data")] == ["data"]
    with pytest.raises(SourceNotFoundError):
        list(store.list("nothing/here"))


def test_a_listing_is_in_byte_order(web: WebServer) -> None:
    for name in ("order/a/b", "order/a.b", "order/a0", "order/B", "order/ä", "order/a/c/d"):
        (web.root / name).parent.mkdir(parents=True, exist_ok=True)
        (web.root / name).write_bytes(b"x")
    keys = [stat.key for stat in opened(web).list("order/")]
    assert keys == sorted(keys, key=str.encode)
    assert len(keys) == 6
    assert [stat.key for stat in opened(web).list("order/a/c")] == ["order/a/c/d"]


def test_a_read_asks_for_its_range_of_the_pinned_version(proxy: FaultProxy) -> None:
    store = opened(proxy)
    stat = store.stat("data")
    assert bytes(store.read("data", start=1000, length=500, version=stat.version)) == DATA[1000:1500]
    head = proxy.heads[-1]
    assert head.line == "GET /data HTTP/1.1"
    assert (head.headers["range"], head.headers["accept-encoding"]) == ("bytes=1000-1499", "identity")
    assert f"etag:{head.headers['if-match']}" == stat.version
    assert (proxy.counts.requests, proxy.counts.connections) == (2, 1)


@pytest.fixture
def large(web: WebServer) -> bytes:
    (web.root / "large").write_bytes(DATA * 20)
    return DATA * 20


@pytest.mark.parametrize(
    "faults", [Faults(reset_after=3_000_000, reset_times=1), Faults(truncate_after=3_000_000, truncate_times=1)]
)
def test_a_broken_body_tells_what_was_received(proxy: FaultProxy, large: bytes, faults: Faults) -> None:
    store = opened(proxy)
    proxy.faults = faults
    memory = bytearray(5_000_000)
    with pytest.raises(SourceUnavailableError, match="broke off") as caught:
        store.read_into("large", start=100, buffer=memoryview(memory), version=None)
    received = caught.value.received
    assert 2_000_000 < received <= 3_000_000
    assert caught.value.retryable
    assert memory[:received] == large[100 : 100 + received]
    store.read_into("large", start=100 + received, buffer=memoryview(memory)[received:], version=None)
    assert memory == large[100:5_000_100]


def test_each_request_is_made_once_and_throttling_is_told(proxy: FaultProxy) -> None:
    store = opened(proxy)
    proxy.faults = Faults(unavailable_times=1, unavailable_headers={"Retry-After": "7"})
    with pytest.raises(SourceUnavailableError, match="fewer requests") as caught:
        store.read("data", start=0, length=1, version=None)
    assert (caught.value.throttled, caught.value.retry_after, caught.value.received) == (True, 7.0, 0)
    assert proxy.counts.requests == 1
    proxy.faults = Faults(unavailable_times=1, unavailable_status="500 Oops")
    with pytest.raises(SourceUnavailableError, match="the server failed") as caught:
        store.stat("data")
    assert (caught.value.throttled, caught.value.retryable) == (False, True)
    proxy.faults = Faults(unavailable_times=1, unavailable_status="418 Teapot")
    with pytest.raises(SourceUnavailableError, match="418") as caught:
        store.stat("data")
    assert not caught.value.retryable
    assert proxy.counts.requests == 3


def test_a_refused_connection_is_told_in_seconds(proxy: FaultProxy) -> None:
    store = opened(proxy)
    assert store.stat("data").size == len(DATA)
    proxy.refuse()
    with pytest.raises(SourceUnavailableError, match="Connection refused"):
        store.stat("data")
    proxy.heal()
    assert store.stat("data").size == len(DATA)


def test_a_steady_read_goes_on_at_the_byte(proxy: FaultProxy, large: bytes) -> None:
    store = steady(opened(proxy), Limits())
    pinned = store.stat("large")
    proxy.faults = Faults(reset_after=3_000_000, reset_times=1, unavailable_times=2)
    assert bytes(store.read("large", start=0, length=len(large), version=pinned.version)) == large
    assert proxy.counts.struck == 3
    resumed = int(proxy.heads[-1].headers["range"].removeprefix("bytes=").partition("-")[0])
    assert 2_000_000 < resumed <= 3_000_000
    assert f"etag:{proxy.heads[-1].headers['if-match']}" == pinned.version


def test_a_server_that_never_answers_is_given_up(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sources.http.transport._IDLE_SECONDS", 0.2)
    proxy.faults.hang = True
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="no answer in time"):
        opened(proxy).read("data", start=0, length=10, version=None)
    assert time.monotonic() - begun < 5


def test_a_body_that_drips_is_broken_off_and_kept(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sources.http.transport._REQUEST_SECONDS", 0.5)
    monkeypatch.setattr("sources.http.transport._SLOWEST_BYTES_PER_SECOND", 1 << 30)
    proxy.faults.drip_bytes_per_second = 20_000
    memory = bytearray(100_000)
    with pytest.raises(SourceUnavailableError, match="no answer in time") as caught:
        opened(proxy).read_into("data", start=0, buffer=memoryview(memory), version=None)
    assert 0 < caught.value.received < 50_000
    assert memory[: caught.value.received] == DATA[: caught.value.received]


def test_a_change_below_a_read_is_seen_by_the_answer_that_carries_it(web: WebServer, proxy: FaultProxy) -> None:
    (web.root / "changing").write_bytes(b"before")
    store = opened(proxy)
    pinned = store.stat("changing")
    (web.root / "changing").write_bytes(b"after, and longer")
    with pytest.raises(SourceChangedError) as caught:
        store.read("changing", start=8, length=2, version=pinned.version)
    assert (caught.value.expected, caught.value.found) == (pinned.version, store.stat("changing").version)


def test_a_protected_directory_takes_user_and_password(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (web.root / "private").mkdir()
    (web.root / "private/x").write_bytes(b"12345")
    store = opened(web, user=web.user, password=web.password)
    assert [stat.size for stat in store.list("private/")] == [5]
    for wrong in (opened(web), opened(web, user=web.user, password="wrong-and-secret")):
        with pytest.raises(SourceAuthError, match="refuses to show it"):
            wrong.stat("private/x")
        with pytest.raises(SourceAuthError, match="refuses to show it"):
            wrong.scan_directory("private/")
    assert "wrong-and-secret" not in caplog.text
    assert web.password not in caplog.text


FORKING = """
import gc, os, sys
from sources.http import HttpStore
from sources.reading import Limits
from sources.reading.steady import steady

store = HttpStore.open(sys.argv[1], {})
first = bytes(store.read("data", start=0, length=1000, version=None))
child = os.fork()
assert bytes(store.read("data", start=0, length=1000, version=None)) == first
if child == 0:
    del store
    gc.collect()
    sys.exit(0)  # with all that the interpreter tears down
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert bytes(store.read("data", start=0, length=1000, version=None)) == first
print("the same")
"""


def test_a_forked_child_that_ends_leaves_the_parents_connections_alone(proxy: FaultProxy) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKING, proxy.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the same\n", "")
    assert proxy.counts.connections == 2  # one each: the parent went on with its own


ENDING = """
import atexit, sys

def late():
    try:
        store.stat("data")
    except SourceUnavailableError as error:
        print(error)

atexit.register(late)  # before the store's own, so it comes after it
from sources import SourceUnavailableError
from sources.http import HttpStore

store = HttpStore.open(sys.argv[1], {})
store.stat("data")
"""


def test_a_request_of_an_ending_interpreter_is_refused_and_does_not_hang(web: WebServer) -> None:
    command = [sys.executable, "-W", "error", "-c", ENDING, web.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = "no request can be made while the interpreter ends\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_a_store_that_is_dropped_closes_its_connections(proxy: FaultProxy) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        opened(proxy).stat("data")
    gc.collect()
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before + 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert proxy.counts.connections == 20


def test_the_proxy_of_the_environment_is_used(
    web: WebServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert opened(web).stat("data").size == len(DATA)
    assert proxy.heads[-1].line == f"HEAD {web.url}/data HTTP/1.1"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert opened(web).stat("data").size == len(DATA)
    assert proxy.counts.requests == 1


def test_a_store_cannot_write(web: WebServer) -> None:
    store = opened(web)
    with pytest.raises(SourceConfigError, match="read-only"):
        store.put("x", b"")
    with pytest.raises(SourceConfigError, match="read-only"):
        store.delete("data")


@pytest.mark.parametrize("key", ["a//b", "/a", "a/../data", "./data", "a\0b", "a\udcff"])
def test_a_key_that_a_server_would_rewrite_is_refused(web: WebServer, key: str) -> None:
    with pytest.raises(SourceConfigError, match=r"cannot name|is no path"):
        opened(web).read(key, start=0, length=1, version=None)
