"""Long bodies over plain HTTP: read from the socket. What breaks on the way is in `reading/test_faults.py`."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from sources import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceUnavailableError,
    SwapLostError,
    Version,
    open_store,
)
from sources.s3 import S3Store
from sources.s3.options import read_options
from sources.s3.signing import signed_headers
from sources.s3.sockets import fits
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from tests.services.faults import FaultProxy
    from tests.services.weed import S3Server

MIB = 1 << 20
SIZE = 3 * MIB + 7
KEY = "sockets/a +b&c=d~é'(1)*!@:,;$.bin"


@pytest.fixture(scope="module")
def long(s3: S3Server) -> tuple[bytes, Version]:
    """A long object and its version."""
    data = random.Random(3).randbytes(SIZE)
    store = open_store(f"s3://{BUCKET}/", s3.options)
    store.put(KEY, data)
    return data, store.stat(KEY).version


@pytest.fixture
def store(s3: S3Server, proxy: FaultProxy) -> S3Store:
    return S3Store(BUCKET, {**s3.options, "endpoint_url": proxy.url})


def agents(proxy: FaultProxy) -> list[str]:
    """Return which client sent each request: obstore accepts more than one kind of body."""
    return ["obstore" if "accept" in head.headers else "socket" for head in proxy.heads]


def test_a_signature_is_that_of_the_example_of_aws() -> None:
    keys: Any = {
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    }
    headers = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"}
    now = datetime(2013, 5, 24, tzinfo=UTC)
    signed = signed_headers(headers, path="/test.txt", query="", region="us-east-1", keys=keys, now=now)
    assert signed["authorization"].endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


@given(key=st.text(min_size=1), version=st.none() | st.text(min_size=1), token=st.none() | st.just("a/token+="))
def test_a_signature_is_that_of_botocore(key: str, version: str | None, token: str | None) -> None:
    key = key.encode("utf-8", "ignore").decode()
    path = "/bucket/" + quote(key, safe="/-_.~")
    query = "" if version is None else f"versionId={quote(version.encode('utf-8', 'ignore'), safe='-_.~')}"
    request = AWSRequest("GET", f"http://host:8333{path}{'?' if query else ''}{query}", headers={"range": "bytes=0-9"})
    S3SigV4Auth(Credentials("key", "secret", token), "s3", "somewhere").add_auth(request)
    now = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    keys: Any = {"access_key_id": "key", "secret_access_key": "secret", "token": token}
    headers = {"host": "host:8333", "range": "bytes=0-9"}
    signed = signed_headers(headers, path=path, query=query, region="somewhere", keys=keys, now=now)
    assert signed["authorization"] == request.headers["Authorization"]


def test_a_long_range_comes_over_one_kept_connection(
    store: S3Store, proxy: FaultProxy, long: tuple[bytes, Version]
) -> None:
    data, version = long
    for start, length in ((0, SIZE), (1, 2 * MIB), (SIZE - MIB - 1, MIB + 1)):
        assert bytes(store.read(KEY, start=start, length=length, version=version)) == data[start : start + length]
    assert agents(proxy) == ["socket"] * 3
    assert {head.headers["if-match"] for head in proxy.heads} == {version.removeprefix("etag:")}
    assert proxy.counts.connections == 1


def test_a_connection_that_ended_while_idle_is_not_a_failure(
    store: S3Store, proxy: FaultProxy, long: tuple[bytes, Version]
) -> None:
    data, version = long
    for _ in range(2):
        assert bytes(store.read(KEY, start=0, length=SIZE, version=version)) == data
        proxy.refuse()
        proxy.heal()


def test_a_read_past_the_end_says_that_the_object_is_shorter(store: S3Store, long: tuple[bytes, Version]) -> None:
    with pytest.raises(SourceUnavailableError, match="the object is shorter") as raised:
        store.read(KEY, start=MIB, length=SIZE, version=long[1])
    assert not raised.value.retryable
    assert raised.value.received == SIZE - MIB


def test_another_version_is_a_change(store: S3Store, long: tuple[bytes, Version]) -> None:
    with pytest.raises(SourceChangedError):
        store.read(KEY, start=0, length=SIZE, version=Version('etag:"other"'))
    with pytest.raises(SourceChangedError, match="gone"):
        store.read("sockets/nothing", start=0, length=SIZE, version=long[1])


def test_a_server_that_ignores_the_condition_is_found_out(
    store: S3Store, proxy: FaultProxy, long: tuple[bytes, Version]
) -> None:
    answer(proxy, "206 Partial Content", {"etag": '"new"', "content-range": f"bytes 0-{2 * MIB - 1}/{SIZE}"}, 2 * MIB)
    with pytest.raises(SourceChangedError, match="new"):
        store.read(KEY, start=0, length=2 * MIB, version=long[1])


def test_refused_keys_are_told_without_them(s3: S3Server, long: tuple[bytes, Version]) -> None:
    store = S3Store(BUCKET, {**s3.options, "secret": "hunter2"})
    with pytest.raises(SourceAuthError, match="refuses these credentials") as raised:
        store.read(KEY, start=0, length=SIZE, version=long[1])
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_a_throttled_answer_costs_one_request_and_says_how_long_to_wait(
    store: S3Store, proxy: FaultProxy, long: tuple[bytes, Version]
) -> None:
    answer(proxy, "503 Slow Down", {"retry-after": "7"}, 0)
    with pytest.raises(SourceUnavailableError) as raised:
        store.read(KEY, start=0, length=SIZE, version=long[1])
    assert raised.value.throttled
    assert raised.value.retry_after == 7
    assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    ("status", "place"), [("200 OK", None), ("206 Partial Content", 1), ("206 Partial Content", MIB)]
)
def test_other_bytes_than_those_asked_for_are_refused(
    store: S3Store, proxy: FaultProxy, long: tuple[bytes, Version], status: str, place: int | None
) -> None:
    headers = {"etag": long[1].removeprefix("etag:")}
    if place is not None:
        headers["content-range"] = f"bytes {place}-{place + 2 * MIB - 1}/{SIZE}"
    answer(proxy, status, headers, 2 * MIB)
    with pytest.raises(SourceConfigError, match="ignores ranges"):
        store.read(KEY, start=0, length=2 * MIB, version=long[1])


def test_a_body_in_another_form_is_left_to_obstore(
    store: S3Store, proxy: FaultProxy, long: tuple[bytes, Version]
) -> None:
    data, version = long
    answer(proxy, "206 Partial Content", {"transfer-encoding": "chunked"}, 0)
    for _ in range(2):
        assert bytes(store.read(KEY, start=0, length=SIZE, version=version)) == data
    assert agents(proxy) == ["socket", "obstore", "obstore"]


@pytest.mark.parametrize("length", [1, SIZE])  # obstore's, and a socket's
@pytest.mark.parametrize("token", ['etag:"a"\r\nx-evil: 1', 'etag:"\x00"', 'etag:"\ud800"', "vid:a\r\nx-evil: 1"])
def test_a_version_is_no_way_to_write_headers(
    store: S3Store, proxy: FaultProxy, long: tuple[bytes, Version], length: int, token: str
) -> None:
    with pytest.raises(SourceChangedError) as caught:
        store.read(KEY, start=0, length=length, version=Version(token))
    assert caught.value.found == long[1]
    with pytest.raises(SwapLostError):
        store.swap(KEY, b"1", expect=Version(token))
    assert {head.method for head in proxy.heads} == {"HEAD"}
    assert not any("x-evil" in head.headers for head in proxy.heads)


@pytest.mark.parametrize(
    ("endpoint", "environment", "fit"),
    [
        ("http://s3.example.org", {}, True),
        ("https://s3.example.org", {}, False),
        (None, {}, False),
        ("http://s3.example.org", {"http_proxy": "http://proxy:3128"}, False),
        ("http://s3.example.org", {"all_proxy": "http://proxy:3128"}, False),
        ("http://s3.example.org", {"http_proxy": "http://proxy:3128", "no_proxy": "example.org"}, True),
    ],
)
def test_tls_and_proxies_are_left_to_obstore(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, environment: dict[str, str], fit: bool
) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = {"anon": True} if endpoint is None else {"anon": True, "endpoint_url": endpoint}
    assert fits(read_options("s3://bucket", "bucket", options)) is fit


def answer(proxy: FaultProxy, status: str, headers: dict[str, str], length: int) -> None:
    """Let the proxy answer the next request itself."""
    faults = proxy.faults
    faults.unavailable_status, faults.unavailable_headers = status, headers
    faults.unavailable_body, faults.unavailable_times = bytes(length), 1
