"""Many short bodies over plain HTTP, side by side in one thread: what servers may do to them."""

from __future__ import annotations

import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import (
    Range,
    SourceAuthError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
    SteadyStore,
    Version,
    object_clients,
    open_store,
)
from sources.reading import Limits, RetryPolicy
from sources.s3 import S3Store
from sources.s3.heads import MOST_HEAD_BYTES, parse_head
from tests.conftest import BUCKET
from tests.services.faults import Faults
from tests.services.scripted import scripted_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.services.faults import FaultProxy
    from tests.services.weed import S3Server

KIB = 1 << 10
SIZES = (1, 10 * KIB, 64 * KIB, 200 * KIB, 1 << 20)
COUNT = 60
QUICK = RetryPolicy(base_seconds=0.01, cap_seconds=0.1, patience_seconds=8, first_contact_seconds=0.3)
HASTY = RetryPolicy(base_seconds=0.01, cap_seconds=0.05, patience_seconds=0.3, first_contact_seconds=0.3)
ANONYMOUS = {"anon": True, "client_kwargs": {"region_name": "us-east-1"}}

Objects = dict[str, tuple[bytes, Version]]


@pytest.fixture(scope="module")
def objects(s3: S3Server) -> Objects:
    """Short objects of several sizes, with their versions."""
    store = open_store(f"s3://{BUCKET}/", s3.options)
    draw = random.Random(7)
    bodies = {f"together/{number:03d} +é&.bin": draw.randbytes(SIZES[number % len(SIZES)]) for number in range(COUNT)}
    for key, body in bodies.items():
        store.put(key, body)
    return {key: (body, store.stat(key).version) for key, body in bodies.items()}


@pytest.fixture
def store(s3: S3Server, proxy: FaultProxy) -> SteadyStore:
    return SteadyStore(S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url}), Limits(), policy=QUICK)


def whole(objects: Objects) -> list[Range]:
    return [Range(key, version, 0, len(body)) for key, (body, version) in objects.items()]


def bodies(found: Iterable[object]) -> list[bytes]:
    return [bytes(memoryview(one)) for one in found]  # type: ignore[arg-type]


def clients(proxy: FaultProxy) -> set[str]:
    return {"obstore" if "accept" in head.headers else "socket" for head in proxy.heads}


def test_many_are_read_over_few_connections_without_a_thread_more(
    store: SteadyStore, proxy: FaultProxy, objects: Objects
) -> None:
    threads = {thread.name for thread in threading.enumerate()}
    for _ in range(2):
        assert bodies(store.read_many(whole(objects))) == [body for body, _ in objects.values()]
        assert {thread.name for thread in threading.enumerate()} <= threads
    assert clients(proxy) == {"socket"}
    assert proxy.counts.requests == 2 * COUNT
    assert proxy.counts.connections <= 32  # kept from the first call to the second
    assert all("if-match" in head.headers for head in proxy.heads)


@settings(max_examples=15)
@given(data=st.data())
def test_any_ranges_are_those_of_the_objects(s3: S3Server, objects: Objects, data: st.DataObject) -> None:
    keys = st.sampled_from(sorted(objects))
    ranges, expected = [], []
    for key in data.draw(st.lists(keys, max_size=40)):
        body, version = objects[key]
        start = data.draw(st.integers(0, len(body) - 1))
        length = data.draw(st.integers(0, len(body) - start))
        pinned = data.draw(st.sampled_from([version, None]))
        ranges.append(Range(key, pinned, start, length))
        expected.append(body[start : start + length])
    gap = data.draw(st.sampled_from([0, 100, 64 * KIB]))
    assert bodies(open_store(f"s3://{BUCKET}/", s3.options).read_many(ranges, max_gap_bytes=gap)) == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", ["reset", "truncate"])
def test_a_body_that_breaks_off_is_asked_for_again(
    store: SteadyStore, proxy: FaultProxy, objects: Objects, fault: str
) -> None:
    setattr(proxy.faults, f"{fault}_after", 5000)
    setattr(proxy.faults, f"{fault}_times", 12)
    assert bodies(store.read_many(whole(objects))) == [body for body, _ in objects.values()]
    assert proxy.counts.struck == 12
    assert COUNT + 12 <= proxy.counts.requests < 2 * COUNT
    assert store.budget.pace.in_flight == 0


def test_connections_that_ended_while_idle_are_not_a_failure(s3: S3Server, proxy: FaultProxy, objects: Objects) -> None:
    once = RetryPolicy(patience_seconds=0, first_contact_seconds=0)
    store = SteadyStore(S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url}), Limits(), policy=once)
    for _ in range(3):
        assert bodies(store.read_many(whole(objects))) == [body for body, _ in objects.values()]
        proxy.refuse()
        proxy.heal()


def test_a_changed_object_is_named_and_the_rest_is_dropped(
    store: SteadyStore, proxy: FaultProxy, objects: Objects
) -> None:
    ranges = whole(objects)
    ranges[5] = ranges[5]._replace(version=Version('etag:"other"'))
    with pytest.raises(SourceChangedError) as raised:
        store.read_many(ranges)
    assert raised.value.uri.endswith(ranges[5].key)
    assert raised.value.found == objects[ranges[5].key][1]
    assert raised.value.__cause__ is raised.value.__context__ is None
    assert store.budget.pace.in_flight == 0
    assert bodies(store.read_many(whole(objects))) == [body for body, _ in objects.values()]


def test_a_missing_object_is_gone_if_it_was_pinned(store: SteadyStore, objects: Objects) -> None:
    version = next(iter(objects.values()))[1]
    with pytest.raises(SourceChangedError, match="gone"):
        store.read_many([*whole(objects), Range("together/none", version, 0, 10)])
    with pytest.raises(SourceNotFoundError, match="together/none"):
        store.read_many([*whole(objects), Range("together/none", None, 0, 10)])


def test_an_object_shorter_than_asked_for_is_not_asked_for_again(
    store: SteadyStore, proxy: FaultProxy, objects: Objects
) -> None:
    key, (body, version) = next((key, one) for key, one in objects.items() if len(one[0]) == 10 * KIB)
    with pytest.raises(SourceUnavailableError, match="the object is shorter"):
        store.read_many([Range(key, version, 100, len(body))])
    assert proxy.counts.requests == 1


def test_refused_keys_are_told_without_them(s3: S3Server, objects: Objects) -> None:
    store = SteadyStore(S3Store(BUCKET, {**s3.options, "secret": "hunter2"}), Limits(), policy=QUICK)
    with pytest.raises(SourceAuthError, match="refuses these credentials") as raised:
        store.read_many(whole(objects))
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_keys_that_obstore_cannot_name_come_through_botocore(
    store: SteadyStore, proxy: FaultProxy, objects: Objects
) -> None:
    key, (body, version) = next(iter(objects.items()))
    odd = key.replace("/", "//")  # one key to SeaweedFS
    found = store.read_many([Range(odd, version, 0, len(body)), *whole(objects)])
    assert bodies(found) == [body, *(body for body, _ in objects.values())]
    assert sum("amz-sdk-invocation-id" in head.headers for head in proxy.heads) == 1


def test_a_server_that_hangs_ends_in_an_error_and_in_time(
    store: SteadyStore, proxy: FaultProxy, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.stat(next(iter(objects)))
    monkeypatch.setattr(object_clients, "IDLE_SECONDS", 1)
    store._policy = HASTY
    proxy.faults.hang = True
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError):
        store.read_many(whole(objects))
    assert 1 < time.monotonic() - begun < 6
    assert store.budget.pace.in_flight == 0


def test_a_server_that_is_away_for_a_moment_is_waited_for(
    store: SteadyStore, proxy: FaultProxy, objects: Objects
) -> None:
    store.stat(next(iter(objects)))
    proxy.refuse()
    back = threading.Timer(0.5, proxy.heal)
    back.start()
    assert bodies(store.read_many(whole(objects))) == [body for body, _ in objects.values()]
    back.join()


def test_a_burst_of_503_costs_each_request_that_was_refused_and_no_more(
    store: SteadyStore, proxy: FaultProxy, objects: Objects
) -> None:
    proxy.faults = Faults(unavailable_times=20, unavailable_body=b"<Error><Code>SlowDown</Code></Error>")
    assert bodies(store.read_many(whole(objects))) == [body for body, _ in objects.values()]
    assert proxy.counts.requests == COUNT + 20


def test_long_and_short_are_read_in_one_call(store: SteadyStore, s3: S3Server, objects: Objects) -> None:
    direct = open_store(f"s3://{BUCKET}/", s3.options)
    data = random.Random(2).randbytes((9 << 20) + 1)
    direct.put("together/long", data)
    long = Range("together/long", direct.stat("together/long").version, 0, len(data))
    found = store.read_many([long, *whole(objects)])
    assert bodies(found) == [data, *(body for body, _ in objects.values())]


# --- servers of our own

BODY = b"0123456789"


def answer(head: str, *, status: str = "206 Partial Content", body: bytes = BODY, **fields: str) -> bytes:
    """Answer a request for the bytes 0-9 well, or with other fields."""
    found = {"Content-Length": str(len(body)), "Content-Range": "bytes 0-9/10", "ETag": '"1"', **fields}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in found.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def opened(url: str, limits: Limits | None = None, policy: RetryPolicy = HASTY) -> SteadyStore:
    name = f"bucket-{time.monotonic_ns()}"  # and so a budget of its own
    return SteadyStore(S3Store(name, {**ANONYMOUS, "endpoint_url": url}), limits or Limits(), policy=policy)


TEN = [Range(f"key-{number}", Version('etag:"1"'), 0, 10) for number in range(10)]
HOSTILE: dict[str, list[bytes | float | None]] = {
    "garbage": [b"\x00\xff" * 500 + b"\r\n\r\n", None],
    "another protocol": [b"SSH-2.0-OpenSSH_9.6\r\n\r\n", None],
    "nothing": [None],
    "no end of the head": [b"HTTP/1.1 206 Partial Content\r\n" + b"X-A: b\r\n" * (1 << 17), None],
    "body breaks off": [answer("", Content_Length="10")[:-4], None],
    "a longer body than was asked for": [answer("", body=BODY * 2, Content_Range="bytes 0-19/20"), None],
    "another range": [answer("", Content_Range="bytes 5-14/20"), None],
    "another length than range": [answer("", Content_Range="bytes 0-9/10", body=BODY[:5]), None],
    "the whole object": [answer("", status="200 OK"), None],
    "a negative length": [answer("", Content_Length="-10"), None],
    "an absurd length": [answer("", Content_Length="9" * 5000), None],
    "absurd range": [answer("", Content_Range=f"bytes 0-{'9' * 5000}/1"), None],
    "two lengths": [answer("").replace(b"ETag", b"Content-Length: 5\r\nETag"), None],
    "an endless error": [answer("", status="500 Oops", Content_Length=str(1 << 40), body=b"x" * (1 << 20)), None],
    "endless redirects": [answer("", status="302 Found", Location="/"), None],
    "only that it goes on": [b"HTTP/1.1 100 Continue\r\n\r\n", None],
    "another version": [answer("", ETag='"2"'), None],
    "no version": [answer("").replace(b'ETag: "1"\r\n', b""), None],
    "a drip of a head": [b"HTTP/1.1 206", 0.6, b" Part", 0.6, b"ial", 30.0],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_answer_ends_in_an_error_of_ours_and_in_time(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_clients, "IDLE_SECONDS", 1)
    with scripted_server(lambda _: HOSTILE[case]) as server:
        store = opened(server.url)
        begun = time.monotonic()
        with pytest.raises(SourceError):
            store.read_many(TEN)
        assert time.monotonic() - begun < 8
        assert store.budget.pace.in_flight == 0


def test_a_body_that_drips_for_ever_ends_with_the_time_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_clients, "REQUEST_SECONDS", 1)

    def drip(head: str) -> list[bytes | float | None]:
        data = answer(head)
        steps: list[bytes | float | None] = [data[:-8]]
        return [*steps, *(step for byte in data[-8:] for step in (0.4, bytes([byte])))]

    with scripted_server(drip) as server:
        begun = time.monotonic()
        with pytest.raises(SourceUnavailableError):
            opened(server.url).read_many(TEN)
        assert time.monotonic() - begun < 8


def test_a_form_that_is_not_read_here_is_left_to_obstore() -> None:
    asked: list[str] = []

    def chunked_once(head: str) -> list[bytes | float | None]:
        asked.append(head)
        if len(asked) > 1:
            return [answer(head)]
        fields = answer(head, body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        return [fields, b"a\r\n" + BODY + b"\r\n0\r\n\r\n"]

    with scripted_server(chunked_once) as server:
        store = opened(server.url)
        for _ in range(2):
            assert bodies(store.read_many(TEN)) == [BODY] * 10
        assert len(server.heads) == 21
        assert sum("accept" in head for head in server.heads) >= 11  # obstore's, and all of the second call


def test_an_error_that_a_proxy_words_itself_is_not_how_the_server_answers() -> None:
    asked: list[str] = []

    def away_first(head: str) -> list[bytes | float | None]:
        asked.append(head)
        if len(asked) > 10:
            return [answer(head)]
        return [b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\n<html>no server</html>", None]

    with scripted_server(away_first) as server:
        store = opened(server.url, policy=QUICK)
        assert bodies(store.read_many(TEN)) == [BODY] * 10
        assert len(asked) == 20
        assert not any("accept" in head for head in asked)  # obstore's


def test_an_address_that_cannot_be_reached_at_all_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def with_a_bad_one(host: str, port: int, **more: int) -> list[Any]:
        bad = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("255.255.255.255", port))
        return [bad, *look_up(host, port, **more)]

    with scripted_server(lambda head: [answer(head)]) as server:
        monkeypatch.setattr(socket, "getaddrinfo", with_a_bad_one)
        assert bodies(opened(server.url).read_many(TEN)) == [BODY] * 10
        assert not any("accept" in head for head in server.heads)


def test_heads_and_bodies_may_come_in_any_pieces() -> None:
    draw = random.Random(1)

    def torn(head: str) -> list[bytes | float | None]:
        data = answer(head)
        steps: list[bytes | float | None] = []
        while data:
            cut = draw.randint(1, 40)
            steps += [data[:cut], 0.001]
            data = data[cut:]
        return steps

    with scripted_server(torn) as server:
        assert bodies(opened(server.url).read_many(TEN * 20)) == [BODY] * 200
        assert server.most_at_once <= 32


def test_a_connection_that_is_closed_after_each_answer_is_not_a_failure() -> None:
    with scripted_server(lambda head: [answer(head, Connection="close"), None]) as server:
        once = RetryPolicy(patience_seconds=0, first_contact_seconds=0)
        assert bodies(opened(server.url, policy=once).read_many(TEN * 10, max_gap_bytes=0)) == [BODY] * 100


def test_limits_hold_for_the_loop_too() -> None:
    with scripted_server(lambda head: [0.005, answer(head)]) as server:
        store = opened(server.url, Limits(concurrency=3))
        ranges = [Range(f"key-{number}", Version('etag:"1"'), 0, 10) for number in range(60)]
        done: list[list[bytes]] = []
        threads = [threading.Thread(target=lambda: done.append(bodies(store.read_many(ranges)))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert done == [[BODY] * 60] * 3
        assert server.most_at_once <= 3


def test_a_rate_is_kept() -> None:
    with scripted_server(lambda head: [answer(head)]) as server:
        ranges = [Range(f"key-{number}", Version('etag:"1"'), 0, 10) for number in range(60)]
        begun = time.monotonic()
        assert bodies(opened(server.url, Limits(requests_per_second=40)).read_many(ranges)) == [BODY] * 60
        assert time.monotonic() - begun > 0.4  # the first second's worth at once


def test_every_address_of_a_server_is_tried() -> None:
    with scripted_server(lambda head: [answer(head)]) as server:  # on 127.0.0.1 only
        url = server.url.replace("127.0.0.1", "localhost")
        assert bodies(opened(url).read_many(TEN * 5)) == [BODY] * 50


def test_a_server_that_is_not_there_is_told_soon() -> None:
    with scripted_server(lambda head: [answer(head)]) as server:
        pass
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="refused"):
        opened(server.url).read_many(TEN)
    with pytest.raises(SourceUnavailableError, match="resolve"):
        opened("http://nowhere.invalid:1").read_many(TEN)
    assert time.monotonic() - begun < 15


@given(data=st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 206 OK\r\n" + tail))
def test_a_head_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    head = parse_head(data)
    if head is not None:
        assert 0 <= head.status <= 999
        assert head.length is None or head.length >= 0
        assert head.retry_after is None or head.retry_after >= 0
        assert isinstance(head.is_within(0, 10), bool)
    assert len(data) < MOST_HEAD_BYTES
