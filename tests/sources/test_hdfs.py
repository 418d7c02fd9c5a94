from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from sources import SourceChangedError, SourceConfigError, SourceNotFoundError, SourceUnavailableError
from sources.contract import Place, PutBehind, StoreContract
from sources.errors import SourceAuthError
from sources.generic import FsspecStore
from sources.hdfs import HdfsStore
from sources.hdfs.watching import Call, HungError, Watch
from sources.stores import ListDirectories, ReadInto
from tests.services import hdfs
from tests.services.faults import fault_proxy
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.hdfs import HdfsCluster

BLOCK = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HdfsCluster]:
    require(hdfs.missing())
    with hdfs.hdfs_cluster(tmp_path_factory.mktemp("hdfs"), block_size=BLOCK) as running:
        yield running


@pytest.fixture(scope="module")
def url(cluster: HdfsCluster) -> Iterator[str]:
    """A NameNode some way off: a near one hears of a written file before its DataNode has told it of the block, and
    hdfs-native then waits half a second."""
    with fault_proxy(cluster.port, http=False) as proxy:
        proxy.faults.latency_seconds = 0.004
        yield f"hdfs://127.0.0.1:{proxy.port}"


@pytest.fixture
def store(url: str) -> HdfsStore:
    return HdfsStore.open(f"{url}/", {})


@pytest.fixture
def top() -> str:
    return f"{secrets.token_hex(4)}/"


class TestHdfsStore(StoreContract):
    @pytest.fixture
    def place(self, store: HdfsStore, top: str) -> Place:
        return store, top


class TestHdfsThroughFsspec(StoreContract):
    @pytest.fixture
    def place(self, url: str, top: str) -> Place:
        return FsspecStore.open(f"fsspec+{url}/", {}), top

    @pytest.mark.parametrize("start", ["spawn"])
    def test_another_process_reads_right_bytes_or_is_refused(
        self, place: Place, put_behind: PutBehind, start: str
    ) -> None:
        """Forked, hdfs-native's own filesystem hangs: only the native store waits out what it inherits."""
        super().test_another_process_reads_right_bytes_or_is_refused(place, put_behind, start)


class TestWebHdfs(StoreContract):
    @pytest.fixture
    def place(self, cluster: HdfsCluster, top: str) -> Place:
        options: dict[str, object] = {"user": "root"}
        return FsspecStore.open(f"fsspec+webhdfs://127.0.0.1:{cluster.webhdfs_port}/", options), top

    @pytest.mark.xfail(reason="of a name with a percent sign, the redirect of WebHDFS leads fsspec to another one")
    def test_listing_yields_every_key_below_the_prefix_once(self, place: Place, put_behind: PutBehind) -> None:
        super().test_listing_yields_every_key_below_the_prefix_once(place, put_behind)

    @pytest.mark.xfail(reason="of a name with a percent sign, the redirect of WebHDFS leads fsspec to another one")
    def test_directories_tell_what_list_tells(self, place: Place, put_behind: PutBehind) -> None:
        super().test_directories_tell_what_list_tells(place, put_behind)


def read_all(store: HdfsStore, key: str) -> bytes:
    found = store.stat(key)
    return store.read(key, start=0, length=found.size, version=found.version)


def test_it_lists_directories_and_reads_into_buffers(store: HdfsStore, top: str) -> None:
    assert isinstance(store, ListDirectories)
    assert isinstance(store, ReadInto)
    for name in ("b", "a.x", "sub/inner", ".forebay-tmp-1"):
        store.put(top + name, b"12345")
    page = store.scan_directory(top)
    assert page.files.column("key").to_pylist() == [top + "a.x", top + "b"]
    assert page.directories == [top + "sub/"]
    buffer = bytearray(3)
    store.read_into(top + "b", start=1, buffer=memoryview(buffer), version=store.stat(top + "b").version)
    assert buffer == b"234"
    for directory in ("missing/", "b/"):
        with pytest.raises(SourceNotFoundError):
            store.scan_directory(top + directory)


def put_at_last(store: HdfsStore, key: str, data: bytes) -> None:
    for _ in range(20):
        try:
            store.put(key, data)
            return
        except SourceUnavailableError as error:  # the DataNode has not yet told of a block; hdfs-native does not wait
            if "Not replicated yet" not in str(error):
                raise
    raise AssertionError("never replicated")


def test_files_of_several_blocks_are_read_across_them(store: HdfsStore, top: str) -> None:
    data = os.urandom(BLOCK * 3 + 17)
    put_at_last(store, top + "data", data)
    version = store.stat(top + "data").version
    for start, length in ((0, len(data)), (BLOCK - 1, 2), (BLOCK, BLOCK), (BLOCK * 3, 17), (5, 0)):
        assert store.read(top + "data", start=start, length=length, version=version) == data[start : start + length]
        buffer = bytearray(length)
        store.read_into(top + "data", start=start, buffer=memoryview(buffer), version=version)
        assert buffer == data[start : start + length]


def test_an_append_and_an_overwrite_by_others_are_noticed(store: HdfsStore, cluster: HdfsCluster, top: str) -> None:
    from hdfs_native import Client, WriteOptions

    client = Client(cluster.url)
    store.put(top + "data", b"before")
    pinned = store.stat(top + "data")
    with client.append(f"/{top}data") as file:
        file.write(b"more")
    with pytest.raises(SourceChangedError):
        store.read(pinned.key, start=0, length=6, version=pinned.version)
    pinned = store.stat(top + "data")
    with client.create(f"/{top}data", WriteOptions(overwrite=True)) as file:
        file.write(b"0123456789")
    with pytest.raises(SourceChangedError) as caught:
        store.read(pinned.key, start=0, length=6, version=pinned.version)
    assert caught.value.found == store.stat(top + "data").version


def test_a_file_renamed_over_another_is_noticed(store: HdfsStore, cluster: HdfsCluster, top: str) -> None:
    from hdfs_native import Client

    store.put(top + "data", b"before")
    pinned = store.stat(top + "data")
    time.sleep(0.002)  # HDFS keeps milliseconds
    store.put(top + "other", b"after!")
    Client(cluster.url).rename(f"/{top}other", f"/{top}data", overwrite=True)
    buffer = bytearray(6)
    with pytest.raises(SourceChangedError):
        store.read_into(pinned.key, start=0, buffer=memoryview(buffer), version=pinned.version)


def test_of_a_file_that_is_replaced_all_the_time_no_read_mixes_two(store: HdfsStore, top: str) -> None:
    size, stop = BLOCK // 2, threading.Event()
    store.put(top + "data", b"a" * size)

    def replace() -> None:
        for letter in b"bcdefgh" * 100:
            store.put(top + "data", bytes([letter]) * size)
            if stop.is_set():
                return

    with ThreadPoolExecutor(1) as writer:
        writer.submit(replace)
        outcomes: set[type] = set()
        for _ in range(60):
            try:
                data = read_all(store, top + "data")
            except (SourceChangedError, SourceUnavailableError) as error:
                outcomes.add(type(error))
                continue
            assert len(set(data)) == 1
            outcomes.add(bytes)
        stop.set()
    assert SourceChangedError in outcomes


def test_names_may_be_anything_but_a_colon(store: HdfsStore, top: str) -> None:
    names = sorted([" a", "ü", "a?b#c%41&d", "日本", "tab\there", "a*b[c]", "x" * 255], key=str.encode)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(top + name, name.encode()), names))
    assert [stat.key.removeprefix(top) for stat in store.list(top)] == names
    assert [read_all(store, top + name).decode() for name in names] == names
    for name in ("a:b", "../x", "a//b", "./x"):
        with pytest.raises(SourceConfigError, match="rename"):
            store.put(top + name, b"x")


def test_more_empty_files_than_one_answer_holds_are_listed(store: HdfsStore, cluster: HdfsCluster, top: str) -> None:
    from hdfs_native import Client

    client = Client(cluster.url)
    client.mkdirs(f"/{top}", create_parent=True)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda number: client.create(f"/{top}{number:05}").close(), range(1500)))  # dfs.ls.limit is 1000
    listed = list(store.list(top))
    assert len(listed) == 1500
    assert read_all(store, listed[0].key) == b""


def test_sixteen_threads_share_a_store(store: HdfsStore, top: str) -> None:
    bodies = {f"{top}{number}": os.urandom(5000) for number in range(64)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(store.put, bodies, bodies.values()))
        assert list(pool.map(lambda key: read_all(store, key), bodies)) == list(bodies.values())


def test_a_pickled_store_reads(store: HdfsStore, top: str) -> None:
    store.put(top + "file", b"12345")
    assert read_all(pickle.loads(pickle.dumps(store)), top + "file") == b"12345"


def test_a_forked_child_reads_and_ends_as_programs_do(cluster: HdfsCluster, store: HdfsStore, top: str) -> None:
    store.put(top + "file", b"12345")
    program = f"""
import os, sys
from sources.hdfs import HdfsStore
store = HdfsStore.open({cluster.url!r}, {{}})
def read():
    assert store.read({top + "file"!r}, start=0, length=5, version=None) == b"12345"
read()
child = os.fork()
read()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=30, check=True)


@pytest.mark.parametrize("node", ["namenode", "datanode"])
def test_a_node_that_hangs_is_given_up_and_one_that_wakes_is_used(cluster: HdfsCluster, top: str, node: str) -> None:
    store = HdfsStore.open(cluster.url, {"timeout_seconds": 1})
    store.put(top + "file", b"12345")
    pinned = store.stat(top + "file")
    with cluster.paused(node):
        begun = time.monotonic()
        with pytest.raises(SourceUnavailableError):
            store.read(pinned.key, start=0, length=5, version=pinned.version)
        with pytest.raises(SourceUnavailableError):
            store.put(top + "other", b"x")
        assert time.monotonic() - begun < 10
    assert store.read(pinned.key, start=0, length=5, version=pinned.version) == b"12345"


def test_a_namenode_that_went_silent_in_the_network_is_given_up(cluster: HdfsCluster, top: str) -> None:
    with fault_proxy(cluster.port, http=False) as proxy:
        store = HdfsStore.open(f"hdfs://127.0.0.1:{proxy.port}/", {"timeout_seconds": 1})
        store.put(top + "file", b"12345")
        proxy.faults.hang = True
        with pytest.raises(SourceUnavailableError, match="in time"):
            store.stat(top + "file")
        proxy.heal()
        assert store.stat(top + "file").size == 5
        proxy.refuse()
        with pytest.raises(SourceUnavailableError):
            store.stat(top + "file")
        proxy.heal()
        assert store.stat(top + "file").size == 5


def test_a_killed_datanode_is_unavailable_until_it_is_back(cluster: HdfsCluster, store: HdfsStore, top: str) -> None:
    store.put(top + "file", b"12345")
    pinned = store.stat(top + "file")
    cluster.kill("datanode")
    try:
        with pytest.raises(SourceUnavailableError, match="DataNode"):
            store.read(pinned.key, start=0, length=5, version=pinned.version)
        assert store.stat(top + "file") == pinned
    finally:
        cluster.start("datanode")
    assert store.read(pinned.key, start=0, length=5, version=pinned.version) == b"12345"


def nameservice(cluster: HdfsCluster) -> dict[str, str]:
    return {
        "dfs.nameservices": "lake",
        "dfs.ha.namenodes.lake": "one,two",
        "dfs.namenode.rpc-address.lake.one": "127.0.0.1:1",
        "dfs.namenode.rpc-address.lake.two": cluster.url.removeprefix("hdfs://"),
        "dfs.client.failover.proxy.provider.lake": (
            "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
        ),
    }


def test_a_nameservice_is_served_by_the_namenode_that_lives(cluster: HdfsCluster, top: str) -> None:
    store = HdfsStore.open("hdfs://lake/path", {"config": nameservice(cluster)})
    store.put(top + "file", b"12345")
    assert store.id == "hdfs://lake"
    assert read_all(store, top + "file") == b"12345"


def test_a_nameservice_is_read_from_hadoops_files(
    cluster: HdfsCluster, top: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path_factory.mktemp("conf")
    hdfs.write_site(conf / "hdfs-site.xml", nameservice(cluster))
    HdfsStore.open("hdfs://lake/", {"config_dir": str(conf)}).put(top + "file", b"12345")
    monkeypatch.setenv("HADOOP_CONF_DIR", str(conf))
    assert read_all(HdfsStore.open("hdfs://lake/", {}), top + "file") == b"12345"
    monkeypatch.delenv("HADOOP_CONF_DIR")
    with pytest.raises(SourceConfigError, match="HADOOP_CONF_DIR"):
        HdfsStore.open("hdfs://lake/", {}).stat(top + "file")


def test_who_may_not_is_told_so(
    cluster: HdfsCluster, store: HdfsStore, top: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(top + "file", b"12345")
    monkeypatch.setenv("HADOOP_USER_NAME", "stranger")
    stranger = HdfsStore.open(cluster.url, {})
    assert read_all(stranger, top + "file") == b"12345"
    with pytest.raises(SourceAuthError):
        stranger.put(top + "other", b"x")


def test_nobody_there_is_said_soon() -> None:
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="refused"):
        HdfsStore.open("hdfs://127.0.0.1:1/", {}).stat("file")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "options", [{"confdir": "x"}, {"config": "x"}, {"kerberos_keytab": "secret"}, {"timeout_seconds": "soon"}]
)
def test_wrong_options_are_named_without_their_values(options: dict[str, object]) -> None:
    with pytest.raises(SourceConfigError, match=next(iter(options))) as caught:
        HdfsStore.open("hdfs://lake/", options)
    assert "secret" not in str(caught.value)


def test_a_namenode_has_to_be_named() -> None:
    with pytest.raises(SourceConfigError, match="NameNode"):
        HdfsStore.open("hdfs:///path", {})


def test_a_call_that_hangs_is_given_up_and_touches_nothing_afterwards() -> None:
    watch, woken, touched = Watch(threads=1, seconds=0.05), threading.Event(), []

    def hang(call: Call[None]) -> None:
        woken.wait(30)
        with call.step():
            touched.append(1)

    for _ in range(2):  # the second one finds the only thread taken
        with pytest.raises(HungError):
            watch.call(hang)
    woken.set()
    assert watch.call(lambda _: "done") == "done"
    assert not touched


def test_a_slow_call_that_makes_progress_is_waited_for() -> None:
    def creep(call: Call[str]) -> str:
        for _ in range(10):
            time.sleep(0.05)
            call.beat()
        return "done"

    assert Watch(threads=1, seconds=0.2).call(creep) == "done"


def test_a_watch_runs_many_calls_at_once_and_passes_errors_on() -> None:
    watch, together = Watch(threads=8, seconds=30), threading.Barrier(8, timeout=30)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: watch.call(lambda _: together.wait()), range(8)))) == 8
    with pytest.raises(TimeoutError, match="own"):
        watch.call(lambda _: exec("raise TimeoutError('its own')"))
