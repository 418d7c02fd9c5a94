from __future__ import annotations

import random
from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client
from cache_runtime.store.shares import Share
from sources import Location, ObjectRef, Origins, StoreId, Version
from tests.cache_runtime.lake import MIB, disk_usage

if TYPE_CHECKING:
    from pathlib import Path

STORE = StoreId("test://rounds")
BYTES = random.Random(0).randbytes(8 * MIB)


class Rounds:
    """A store in memory: what is measured is what the cache admits, not what an origin costs."""

    id = STORE

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> memoryview:
        return memoryview(BYTES)[start : start + length]


def make_client(path: Path, capacity: int) -> Client:
    origins = Origins()
    origins.add("", Rounds())
    return Client(origins, BlockStore.open(path, capacity_bytes=capacity))


def make_refs(name: str, count: int, size: int, *, version: str = "1") -> list[ObjectRef]:
    return [ObjectRef(STORE, f"{name}{n}", Version(version), size) for n in range(count)]


def read_round(client: Client, refs: list[ObjectRef], share: Share, picks: random.Random) -> float:
    """Read every object once, in a new order; return the part that was local."""
    picks.shuffle(refs)
    hits = 0
    for start in range(0, len(refs), 16):
        before = client.stats.snapshot()
        client.read_many([Location(ref, 0, ref.size) for ref in refs[start : start + 16]], share=share)
        hits += (client.stats.snapshot() - before).reads_local
    return hits / len(refs)


def lru_hits(count: int, room: int, rounds: int, picks: random.Random) -> list[float]:
    """What the least recently used would have hit in rounds of random order with room for so many objects."""
    kept: OrderedDict[int, None] = OrderedDict()
    found, order = [], list(range(count))
    for _ in range(rounds):
        picks.shuffle(order)
        hits = 0
        for number in order:
            hits += number in kept
            kept[number] = None
            kept.move_to_end(number)
            if len(kept) > room:
                kept.popitem(last=False)
        found.append(hits / count)
    return found


@pytest.mark.parametrize(("size", "count"), [(65536, 2048), (5 * MIB, 60)])
def test_a_cache_of_half_of_the_data_hits_half_of_the_time_in_rounds_of_random_order(
    cache_path: Path, size: int, count: int
) -> None:
    capacity = size * count // 2
    client = make_client(cache_path, capacity)
    refs, share, picks = make_refs("a", count, size), Share("a", cycle_bytes=size * count), random.Random(1)
    found = [read_round(client, refs, share, picks) for _ in range(5)]
    assert found[0] == 0
    assert min(found[1:]) >= 0.48
    assert disk_usage(cache_path) <= capacity
    lru = lru_hits(count, count // 2, 5, random.Random(1))
    assert max(lru) < 0.35


def test_the_hits_stay_when_the_cache_is_a_tenth_of_the_data(cache_path: Path) -> None:
    client = make_client(cache_path, 40 * MIB)
    refs, share, picks = make_refs("a", 400, MIB), Share("a", cycle_bytes=400 * MIB), random.Random(1)
    found = [read_round(client, refs, share, picks) for _ in range(6)]
    assert min(found[1:]) >= 0.09
    assert client.stats.snapshot().evicted_bytes == 0


@pytest.mark.parametrize(("size", "count"), [(65536, 1024), (2 * MIB, 50)])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_a_changed_version_takes_over_within_three_rounds(
    cache_path: Path, size: int, count: int, shared: float
) -> None:
    client = make_client(cache_path, size * count // 2)
    share, picks = Share("a", cycle_bytes=size * count), random.Random(1)
    old, new = make_refs("a", count, size), make_refs("a", count, size, version="2")
    new = old[: int(count * shared)] + new[int(count * shared) :]
    assert [read_round(client, old, share, picks) for _ in range(3)][2] > 0.46
    found = [read_round(client, new, share, picks) for _ in range(4)]
    assert found[3] >= 0.4


def test_a_share_that_nobody_reads_any_more_gives_way_to_another(cache_path: Path) -> None:
    client = make_client(cache_path, 64 * MIB)
    picks = random.Random(1)
    refs = [make_refs(name, 64, MIB) for name in "ab"]
    shares = [Share(name, cycle_bytes=64 * MIB) for name in "ab"]
    assert [read_round(client, refs[0], shares[0], picks) for _ in range(2)][1] > 0.9
    found = [read_round(client, refs[1], shares[1], picks) for _ in range(7)]
    assert found[0] == 0
    assert found[-1] > 0.8


def test_a_share_that_is_read_is_not_aged_by_another_that_finds_no_room(cache_path: Path) -> None:
    client = make_client(cache_path, 72 * MIB)
    picks = random.Random(1)
    refs = [make_refs(name, 64, MIB) for name in "ab"]
    shares = [Share(name, cycle_bytes=64 * MIB) for name in "ab"]
    found = [[read_round(client, refs[n], shares[n], picks) for n in (0, 1)] for _ in range(6)]
    assert min(first for first, _ in found[1:]) > 0.95


def test_a_higher_priority_takes_the_room_of_a_share_that_keeps(cache_path: Path) -> None:
    client = make_client(cache_path, 64 * MIB)
    picks = random.Random(1)
    low, high = make_refs("a", 64, MIB), make_refs("b", 40, MIB)
    read_round(client, low, Share("a", cycle_bytes=64 * MIB), picks)
    share = Share("b", priority=1, cycle_bytes=40 * MIB)
    assert [read_round(client, high, share, picks) for _ in range(2)][1] > 0.95


def test_a_refused_read_takes_its_exact_range_from_the_origin(cache_path: Path) -> None:
    client = make_client(cache_path, 40 * MIB)
    refs, share = make_refs("a", 12, 6 * MIB), Share("a", cycle_bytes=72 * MIB)
    read_round(client, refs, share, random.Random(1))
    before = client.stats.snapshot()
    for ref in refs:
        client.read(Location(ref, 5 * MIB, 100), share=share)
    spent = client.stats.snapshot() - before
    assert spent.reads_origin >= 5
    assert spent.bytes_origin <= 2 * 4 * MIB + 100 * len(refs)  # now and then it tries
