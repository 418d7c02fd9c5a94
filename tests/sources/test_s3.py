from __future__ import annotations

import gc
import logging
import multiprocessing
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from s3fs import S3FileSystem

from sources import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceNotFoundError,
    SourceUnavailableError,
    SwapLostError,
    open_store,
)
from sources.s3 import S3Store
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.weed import S3Server

SECRET = "hunter2-is-not-a-secret-to-show"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, kept from others while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("uri", "options", "message"),
    [
        ("s3:///prefix", {}, "the bucket is missing"),
        ("s3://b/p", {"endpoint": "http://x"}, "unknown option 'endpoint'; known: .*endpoint_url"),
        ("s3://b/p", {"endpoint_url": "127.0.0.1:9000"}, "endpoint_url is a http"),
        ("s3://b/p", {"key": "k"}, "key and secret go together"),
        ("s3://b/p", {"client_kwargs": {"zone": "x"}}, "unknown option 'zone'"),
        ("s3://b/p", {"client_kwargs": "x"}, "client_kwargs is a mapping"),
        ("s3://b/p", {"anon": "false"}, "anon is true or false, found 'false'"),
        ("s3://b/p", {"token": "t"}, "token goes with options key and secret"),
        ("s3://b/p", {"config_kwargs": {"s3": {"addressing_style": "dns"}}}, "addressing_style is one of auto, path"),
        ("s3://b/p", {"config_kwargs": {"retries": {}}}, "unknown option 'retries'; known: s3"),
        ("s3://b/p", {"client_kwargs": {"verify": "/no/such.pem"}}, "no file of certificates at /no/such.pem"),
        ("s3://b/p", {"version_aware": 1}, "version_aware is true or false, found 1"),
        ("s3://b/p", {"endpoint_url": "http://k:hunter2@host"}, "endpoint_url carries credentials"),
        ("s3://b/p", {"profile": "nobody"}, "no profile 'nobody'"),
        ("s4://b/p", {}, r"unknown scheme 's4'; known: .*file://, .*s3:// and every protocol of fsspec"),
        ("bucket/p", {}, "not a source URI"),
        ("s3://key:secret@bucket/p", {}, "carries credentials"),
    ],
)
def test_a_wrong_uri_or_option_is_named(uri: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SourceConfigError, match=message) as caught:
        open_store(uri, options)
    assert "key:secret" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_wrong_keys_are_refused_and_not_shown(s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = open_store(f"s3://{BUCKET}/", {**s3.options, "secret": SECRET})
    for call in (lambda: list(store.list("")), lambda: store.stat("x"), lambda: store.put("x", b"")):
        with pytest.raises(SourceAuthError, match="check AWS_ACCESS_KEY_ID") as caught:
            call()
        assert SECRET not in f"{caught.value}{caught.value.__cause__}{caplog.text}"


def test_an_absent_bucket_is_not_found(s3: S3Server) -> None:
    with pytest.raises(SourceNotFoundError, match="no such bucket: s3://no-such-bucket"):
        list(open_store("s3://no-such-bucket/", s3.options).list(""))


def test_an_unreachable_endpoint_is_told_in_seconds(closed_port: int) -> None:
    options = {"key": "k", "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{closed_port}"}
    with pytest.raises(SourceUnavailableError, match="connection refused; is the endpoint right") as caught:
        list(open_store("s3://bucket/", options).list(""))
    assert SECRET not in str(caught.value)


def test_a_profile_of_the_aws_files_is_used(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[demo]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    store = open_store(f"s3://{BUCKET}/", {"profile": "demo", "endpoint_url": s3.endpoint})
    store.put("profile/x", b"1")
    assert [stat.key for stat in store.list("profile/")] == ["profile/x"]


@pytest.mark.parametrize("profile", ["default", "team"])
def test_the_profile_of_the_environment_is_used(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[{profile}]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    if profile != "default":
        monkeypatch.setenv("AWS_PROFILE", profile)
    assert list(open_store(f"s3://{BUCKET}/", {"endpoint_url": s3.endpoint}).list("nothing/")) == []


def test_a_marker_of_a_directory_is_no_file(s3: S3Server) -> None:
    writer = S3FileSystem(**s3.options)
    for name in ("marked/", "marked/empty", "marked/below/", "marked/below/file"):
        writer.call_s3("put_object", Bucket=BUCKET, Key=name)
    listed = open_store(f"s3://{BUCKET}/", s3.options).list("marked/")
    assert sorted(stat.key for stat in listed) == ["marked/below/file", "marked/empty"]


def test_keys_that_obstore_cannot_name_are_listed_read_and_written(s3: S3Server) -> None:
    store = open_store(f"s3://{BUCKET}/", s3.options)
    odd = "odd/new\nline"
    for key in ("odd/a", odd, "odd/z"):
        store.put(key, b"12345")
    listed = {stat.key: stat for stat in store.list("odd/")}
    assert list(listed) == ["odd/a", odd, "odd/z"]
    assert store.stat(odd) == listed[odd]
    assert store.read(odd, start=1, length=3, version=listed[odd].version) == b"234"
    store.put(odd, b"changed")
    with pytest.raises(SourceChangedError):
        store.read(odd, start=1, length=3, version=listed[odd].version)
    store.delete(odd)
    with pytest.raises(SourceChangedError, match="gone"):
        store.read(odd, start=1, length=3, version=listed[odd].version)


def test_a_prefix_may_end_inside_a_name(s3: S3Server) -> None:
    store = S3Store(BUCKET, s3.options)
    for name in ("a", "ab", "abc/d", "b"):
        store.put(f"inside/{name}", b"x")
    assert [stat.key for stat in store.list("inside/ab")] == ["inside/ab", "inside/abc/d"]


def test_a_listing_goes_on_after_any_key(s3: S3Server) -> None:
    store = S3Store(BUCKET, s3.options)
    for number in range(6):
        store.put(f"after/{number}", b"")  # empty ones take the page a second time
    store.put("after/4x/", b"")
    for after in ("after/2", "after/25", "after/2\n"):
        (page,) = store.pages("after/", after=after)
        assert page.column("key").to_pylist() == ["after/3", "after/4", "after/5"]
    assert list(store.pages("after/", after="after/5")) == []


def test_the_environment_is_used_where_options_say_nothing(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/")
    store.put("environment/x", b"1")
    assert store.stat("environment/x").size == 1


def test_a_body_of_many_parts_is_written_whole(s3: S3Server) -> None:
    store = open_store(f"s3://{BUCKET}/", s3.options)
    data = bytes(range(256)) * (13 << 12)  # 13 MiB: more than two parts
    store.put("large", data)
    stat = store.stat("large")
    assert bytes(store.read("large", start=0, length=len(data), version=stat.version)) == data


def test_a_forked_child_lists_reads_and_writes(s3: S3Server) -> None:
    store = S3Store(BUCKET, s3.options)
    store.put("fork/x", b"12345")
    pinned = store.stat("fork/x")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        answers.put(bytes(store.read("fork/x", start=1, length=3, version=pinned.version)))
        answers.put([stat.key for stat in store.list("fork/")])
        body, version = store.fetch("fork/x")
        answers.put((body, version == pinned.version))
        store.swap("fork/x", b"swapped", expect=version)
        try:
            store.swap("fork/x", b"again", expect=version)
        except SwapLostError:
            answers.put("lost")
        buffer = memoryview(bytearray(7))
        store.read_into("fork/x", start=0, buffer=buffer, version=None)
        answers.put(bytes(buffer))
        try:
            store.read("fork/x", start=0, length=1, version=version)
        except SourceChangedError as error:
            answers.put(error.found == store.stat("fork/x").version)

    process = context.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert [answers.get() for _ in range(6)] == [b"234", ["fork/x"], (b"12345", True), "lost", b"swapped", True]


def test_a_forked_child_goes_on_with_a_listing(s3: S3Server) -> None:
    store = S3Store(BUCKET, s3.options)
    keys = [f"half/{number:04d}" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"1"), keys))
    listing = store.pages("half/")
    first = next(listing).column("key").to_pylist()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        answers.put([key for page in listing for key in page.column("key").to_pylist()])

    process = context.Process(target=child)
    process.start()
    process.join(30)
    process.kill()
    assert process.exitcode == 0
    assert first + answers.get() == keys


def test_a_forked_child_outlives_the_stores_of_its_parent(s3: S3Server) -> None:
    stores = [S3Store(BUCKET, s3.options) for _ in range(10)]
    with ThreadPoolExecutor(10) as pool:  # connections of each, known to obstore's threads
        list(pool.map(lambda store: list(store.list("nothing/")), stores * 5))
    context = multiprocessing.get_context("fork")

    def child() -> None:
        stores.clear()
        gc.collect()

    processes = [context.Process(target=child) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * 5


def test_a_pickled_store_reads_the_same(s3: S3Server) -> None:
    store = open_store(f"s3://{BUCKET}/", s3.options)
    store.put("pickle", b"12345")
    assert pickle.loads(pickle.dumps(store)).stat("pickle") == store.stat("pickle")
