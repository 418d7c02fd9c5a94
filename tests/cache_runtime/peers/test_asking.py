from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from cache_runtime import Client
from cache_runtime.peers import Member, Peers, PeerSecurity, StaticMembers
from cache_runtime.peers.asking import Asker
from cache_runtime.peers.connections import Connections, Timeouts
from cache_runtime.peers.downloads import Download
from cache_runtime.peers.health import Hedging
from cache_runtime.peers.routing import Ask, Route
from cache_runtime.protocol import Source
from cache_runtime.stats import ReadStats
from cache_runtime.store.layout import BLOCK_BYTES, BlockRun
from cache_runtime.store.shares import Share
from sources import ObjectRef, StoreId, Version
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.peers.faulty import FaultyWorker
from tests.cache_runtime.peers.nodes import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cache_runtime.lake import Lake

SIZE = 14 * MIB + 3
BYTES = random.Random(1).randbytes(SIZE)
REF = ObjectRef(StoreId("s3://bucket"), "key", Version("etag:1"), SIZE)
ALL = BlockRun(0, 3)


class Scene:
    """Two workers that have the object, and one who asks them."""

    def __init__(self, first: FaultyWorker, second: FaultyWorker) -> None:
        self.first, self.second = first, second
        self.peers = Peers(StaticMembers([first.member, second.member]), timeouts=FAST)
        while self.peers.hedging.take():
            pass  # a busy machine makes workers slow enough for hedges that a test does not expect
        self.stats = ReadStats()
        self.download = Download(REF, ALL)

    def bring(self, *, fill: bool = True, both: bool = True) -> bool:
        workers = (self.first, self.second) if both else (self.first,)
        asks = tuple(Ask(worker.member, fill) for worker in workers)
        found = Asker(self.peers, self.stats).bring(self.download, Route(asks, False, asks[0].member), Share())
        if found:
            assert self.download.data == BYTES
        return found


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(FaultyWorker(name).running()) for name in ("first", "second"))
        first.objects[REF.id] = second.objects[REF.id] = BYTES
        yield Scene(first, second)


@pytest.mark.parametrize("broken_at", [1, BLOCK_BYTES - 1, BLOCK_BYTES, 9 * MIB + 5])
def test_an_answer_that_breaks_off_goes_on_at_the_byte(scene: Scene, broken_at: int) -> None:
    scene.first.break_after.append(broken_at)
    assert scene.bring(both=False)
    assert [row for row in scene.first.requests if row[0] == "GET"] == [
        ("GET", True, 0, SIZE),
        ("GET", True, broken_at, SIZE - broken_at),
    ]
    assert (scene.stats.resumed, scene.stats.peer_failures) == (1, 0)


def test_after_one_that_breaks_off_again_the_next_worker_goes_on(scene: Scene) -> None:
    scene.first.break_after += [5 * MIB, 2 * MIB]
    assert scene.bring()
    assert [row[2] for row in scene.second.requests if row[0] == "GET"] == [7 * MIB]
    assert scene.stats.peer_failures == 1


def test_a_worker_that_trickles_what_it_has_is_left_and_the_next_one_goes_on(scene: Scene) -> None:
    scene.first.trickle = [(MIB // 2, Source.LOCAL)]
    assert scene.bring()
    assert len(scene.first.requests) == 1
    (asked,) = scene.second.requests
    assert MIB // 2 <= asked[2] < 2 * MIB
    assert scene.stats.peer_failures == 1


def test_a_worker_that_trickles_what_its_origin_gives_is_waited_for(scene: Scene) -> None:
    scene.first.trickle = [(MIB // 2, Source.FILLED)]
    assert scene.bring()
    assert scene.second.requests == []
    assert scene.stats.peer_failures == 0


@pytest.mark.parametrize("position", [0, 5 * MIB, SIZE - 1])
def test_bytes_that_fail_their_check_are_asked_of_the_next_worker(scene: Scene, position: int) -> None:
    scene.first.flip.append(position)
    assert scene.bring()
    kept = position // BLOCK_BYTES * BLOCK_BYTES
    assert [row[2] for row in scene.second.requests if row[0] == "GET"] == [kept]
    assert (scene.stats.corrupt_blocks, scene.stats.peer_failures) == (1, 1)


def test_damage_by_all_workers_leaves_what_was_proven_and_no_wrong_byte(scene: Scene) -> None:
    scene.first.flip.append(9 * MIB)
    scene.second.flip.append(0)
    assert not scene.bring()
    assert scene.download.received == scene.download.proven == 2 * BLOCK_BYTES
    assert scene.download.data[: 2 * BLOCK_BYTES] == BYTES[: 2 * BLOCK_BYTES]


def test_checksums_that_came_too_late_for_the_header_are_asked_for(scene: Scene) -> None:
    scene.first.sums_sent = 1
    assert scene.bring(both=False)
    assert [row[0] for row in scene.first.requests] == ["GET", "HEAD"]
    assert len(scene.download.crcs) == 4


def test_blocks_without_known_checksums_are_fetched_one_by_one(scene: Scene) -> None:
    scene.first.sums_sent, scene.first.sums_known = 1, False
    assert scene.bring(both=False)
    gets = [row[2:] for row in scene.first.requests if row[0] == "GET"]
    assert gets == [(0, SIZE), *((n * BLOCK_BYTES, min(BLOCK_BYTES, SIZE - n * BLOCK_BYTES)) for n in (1, 2, 3))]


def test_bytes_that_never_have_a_checksum_are_not_believed(scene: Scene) -> None:
    scene.first.sums_sent, scene.first.sums_known = 0, False
    assert not scene.bring(both=False)
    assert scene.download.proven == 0


def test_a_slow_worker_is_hedged_by_one_that_has_it_and_is_not_asked_to_fill(scene: Scene) -> None:
    scene.peers.hedging = Hedging()
    scene.first.wait.append(3.0)
    begin = time.monotonic()
    assert scene.bring()
    assert time.monotonic() - begin < 2.9
    assert scene.second.requests == [("GET", False, 0, SIZE)]
    assert (scene.stats.hedges, scene.stats.peer_failures) == (1, 0)


def test_a_hedge_that_breaks_off_is_not_held_against_the_first(scene: Scene) -> None:
    scene.peers.hedging = Hedging()
    scene.first.wait += [1.0, 0.0]
    scene.second.break_after += [0, 0]
    scene.bring()
    assert scene.peers.health.is_well("first")
    assert not scene.peers.health.is_well("second")


def test_a_hedge_that_finds_nothing_leaves_the_first_answer(scene: Scene) -> None:
    scene.peers.hedging = Hedging()
    scene.first.wait.append(0.3)
    scene.second.objects.clear()
    assert scene.bring()
    assert (scene.stats.hedges, scene.stats.peer_failures) == (1, 0)
    assert len(scene.first.requests) == 1


def test_hedges_are_few_when_all_workers_are_slow(scene: Scene) -> None:
    small = ObjectRef(StoreId("s3://bucket"), "small", Version("etag:1"), 100)
    scene.first.objects[small.id] = scene.second.objects[small.id] = bytes(100)
    scene.peers.hedging = Hedging()
    scene.first.wait += [0.03] * 40
    for _ in range(40):
        scene.download = Download(small, BlockRun(0, 0))
        asks = (Ask(scene.first.member, True), Ask(scene.second.member, True))
        assert Asker(scene.peers, scene.stats).bring(scene.download, Route(asks, False, None), Share())
    assert 1 <= scene.stats.hedges <= 8


def test_a_busy_worker_is_waited_for_a_little(scene: Scene) -> None:
    scene.first.refuse.append((429, "overloaded", {"Retry-After": "0"}))
    assert scene.bring()
    assert len(scene.first.requests) == 2
    assert scene.second.requests == []
    assert scene.stats.peer_failures == 0


def test_a_worker_that_is_leaving_is_left_alone_for_as_long_as_it_says(scene: Scene) -> None:
    scene.first.refuse.append((503, "unavailable", {"Retry-After": "7"}))
    assert scene.bring()
    assert len(scene.second.requests) == 1
    now = time.monotonic()
    assert scene.peers.health.is_left_alone("first", now=now + 6.5)
    assert not scene.peers.health.is_left_alone("first", now=now + 9)


@pytest.mark.parametrize("status", [400, 403, 409, 502, 504])
def test_a_refusal_that_is_not_the_workers_fault_is_not_held_against_it(scene: Scene, status: int) -> None:
    scene.first.refuse.append((status, "whatever", {}))
    assert not scene.bring()
    assert scene.second.requests == []  # the origin says what is wrong
    assert not scene.peers.is_left_alone(scene.first.member)
    assert scene.stats.peer_failures == 0


def test_a_worker_that_does_not_have_it_is_well(scene: Scene) -> None:
    scene.first.objects.clear()
    assert scene.bring(fill=False)
    assert (scene.stats.peer_failures, len(scene.second.requests)) == (0, 1)


def test_connections_are_kept_and_one_that_the_worker_closed_is_replaced(scene: Scene) -> None:
    for _ in range(3):
        scene.download = Download(REF, ALL)
        assert scene.bring()
    pool = scene.peers.connections
    assert [len(kept) for kept in pool._idle.values()] == [1]
    ((connection, _),) = pool._idle[scene.first.member.url]
    connection.sock.shutdown(socket.SHUT_RDWR)
    scene.download = Download(REF, ALL)
    assert scene.bring()
    assert scene.stats.peer_failures == 0


def test_what_is_proven_is_not_fetched_again_from_the_origin(lake: Lake) -> None:
    ref = lake.add("large", 10 * MIB)
    with FaultyWorker("w").running() as worker:
        worker.objects[ref.id] = lake.bytes[ref.id]
        worker.break_after += [5 * MIB, 2 * MIB]
        client = Client(lake.origins, None, peers=Peers(StaticMembers([worker.member]), timeouts=FAST))
        data = client.fetch(ref, BlockRun(0, 2))
        assert data is not None
        assert bytes(memoryview(data)) == lake.bytes[ref.id]
    assert [int(line.split()[2]) for line in lake.reads()] == [6 * MIB]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 206 Partial\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\n\r\nhello",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 100000000\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nForebay-Blocks: x\r\nContent-Length: %d\r\n\r\n" % 100,
        b"HTTP/1.1 206 " + b"x" * 70_000,
    ],
)
def test_an_answer_that_makes_no_sense_never_stops_a_read(lake: Lake, answer: bytes) -> None:
    ref = lake.add("a", 100)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer_all, args=(server, answer), daemon=True)
        thread.start()
        member = Member("w", f"http://127.0.0.1:{server.getsockname()[1]}")
        client = Client(lake.origins, None, peers=Peers(StaticMembers([member]), timeouts=FAST))
        assert bytes(memoryview(client.fetch(ref, BlockRun(0, 0)) or b"")) == lake.expected(whole(ref))
        assert client.read(whole(ref)) == lake.expected(whole(ref))
        client.close()
    assert client.stats.bytes_peer == 0


def _answer_all(server: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(1)
            connection.recv(65536)
            connection.sendall(answer)


def test_an_answer_that_trickles_ends_at_the_total_time(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 206 Partial\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(90):
                    time.sleep(0.1)
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        pool = Connections(PeerSecurity(), Timeouts(total_seconds=1.0, idle_seconds=5.0))
        begin = time.monotonic()
        with pool.request(Member("w", f"http://127.0.0.1:{server.getsockname()[1]}"), "GET", "/") as exchange:
            exchange.begin()
            with pytest.raises(ConnectionError, match="no answer in time"):
                exchange.read_rest(10_000)
        assert time.monotonic() - begin < 8
        thread.join(10)
