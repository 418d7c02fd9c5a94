from __future__ import annotations

import io
import logging
import multiprocessing
import os
import pickle
import secrets
import tarfile
import threading
import traceback
import zipfile
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from hypothesis import given
from hypothesis import strategies as st

from sources.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.generic import FsspecStore
from sources.generic_failures import source_error
from sources.generic_identity import version_of
from sources.stores import LISTING_SCHEMA, ListDirectories
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.services.weed import S3Server

SECRET = "hunter2-is-not-a-secret-to-show"
NAMES = ("in/a", "in/b/c", "in/b/d e", "in/b.x", "in/ü", "in/b/%41+&", "inside", "other/x")


class Answers(BaseHTTPRequestHandler):
    """`/<status>` answers so; anything else has an etag and tells no length."""

    def do_HEAD(self) -> None:
        status = self.path[1:]
        self.send_response(int(status) if status.isdigit() else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Retry-After", "7")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[FsspecStore]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield FsspecStore.open(f"fsspec+http://127.0.0.1:{server.server_port}", {})
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture(params=["memory", "local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FsspecStore, str]:
    """A store, and a directory of it to write to."""
    if request.param == "memory":
        MemoryFileSystem.store.clear()
        return FsspecStore.open("memory://", {}), "generic/"
    if request.param == "local":
        return FsspecStore.open("fsspec+file://", {"auto_mkdir": True}), f"{tmp_path}/"[1:]
    server: S3Server = request.getfixturevalue("s3")
    return FsspecStore.open(f"fsspec+s3://{BUCKET}/", server.options), f"generic/{secrets.token_hex(4)}/"


def test_a_walk_is_in_byte_order_and_tells_what_stat_tells(place: tuple[FsspecStore, str]) -> None:
    store, prefix = place
    for name in NAMES:
        store.put(prefix + name, name.encode())
    below = [prefix + name for name in NAMES if name.startswith("in/")]
    listed = list(store.list(prefix + "in/"))
    assert [stat.key for stat in listed] == sorted(below, key=str.encode)
    assert listed == [store.stat(stat.key) for stat in listed]
    assert [stat.key for stat in store.list(prefix + "in")] == [stat.key for stat in listed] + [prefix + "inside"]


def test_a_page_holds_what_lies_directly_in_a_directory(place: tuple[FsspecStore, str]) -> None:
    store, prefix = place
    for name in NAMES:
        store.put(prefix + name, name.encode())
    assert isinstance(store, ListDirectories)
    page = store.scan_directory(prefix + "in/")
    assert page.files.schema == LISTING_SCHEMA
    assert page.files.column("key").to_pylist() == [f"{prefix}in/{name}" for name in ("a", "b.x", "ü")]
    assert page.directories == [f"{prefix}in/b/"]
    for missing in ("nothing/", "in/a/"):
        with pytest.raises(SourceNotFoundError, match="no such directory"):
            store.scan_directory(prefix + missing)


def test_an_object_written_elsewhere_is_seen_at_once(place: tuple[FsspecStore, str]) -> None:
    store, prefix = place
    other = pickle.loads(pickle.dumps(store))
    store.put(prefix + "x", b"before")
    before = store.stat(prefix + "x")
    assert [stat.size for stat in store.list(prefix)] == [6]
    other.put(prefix + "x", b"after it changed")
    other.put(prefix + "y", b"")
    assert [stat.size for stat in store.list(prefix)] == [16, 0]
    with pytest.raises(SourceChangedError):
        store.read(prefix + "x", start=0, length=3, version=before.version)


def test_a_buffer_of_the_caller_is_filled(place: tuple[FsspecStore, str]) -> None:
    store, prefix = place
    store.put(prefix + "x", bytes(range(100)))
    buffer = memoryview(bytearray(10))
    store.read_into(prefix + "x", start=20, buffer=buffer, version=store.stat(prefix + "x").version)
    assert bytes(buffer) == bytes(range(20, 30))
    with pytest.raises(SourceUnavailableError, match="asked for 10 bytes") as caught:
        store.read_into(prefix + "x", start=95, buffer=buffer, version=None)
    assert not caught.value.retryable


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_reads_with_a_filesystem_of_its_own(
    place: tuple[FsspecStore, str], method: str, request: pytest.FixtureRequest
) -> None:
    store, prefix = place
    if store.id == "memory://" and method == "spawn":
        pytest.skip("what is in memory is not in another process")
    store.put(prefix + "x", b"12345")
    pinned = store.stat(prefix + "x")
    context: Any = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    process = context.Process(target=_read, args=(store, pinned, answers))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert answers.get() == (b"234", [pinned.key])
    assert store.stat(pinned.key) == pinned


def _read(store: FsspecStore, pinned: Any, answers: Any) -> None:
    data = bytes(store.read(pinned.key, start=1, length=3, version=pinned.version))
    answers.put((data, [stat.key for stat in store.list(pinned.key)]))


def archives(directory: Path, files: dict[str, bytes], *, mtime: int) -> dict[str, FsspecStore]:
    """Write the files into a zip and a tar; stores of both."""
    with zipfile.ZipFile(directory / "a.zip", "w") as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    with tarfile.open(directory / "a.tar", "w") as tape:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tape.addfile(info, io.BytesIO(data))
    return {kind: FsspecStore.open(f"{kind}://mine/", {"fo": str(directory / f"a.{kind}")}) for kind in ("zip", "tar")}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_of_an_archive_are_read_and_a_new_archive_is_a_change(tmp_path: Path, kind: str) -> None:
    files = {name: name.encode() * 50 for name in NAMES}
    store = archives(tmp_path, files, mtime=1_700_000_000)[kind]
    assert store.id == f"{kind}://mine"
    listed = list(store.list("in/"))
    assert [stat.key for stat in listed] == sorted((n for n in NAMES if n.startswith("in/")), key=str.encode)
    assert listed == [store.stat(stat.key) for stat in listed]
    results: list[bytes] = []

    def work() -> None:
        results.extend(
            bytes(store.read(stat.key, start=1, length=stat.size - 1, version=stat.version)) for stat in listed
        )

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == [files[stat.key][1:] for stat in listed] * 8 or sorted(results) == sorted(
        [files[stat.key][1:] for stat in listed] * 8
    )
    newer = archives(tmp_path, {name: data[::-1] for name, data in files.items()}, mtime=1_700_000_001)[kind]
    with pytest.raises(SourceChangedError):
        newer.read(listed[0].key, start=0, length=1, version=listed[0].version)


@pytest.mark.parametrize("key", ["{0}/pub/../secret", "{0}/./secret", "{0}/pub/x\0"])
def test_a_key_does_not_lead_out_of_what_is_covered(tmp_path: Path, key: str) -> None:
    (tmp_path / "pub").mkdir()
    (tmp_path / "secret").write_text(SECRET)
    store = FsspecStore.open("fsspec+file://", {})
    with pytest.raises(SourceConfigError, match="a key has no part"):
        store.read(key.format(tmp_path)[1:], start=0, length=1, version=None)


class Lying(AbstractFileSystem):  # type: ignore[misc]
    """Lists what it is told to, whatever it is asked."""

    def __init__(self, names: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self.names = names

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[dict[str, Any]]:
        kinds = ("directory" if name.endswith("/") else "file" for name in self.names)
        return [
            {"name": n.rstrip("/"), "type": k, "size": 1, "mtime": 1.5} for n, k in zip(self.names, kinds, strict=True)
        ]


def listed_by(names: list[str]) -> list[str]:
    fsspec.register_implementation("lying", Lying, clobber=True)
    return [stat.key for stat in FsspecStore.open("lying://", {"names": names}).list("top/d/")]


def test_a_directory_that_lists_itself_and_its_parent_ends() -> None:
    assert listed_by(["top/d/", "top/d/./", "top/d/../", "top/d/a"]) == ["top/d/a"]


@pytest.mark.parametrize("name", ["top/", "elsewhere/x", "top/d/a/b", "a"])
def test_a_listing_of_what_lies_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(SourceConfigError, match="does not lie there"):
        listed_by([name])


def test_members_of_a_tar_without_times_cannot_be_pinned(tmp_path: Path) -> None:
    store = archives(tmp_path, {"x": b"1"}, mtime=0)["tar"]
    with pytest.raises(SourceConfigError, match="cannot be pinned"):
        store.stat("x")


def test_links_to_files_are_listed_and_links_to_directories_are_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("12345")
    (tmp_path / "file").symlink_to("real/file")
    (tmp_path / "directory").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("nothing")
    store = FsspecStore.open("fsspec+file://", {})
    listed = {stat.key.rpartition("/")[2]: stat.size for stat in store.list(f"{tmp_path}/"[1:])}
    assert listed == {"file": 5}


def test_a_local_file_replaced_within_its_time_and_size_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    store = FsspecStore.open("fsspec+file://", {})
    before = store.stat(f"{path}"[1:])
    (tmp_path / "y").write_text("after!")
    os.utime(tmp_path / "y", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(tmp_path / "y", path)
    assert store.stat(before.key).size == before.size
    assert store.stat(before.key).version != before.version


TIME = datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC)
TIME_NS = int(TIME.timestamp()) * 10**9


@pytest.mark.parametrize(
    ("protocol", "info", "version"),
    [
        ("s3", {"ETag": '"a"', "LastModified": TIME, "size": 5}, 'etag:"a"'),
        ("abfs", {"etag": "0x8", "last_modified": TIME, "size": 5}, "etag:0x8"),
        ("github", {"sha": "ab12", "size": 5}, "sha:ab12:5"),
        ("gist", {"sha": "ab12", "size": 5}, None),  # of the gist, not of the file
        ("zip", {"CRC": 7, "size": 5, "date_time": (1980, 1, 1, 0, 0, 0)}, "crc:7:5"),
        ("zip", {"CRC": 0, "size": 0}, "crc:0:0"),
        ("gdrive", {"md5Checksum": "ff", "size": 5}, "md5checksum:ff:5"),
        ("http", {"Last-Modified": "Sat, 31 Jan 2026 23:59:58 GMT", "size": 5}, f"stat:{TIME_NS}:5"),
        ("http", {"ETag": '"a"', "size": None}, None),
        ("sftp", {"mtime": TIME, "size": 5}, f"stat:{TIME_NS}:5"),
        ("ftp", {"modify": "20260131235958.123", "size": 5}, f"stat:{TIME_NS}:5"),
        ("ftp", {"modify": "Jan 31 23:59", "size": 5}, None),  # which year?
        ("webhdfs", {"modificationTime": TIME_NS // 10**6, "size": 5}, f"stat:{TIME_NS}:5"),
        ("jupyter", {"last_modified": "2026-01-31T23:59:58Z", "size": 5}, f"stat:{TIME_NS}:5"),
        ("tar", {"mtime": 0, "size": 5}, None),
        ("dbfs", {"size": 5}, None),
    ],
)
def test_identity_is_the_best_that_a_filesystem_tells(
    protocol: str, info: dict[str, object], version: str | None
) -> None:
    assert version_of(info, protocol)[0] == version


@given(st.dictionaries(st.sampled_from(["mtime", "modify", "created", "size"]), st.text() | st.integers() | st.none()))
def test_identity_of_anything_is_a_version_or_none(info: dict[str, Any]) -> None:
    info["size"] = 5
    version, _ = version_of(info, "any")
    assert version is None or version.startswith("stat:")


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"An error occurred for {SECRET}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}


@pytest.mark.parametrize(
    ("error", "kind", "throttled", "retryable"),
    [
        (ClientError(503, "SlowDown"), SourceUnavailableError, True, True),
        (ClientError(400, "RequestLimitExceeded"), SourceUnavailableError, True, True),
        (ClientError(500, "InternalError"), SourceUnavailableError, False, True),
        (ClientError(416, "InvalidRange"), SourceUnavailableError, False, False),
        (ClientError(403, "SignatureDoesNotMatch"), SourceAuthError, None, None),
        (ClientError(404, "NoSuchKey"), SourceNotFoundError, None, None),
        (TimeoutError(SECRET), SourceUnavailableError, False, True),
        (ConnectionResetError(SECRET), SourceUnavailableError, False, True),
        (OSError(28, SECRET), SourceFullError, None, None),
        (NotImplementedError(SECRET), SourceConfigError, None, None),
        (AttributeError(SECRET), SourceUnavailableError, False, False),
        (IsADirectoryError(21, SECRET), SourceNotFoundError, None, None),
    ],
)
def test_errors_of_any_library_are_sorted_out(
    error: Exception, kind: type[SourceError], throttled: bool | None, retryable: bool | None
) -> None:
    found = source_error(error, "x://y/z")
    assert type(found) is kind
    assert SECRET not in str(found)
    if isinstance(found, SourceUnavailableError):
        assert (found.throttled, found.retryable) == (throttled, retryable)


def test_a_status_of_a_real_server_is_told(web: FsspecStore) -> None:
    with pytest.raises(SourceUnavailableError, match="503") as caught:
        web.read("503", start=0, length=1, version=None)
    assert caught.value.throttled
    assert caught.value.retry_after == 7
    with pytest.raises(SourceUnavailableError, match="500") as caught:
        web.read("500", start=0, length=1, version=None)
    assert (caught.value.throttled, caught.value.retryable) == (False, True)


def test_an_object_of_unknown_size_cannot_be_pinned(web: FsspecStore) -> None:
    with pytest.raises(SourceConfigError, match="cannot be pinned"):
        web.stat("unsized")


def test_a_request_is_sent_once(s3: S3Server) -> None:
    filesystem = FsspecStore.open(f"fsspec+s3://{BUCKET}/", s3.options)._filesystem()
    assert filesystem.retries == 1
    assert filesystem.config_kwargs["retries"]["total_max_attempts"] == 1


def test_a_filesystem_of_the_users_keeps_its_cache(s3: S3Server) -> None:
    users = fsspec.filesystem("s3", **s3.options)
    ours = FsspecStore.open(f"fsspec+s3://{BUCKET}/", s3.options)._filesystem()
    assert users is not ours
    assert users.dircache.use_listings_cache
    assert not ours.dircache.use_listings_cache


def test_a_wrong_option_is_told_without_its_value(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = FsspecStore.open("zip://mine/", {"fo": 1, "password": SECRET})
    with pytest.raises(SourceError) as caught:
        store.stat("x")
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_protocol_that_needs_a_missing_package_is_told() -> None:
    with pytest.raises(SourceConfigError, match="cannot open a"):
        FsspecStore.open("fsspec+nothing-like-it://x/", {})
