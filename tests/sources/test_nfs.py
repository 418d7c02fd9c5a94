from __future__ import annotations

import multiprocessing
import os
import pickle
import secrets
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import fsspec
import pytest

from sources import SourceChangedError, SourceConfigError, SourceNotFoundError, SourceUnavailableError
from sources.contract import Place, StoreContract
from sources.errors import SourceAuthError
from sources.generic import FsspecStore
from sources.nfs import NfsFileSystem, NfsStore, directories, libnfs
from sources.nfs.mounting import longest_export
from sources.stores import ListDirectories, ReadInto, stats_of
from tests.services import nfs
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.nfs import NfsServer

fsspec.register_implementation("nfs", NfsFileSystem, clobber=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    require(nfs.missing())
    with nfs.nfs_server(tmp_path_factory.mktemp("nfs")) as server:
        yield server


@pytest.fixture(params=["libnfs", "nfs-rs"])
def server(running: NfsServer, request: pytest.FixtureRequest) -> NfsServer:
    """The server, for clients of one engine."""
    running.client = {"engine": request.param}
    return running


@pytest.fixture
def directory(server: NfsServer) -> Path:
    path = server.export / secrets.token_hex(4)
    path.mkdir()
    return path


def store_of(server: NfsServer, root: Path, **options: object) -> NfsStore:
    return NfsStore.open(f"nfs://127.0.0.1:{server.port}{root}", {**server.options, **options})


class TestNfsStore(StoreContract):
    @pytest.fixture
    def place(self, server: NfsServer, directory: Path) -> Place:
        return store_of(server, directory), f"{directory}/"[1:]


class TestNfsStoreOnItsExport(StoreContract):
    @pytest.fixture
    def place(self, server: NfsServer, directory: Path) -> Place:
        return store_of(server, directory, export=str(server.export)), f"{directory}/"[1:]


class TestNfsThroughFsspec(StoreContract):
    @pytest.fixture
    def place(self, server: NfsServer, directory: Path) -> Place:
        uri = f"fsspec+nfs://127.0.0.1:{server.port}{directory}"
        return FsspecStore.open(uri, server.options), f"{directory}/"[1:]


def key_of(path: Path) -> str:
    return str(path)[1:]


def test_it_lists_directories_and_reads_into_buffers(server: NfsServer, directory: Path) -> None:
    store = store_of(server, directory)
    assert isinstance(store, ListDirectories)
    assert isinstance(store, ReadInto)
    (directory / "sub").mkdir()
    for name in ("b", "a.x", "sub/inner", ".forebay-tmp-1"):
        (directory / name).write_bytes(b"12345")
    page = store.scan_directory(key_of(directory) + "/")
    assert [stat.key for stat in stats_of(page.files)] == [key_of(directory / name) for name in ("a.x", "b")]
    assert page.directories == [key_of(directory / "sub") + "/"]
    buffer = bytearray(3)
    store.read_into(
        key_of(directory / "b"), start=1, buffer=memoryview(buffer), version=store.stat(key_of(directory / "b")).version
    )
    assert buffer == b"234"


def test_versions_name_inode_and_ctime_as_the_server_has_them(server: NfsServer, directory: Path) -> None:
    file = directory / "file"
    file.write_bytes(b"12345")
    stat = file.stat()
    expected = f"stat:{stat.st_mtime_ns}:5:{stat.st_ino}:{stat.st_ctime_ns}"
    store = store_of(server, directory)
    assert store.stat(key_of(file)).version == expected
    assert [found.version for found in store.list(key_of(directory) + "/")] == [expected]


def test_a_file_of_same_size_and_mtime_put_in_its_place_is_noticed(server: NfsServer, directory: Path) -> None:
    store, file = store_of(server, directory), directory / "file"
    file.write_bytes(b"before")
    pinned = store.stat(key_of(file))
    (directory / "other").write_bytes(b"after!")
    os.utime(directory / "other", ns=(0, pinned.mtime_ns or 0))
    (directory / "other").rename(file)
    with pytest.raises(SourceChangedError) as caught:
        store.read(key_of(file), start=0, length=6, version=pinned.version)
    assert caught.value.found == store.stat(key_of(file)).version


def test_a_write_that_sets_the_mtime_back_is_noticed(server: NfsServer, directory: Path) -> None:
    store, file = store_of(server, directory), directory / "file"
    file.write_bytes(b"before")
    pinned = store.stat(key_of(file))
    time.sleep(0.02)  # more than a tick of the clock of the file system
    with file.open("r+b") as writing:
        writing.write(b"after!")
    os.utime(file, ns=(0, pinned.mtime_ns or 0))
    with pytest.raises(SourceChangedError):
        store.read(key_of(file), start=0, length=6, version=pinned.version)


def test_a_directory_put_in_the_place_of_another_is_noticed(server: NfsServer, directory: Path) -> None:
    (directory / "now").mkdir()
    (directory / "now/file").write_bytes(b"old")
    store, key = store_of(server, directory), f"{directory}/now/file"[1:]
    old = store.stat(key).version
    assert bytes(store.read(key, start=0, length=3, version=old)) == b"old"  # from here on it knows the directory
    (directory / "now").rename(directory / "then")
    (directory / "now").mkdir()
    (directory / "now/file").write_bytes(b"new")
    new = store.stat(key).version
    assert bytes(store.read(key, start=0, length=3, version=None)) == b"new"
    assert bytes(store.read(key, start=0, length=3, version=new)) == b"new"
    with pytest.raises(SourceChangedError) as caught:
        store.read(key, start=0, length=3, version=old)
    assert (caught.value.expected, caught.value.found) == (old, new)


def test_a_directory_that_was_read_from_and_deleted_is_gone(server: NfsServer, directory: Path) -> None:
    (directory / "now").mkdir()
    (directory / "now/file").write_bytes(b"old")
    store, key = store_of(server, directory), f"{directory}/now/file"[1:]
    version = store.stat(key).version
    store.read(key, start=0, length=3, version=version)
    shutil.rmtree(directory / "now")
    with pytest.raises(SourceChangedError, match="gone"):
        store.read(key, start=0, length=3, version=version)


def test_directories_are_known_for_seconds_and_never_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    known = directories.Directories()
    known.keep("a", b"1")
    assert known.find("a") == b"1"
    assert known.find("b") is None
    now[0] += 3.0
    assert known.find("a") is None
    for number in range(10_000):
        known.keep(str(number), b"")
    assert len(known) <= 4096


def test_of_a_file_that_is_replaced_all_the_time_no_read_mixes_two(server: NfsServer, directory: Path) -> None:
    store, file = store_of(server, directory), directory / "file"
    size, stop = 3 << 20, threading.Event()
    file.write_bytes(b"a" * size)

    def replace() -> None:
        for letter in b"bcdefgh" * 100:
            (directory / "next").write_bytes(bytes([letter]) * size)
            (directory / "next").rename(file)
            if stop.wait(0.01):
                return

    with ThreadPoolExecutor(1) as writer:
        writer.submit(replace)
        outcomes: set[type] = set()
        for _ in range(40):
            try:
                data = bytes(store.read(key_of(file), start=0, length=size, version=store.stat(key_of(file)).version))
            except (SourceChangedError, SourceUnavailableError) as error:
                outcomes.add(type(error))
                continue
            assert len(set(data)) == 1
            outcomes.add(bytes)
        stop.set()
    assert SourceChangedError in outcomes


def test_symbolic_links_are_neither_listed_nor_followed(
    server: NfsServer, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "real").mkdir()
    (directory / "real/file").write_bytes(b"x")
    for name, target in (
        ("out", "/etc/passwd"),
        ("in", "real/file"),
        ("up", ".."),
        ("nowhere", "gone"),
        ("dir", "real"),
    ):
        (directory / name).symlink_to(target)
    os.mkfifo(directory / "fifo")
    store = store_of(server, directory)
    assert [stat.key for stat in store.list(key_of(directory) + "/")] == [key_of(directory / "real/file")]
    assert "6 entries" in caplog.text
    for name in ("out", "in", "dir/file", "up/other", "fifo"):
        with pytest.raises(SourceNotFoundError):
            store.read(key_of(directory / name), start=0, length=1, version=None)
        with pytest.raises(SourceNotFoundError):
            store.stat(key_of(directory / name))


def test_nothing_is_written_through_a_symbolic_link(server: NfsServer, directory: Path) -> None:
    (directory / "root").mkdir()
    (directory / "root/up").symlink_to("..")
    (directory / "root/out").symlink_to(directory / "target")
    (directory / "target").write_bytes(b"x")
    store = store_of(server, directory / "root")
    with pytest.raises(SourceNotFoundError):
        store.put(key_of(directory / "root/up/file"), b"y")
    store.put(key_of(directory / "root/out"), b"y")  # takes the link's place
    assert {path.name: path.is_file() and path.read_bytes() for path in directory.iterdir()} == {
        "root": False,
        "target": b"x",
    }


def test_files_of_many_requests_are_written_and_read(server: NfsServer, directory: Path) -> None:
    store, key, data = store_of(server, directory), key_of(directory / "file"), os.urandom((11 << 20) + 17)
    store.put(key, data)
    version = store.stat(key).version
    assert (directory / "file").read_bytes() == data
    for start, length in ((0, len(data)), (1, 2 << 20), ((1 << 20) - 1, 2), (len(data) - 5, 5)):
        assert bytes(store.read(key, start=start, length=length, version=version)) == data[start : start + length]
    with pytest.raises(SourceUnavailableError) as caught:
        store.read(key, start=5, length=len(data), version=version)
    assert caught.value.received == len(data) - 5


def test_an_engine_that_is_missing_is_an_error_only_if_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libnfs, "is_installed", lambda: False)
    NfsStore.open("nfs://server/export", {})
    with pytest.raises(SourceConfigError, match="libnfs13"):
        NfsStore.open("nfs://server/export", {"engine": "libnfs"})


def test_nothing_outside_of_the_root_is_touched(server: NfsServer, directory: Path) -> None:
    (directory / "root").mkdir()
    (directory / "secret").write_bytes(b"x")
    store = store_of(server, directory / "root")
    for key in (directory / "secret", directory / "root/../secret", directory / "rootless"):
        with pytest.raises(SourceConfigError):
            store.read(key_of(key), start=0, length=1, version=None)
        with pytest.raises(SourceConfigError):
            store.put(key_of(key), b"y")
    assert (directory / "secret").read_bytes() == b"x"


def test_names_may_be_anything_that_is_utf8(
    server: NfsServer, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted([" a", "ü", "a?b#c%41&d", "日本", "tab\there", "new\nline", "x" * 255], key=str.encode)
    store = store_of(server, directory)
    for name in names:
        store.put(f"{key_of(directory)}/{name}", name.encode())
    with open(os.fsencode(directory) + b"/\xff", "wb"):
        pass
    listed = list(store.list(key_of(directory) + "/"))
    assert [stat.key.rpartition("/")[2] for stat in listed] == names
    assert "1 entries" in caplog.text
    for stat in listed:
        data = store.read(stat.key, start=0, length=stat.size, version=stat.version)
        assert bytes(data).decode() == stat.key.rpartition("/")[2]
    with pytest.raises(SourceConfigError, match="rename"):
        store.put(f"{key_of(directory)}/{'x' * 256}", b"")


@pytest.mark.parametrize("name", ["sp ace", "ü", "a?b", "a#b", "a%41"])
def test_a_root_may_be_named_anything(server: NfsServer, directory: Path, name: str) -> None:
    root = directory / name
    root.mkdir()
    (root / "file").write_bytes(b"x")
    assert [stat.key for stat in store_of(server, root).list(key_of(root) + "/")] == [key_of(root / "file")]


def test_a_root_that_is_not_there_is_made_by_the_first_write(server: NfsServer, directory: Path) -> None:
    root = directory / "new/deep"
    store = store_of(server, root)
    with pytest.raises(SourceNotFoundError):
        store.scan_directory(key_of(root) + "/")
    store.put(key_of(root / "file"), b"x")
    assert (root / "file").read_bytes() == b"x"
    assert [path.name for path in root.iterdir()] == ["file"]
    assert (root / "file").stat().st_mode & 0o777 == 0o644


def test_a_root_may_be_one_file(server: NfsServer, directory: Path) -> None:
    (directory / "file").write_bytes(b"12345")
    store = store_of(server, directory / "file")
    assert bytes(store.read(key_of(directory / "file"), start=1, length=2, version=None)) == b"23"


def test_the_export_is_the_longest_one_that_contains_the_path() -> None:
    exports = ["/", "/a/", "/a/b", "/ab"]
    assert [longest_export(exports, path) for path in ("/a/b/c", "/a/bc", "/abc", "/a")] == ["/a/b", "/a", "", "/a"]
    assert longest_export(["/a"], "/b") is None


def test_a_path_that_nobody_exports_is_not_found(server: NfsServer, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="export"):
        list(store_of(server, tmp_path).list(key_of(tmp_path) + "/"))


def test_ten_thousand_files_and_an_empty_one(server: NfsServer, directory: Path) -> None:
    for number in range(10_000):
        (directory / f"{number:05}").touch()
    store = store_of(server, directory)
    listed = list(store.list(key_of(directory) + "/"))
    assert len(listed) == 10_000
    assert listed[0].size == 0
    assert not store.read(listed[0].key, start=0, length=0, version=listed[0].version)


def test_sixteen_threads_share_a_store(server: NfsServer, directory: Path) -> None:
    store = store_of(server, directory)
    bodies = {key_of(directory / str(number)): os.urandom(5000) for number in range(100)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(store.put, bodies, bodies.values()))
        versions = {stat.key: stat.version for stat in store.list(key_of(directory) + "/")}
        read = pool.map(lambda key: store.read(key, start=0, length=5000, version=versions[key]), bodies)
        assert [bytes(data) for data in read] == list(bodies.values())


def read_in_child(store: NfsStore, key: str) -> bytes:
    return bytes(store.read(key, start=0, length=5, version=store.stat(key).version))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_reads_with_the_store_of_its_parent(server: NfsServer, directory: Path, method: str) -> None:
    store = store_of(server, directory)
    store.put(key_of(directory / "file"), b"12345")
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(read_in_child, (store, key_of(directory / "file"))).get(60) == b"12345"
    assert read_in_child(store, key_of(directory / "file")) == b"12345"


def test_a_pickled_store_reads(server: NfsServer, directory: Path) -> None:
    store = store_of(server, directory)
    store.put(key_of(directory / "file"), b"12345")
    assert read_in_child(pickle.loads(pickle.dumps(store)), key_of(directory / "file")) == b"12345"


def test_a_server_that_hangs_is_given_up_and_one_that_wakes_is_used(server: NfsServer, directory: Path) -> None:
    store = store_of(server, directory, timeout_seconds=1)
    store.put(key_of(directory / "file"), b"12345")
    pinned = store.stat(key_of(directory / "file"))
    actions = (
        lambda: store.read(pinned.key, start=0, length=5, version=pinned.version),
        lambda: store.stat(pinned.key),
        lambda: store.scan_directory(key_of(directory) + "/"),
        lambda: store_of(server, directory, timeout_seconds=1).stat(pinned.key),
    )
    with server.paused():
        for action in actions:
            begun = time.monotonic()
            with pytest.raises(SourceUnavailableError):
                action()
            assert time.monotonic() - begun < 5
    assert bytes(store.read(pinned.key, start=0, length=5, version=pinned.version)) == b"12345"


def test_a_server_that_is_killed_and_started_again_is_used_again(server: NfsServer, directory: Path) -> None:
    store = store_of(server, directory, timeout_seconds=3)
    store.put(key_of(directory / "file"), b"12345")
    pinned = store.stat(key_of(directory / "file"))
    server.kill()
    with pytest.raises(SourceUnavailableError):
        store.read(pinned.key, start=0, length=5, version=pinned.version)
    with pytest.raises(SourceUnavailableError):
        store_of(server, directory, timeout_seconds=1).stat(pinned.key)
    server.start()
    assert bytes(store.read(pinned.key, start=0, length=5, version=pinned.version)) == b"12345"


def test_who_may_not_is_told_so(server: NfsServer, directory: Path) -> None:
    store_of(server, directory).put(key_of(directory / "file"), b"12345")
    (directory / "file").chmod(0o600)
    stranger = store_of(server, directory, uid=12345, gid=12345)
    with pytest.raises(SourceAuthError, match="uid"):
        stranger.read(key_of(directory / "file"), start=0, length=1, version=None)
    with pytest.raises(SourceAuthError):
        stranger.put(key_of(directory / "other"), b"x")


@pytest.mark.parametrize(
    "options",
    [
        {"nfs_port": 1},
        {"uid": -1},
        {"mountport": 99999},
        {"export": "relative"},
        {"engine": "kernel"},
        {"noresvport": "no"},
        {"timeout_seconds": 0},
    ],
)
def test_wrong_options_are_named(options: dict[str, object]) -> None:
    with pytest.raises(SourceConfigError, match=next(iter(options))):
        NfsStore.open("nfs://server/export", options)


@pytest.mark.parametrize("uri", ["nfs:///export", "nfs://server:port/export"])
def test_a_server_has_to_be_named(uri: str) -> None:
    with pytest.raises(SourceConfigError):
        NfsStore.open(uri, {})


def test_fsspec_users_open_write_and_walk(server: NfsServer, directory: Path) -> None:
    url = f"nfs://127.0.0.1:{server.port}{directory}"
    with fsspec.open(f"{url}/a/b.txt", "wt", **server.options) as file:
        file.write("hello")
    with fsspec.open(f"{url}/a/b.txt", "rb", **server.options) as file:
        file.seek(1)
        assert file.read() == b"ello"
    filesystem, path = fsspec.url_to_fs(url, **server.options)
    assert filesystem.find(path) == [f"{path}/a/b.txt"]
    assert filesystem.cat_file(f"{path}/a/b.txt", start=-2) == b"lo"
    filesystem.mv(f"{path}/a/b.txt", f"{path}/a/c.txt")
    filesystem.mkdir(f"{path}/new")
    assert [info["type"] for info in filesystem.ls(path)] == ["directory", "directory"]
    filesystem.rmdir(f"{path}/new")
    filesystem.rm(f"{path}/a", recursive=True)
    assert not filesystem.exists(f"{path}/a")
    with pytest.raises(FileNotFoundError):
        filesystem.info(f"{path}/a")


DROPPED = """
import gc, multiprocessing, sys
from sources import open_store

uri, options, prefix = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
for _ in range(5):  # mounts that only the garbage collector finds
    cycle = [open_store(uri, options)]
    cycle.append(cycle)
    assert len(list(cycle[0].list(prefix))) == 1
    del cycle
child = multiprocessing.get_context("fork").Process(target=gc.collect)
child.start()
child.join(20)
child.kill()
sys.exit(child.exitcode != 0)
"""


def test_a_forked_child_does_not_free_what_its_parent_dropped(server: NfsServer, directory: Path) -> None:
    (directory / "a").write_bytes(b"a")
    uri = f"nfs://127.0.0.1:{server.port}{directory}"
    # A process of its own: this one may hold clients of other tests' that are not ours to keep.
    command = [sys.executable, "-c", DROPPED, uri, repr(dict(server.options)), f"{directory}/"[1:]]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
