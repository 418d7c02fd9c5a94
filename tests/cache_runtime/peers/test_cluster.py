from __future__ import annotations

import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client
from cache_runtime.store.layout import BLOCK_BYTES
from sources import Location
from tests.cache_runtime.lake import MIB, Lake, whole
from tests.cache_runtime.peers.nodes import CAPACITY, clustered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sources import ObjectRef
    from tests.cache_runtime.peers.nodes import Cluster


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    (directory / "lake").mkdir()
    with clustered(Lake(directory / "lake"), directory, "a", "b", "c") as running:
        yield running


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """Three workers, which have none of the test's objects."""
    shared.lake.log.write_text("")
    yield shared
    shared.restore("a", "b", "c")


@pytest.fixture
def lake(cluster: Cluster) -> Lake:
    return cluster.lake


_numbers = count()


def make_objects(lake: Lake, small: int = 60, large: int = 4) -> list[ObjectRef]:
    test = next(_numbers)
    return [lake.add(f"{test}-small{n}", 2000 + 791 * n) for n in range(small)] + [
        lake.add(f"{test}-large{n}", (3 + 5 * n) * MIB + n) for n in range(large)
    ]


def read_all(lake: Lake, client: Client, refs: Sequence[ObjectRef]) -> None:
    views = client.read_many([whole(ref) for ref in refs])
    assert all(view == lake.expected(whole(ref)) for ref, view in zip(refs, views, strict=True))


def origin_bytes(lake: Lake) -> int:
    return sum(int(line.split()[2]) for line in lake.reads())


def total(refs: Sequence[ObjectRef]) -> int:
    return sum(ref.size for ref in refs)


def test_clients_that_miss_the_same_at_once_cost_each_origin_byte_once(lake: Lake, cluster: Cluster) -> None:
    refs = make_objects(lake)
    clients = [cluster.client() for _ in range(3)] + [cluster.node_client(name) for name in "abc"]
    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(lambda client: read_all(lake, client, refs), clients))
    assert origin_bytes(lake) == total(refs)
    assert clients[0].stats.bytes_origin == 0
    assert clients[0].stats.bytes_peer >= total(refs)  # more where a pause of the machine made a worker look slow


def test_warm_workers_that_scale_from_three_to_four_and_back_ask_no_origin(lake: Lake, cluster: Cluster) -> None:
    refs = make_objects(lake, small=120, large=3)
    client = cluster.client()
    read_all(lake, client, refs)
    warm = origin_bytes(lake)
    assert warm == total(refs)
    cluster.start("d")
    time.sleep(0.2)
    read_all(lake, client, refs)
    joined = cluster.node_client("d")
    assert joined.store is not None
    assert joined.store.status().objects > 10  # its part, and no guests: nobody reads there
    for name in "abcd":
        read_all(lake, cluster.node_client(name), refs)
    assert origin_bytes(lake) == warm
    cluster.list_members("a", "b", "c")
    cluster.processes["d"].stop()
    time.sleep(0.2)
    read_all(lake, client, refs)
    assert origin_bytes(lake) == warm
    assert client.stats.bytes_origin == 0


def test_a_worker_that_leaves_hands_its_blocks_to_their_next_owners(lake: Lake, cluster: Cluster) -> None:
    cluster.start("d")
    refs = make_objects(lake, small=80, large=3)
    client = cluster.client()
    time.sleep(0.2)
    read_all(lake, client, refs)  # part of it only "d" has
    before = origin_bytes(lake)
    assert before == total(refs)
    cluster.list_members("a", "b", "c")  # as Kubernetes does: no member any more, and then told to end
    cluster.processes["d"].stop()
    read_all(lake, client, refs)
    assert origin_bytes(lake) == before
    assert client.stats.bytes_origin == 0


def test_what_is_read_is_a_guest_on_a_node_that_does_not_own_it(lake: Lake, cluster: Cluster) -> None:
    refs = make_objects(lake, small=30, large=0)
    client = cluster.node_client("a")
    read_all(lake, client, refs)
    assert client.peers is not None
    assert client.store is not None
    own = [
        ref for ref, route in zip(refs, client.peers.routes([(ref, 0) for ref in refs]), strict=True) if not route.guest
    ]
    assert 0 < len(own) < 30
    (share,) = client.store.status().shares
    assert share.guest_bytes > 0
    assert client.stats.bytes_origin == total(own)
    before = client.stats.snapshot()
    read_all(lake, client, refs)
    assert (client.stats.snapshot() - before).reads_local == 30


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_delays_a_read_and_does_not_stop_it(
    lake: Lake, cluster: Cluster, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    refs = make_objects(lake)
    client = cluster.client()
    read_all(lake, client, refs)
    os.kill(cluster.processes["b"].pid, number)
    try:
        begin = time.monotonic()
        for _ in range(3):
            read_all(lake, client, refs)
        assert time.monotonic() - begin < 15  # 1.5 s, probes of 0.5 s, and the reading; not 5 s for each of 64 objects
        stats = client.stats.snapshot()
        assert stats.peer_failures > 0
        assert stats.peers_skipped > 0
        assert not any(name in caplog.text for name in ("worker a", "worker c"))  # they are well
    finally:
        os.kill(cluster.processes["b"].pid, signal.SIGCONT)


def test_a_worker_that_came_back_is_asked_again(lake: Lake, cluster: Cluster) -> None:
    refs = make_objects(lake, small=20, large=0)
    client = cluster.client()
    cluster.processes["c"].stop()
    read_all(lake, client, refs)
    assert client.stats.peer_failures > 0
    cluster.start("c")
    time.sleep(1.0)
    read_all(lake, client, refs)  # one of its threads finds out, and the others do not wait for that
    before = client.stats.snapshot()
    read_all(lake, client, refs)
    assert (client.stats.snapshot() - before).peer_failures == 0
    assert (client.stats.snapshot() - before).peers_skipped == 0


def test_without_any_worker_all_is_read_from_the_origin(lake: Lake, cluster: Cluster) -> None:
    refs = make_objects(lake, small=20, large=2)
    for process in cluster.processes.values():
        process.stop()
    client = cluster.client()
    read_all(lake, client, refs)
    assert client.stats.bytes_origin == total(refs)
    assert client.stats.miss_worker_lost > 0


def test_a_wrong_token_costs_peers_not_reads_and_is_nowhere_told(
    lake: Lake, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    refs = make_objects(lake, small=5, large=1)
    client = cluster.client(token="not the right one, at all")
    read_all(lake, client, refs)
    assert client.stats.bytes_origin == total(refs)
    assert client.stats.bytes_peer == 0
    assert "answered 401" in caplog.text
    assert "not the right one" not in caplog.text
    assert "not the right one" not in repr(client.peers.security if client.peers else None)


def test_errors_of_the_origin_are_those_of_the_origin(lake: Lake, cluster: Cluster) -> None:
    client = cluster.client()
    ref = lake.add("gone", 5000)
    (lake.root / "objects" / "gone").unlink()
    with pytest.raises(Exception, match="objects/gone") as direct:
        Client(lake.origins, None).read(whole(ref))
    with pytest.raises(type(direct.value)):
        client.read(whole(ref))
    assert client.stats.peer_failures == 0


def test_exact_ranges_come_from_the_owner_and_are_contiguous(lake: Lake, cluster: Cluster) -> None:
    client = cluster.client()
    ref = lake.add("exact", 37 * MIB + 5)
    for location in [
        Location(ref, 10, 5),
        Location(ref, 4 * MIB - 3, 9),
        Location(ref, 15 * MIB, 3 * MIB),
        Location(ref, 3, 36 * MIB),
        whole(ref),
    ]:
        view = client.read(location)
        assert view.contiguous
        assert view.readonly
        assert view == lake.expected(location)
    assert client.stats.bytes_origin == 0
    assert origin_bytes(lake) == ref.size


def test_a_store_of_a_client_that_is_no_member_is_filled_from_workers(
    lake: Lake, cluster: Cluster, tmp_path: Path
) -> None:
    refs = make_objects(lake, small=20, large=3)
    store = BlockStore.open(tmp_path / "own", capacity_bytes=CAPACITY)
    client = Client(lake.origins, store, peers=cluster.peers())
    read_all(lake, client, refs)
    assert client.stats.bytes_origin == 0
    before = client.stats.snapshot()
    read_all(lake, client, refs)
    assert (client.stats.snapshot() - before).reads_local == len(refs)
    (share,) = store.status().shares
    assert share.guest_bytes == 0


def test_a_worker_damaged_on_disk_gives_no_wrong_byte(lake: Lake, cluster: Cluster) -> None:
    refs = make_objects(lake, small=10, large=3)
    read_all(lake, cluster.client(), refs)
    for process in cluster.processes.values():
        process.stop()
    for name in "abc":
        for path in [*cluster.cache(name).glob("slabs/*"), *cluster.cache(name).glob("files/*/*")]:
            with path.open("r+b") as file:
                file.seek(min(path.stat().st_size // 2, BLOCK_BYTES // 2))
                file.write(b"damaged by the test")
    cluster.start("a", "b", "c")
    read_all(lake, cluster.client(), refs)


def test_a_client_explains_where_bytes_are(lake: Lake, cluster: Cluster) -> None:
    client = cluster.node_client("a")
    large = lake.add("explained", 70 * MIB)
    location = Location(large, 5 * MIB, 62 * MIB)
    told = client.explain(location)
    assert not told.cached
    assert told.reason == "never_cached"
    assert [(len(group.blocks), group.offset) for group in told.groups] == [(15, 5 * MIB), (1, 64 * MIB)]
    assert {state.name for state in told.groups[0].candidates} == {"a", "b", "c"}
    assert {state.has_it for state in told.groups[0].candidates} == {False}
    client.read(Location(large, 64 * MIB, 10))
    told = client.explain(Location(large, 64 * MIB, 10))
    assert told.cached
    assert told.reason is None
    (group,) = told.groups
    assert group.candidates[0].has_it
    assert [state.is_self for state in group.candidates] == [state.name == "a" for state in group.candidates]


def test_a_pickled_client_and_a_forked_child_talk_to_workers(lake: Lake, cluster: Cluster) -> None:
    refs = make_objects(lake, small=10, large=1)
    client = cluster.client()
    read_all(lake, client, refs)
    copy: Client = pickle.loads(pickle.dumps(client))
    read_all(lake, copy, refs)
    assert copy.stats.bytes_peer == total(refs)
    pid = os.fork()
    if pid == 0:
        try:
            read_all(lake, client, refs)
            os._exit(0 if client.stats.bytes_origin == 0 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    read_all(lake, client, refs)
    assert client.stats.peer_failures == 0
