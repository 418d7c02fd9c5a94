from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, CacheCapacityError, Client
from cache_runtime.store.index import Index
from cache_runtime.store.tables import Tables, UnitRow
from sources import Location
from tests.cache_runtime.lake import MIB, disk_usage, inconsistencies, whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cache_runtime.lake import Lake

CAPACITY = 48 * MIB


def test_bytes_on_disk_stay_under_the_capacity(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    refs = [lake.add(f"large{n}", 5 * MIB + n) for n in range(8)]
    refs += [lake.add(f"small{n}", random.Random(n).randrange(200_000, MIB)) for n in range(80)]
    picks = random.Random(1)
    for _ in range(250):
        ref = picks.choice(refs)
        offset = picks.randrange(ref.size)
        location = Location(ref, offset, min(ref.size - offset, 9000))
        assert client.read(location) == lake.expected(location)
        assert disk_usage(cache_path) <= CAPACITY
    stats = client.stats.snapshot()
    assert stats.evicted_bytes > 0
    assert stats.corrupt_blocks == stats.store_failures == 0
    assert stats.reads_local > 50


def test_what_is_read_again_and_again_survives_a_scan(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    hot = [lake.add(f"hot{n}", 100_000) for n in range(20)] + [lake.add("hot-large", 4 * MIB)]
    for n in range(120):
        client.read_many([whole(ref) for ref in hot])
        client.read(whole(lake.add(f"scan{n}", MIB)))
    hot_reads = [line for line in lake.reads() if "/hot" in line]
    assert client.stats.snapshot().evicted_bytes > CAPACITY
    assert len(hot_reads) <= len(hot) + 4


def test_views_stay_right_after_their_object_is_evicted(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    large, small = lake.add("large", 6 * MIB), lake.add("small", 50_000)
    views = [(ref, client.read(whole(ref))) for ref in (large, small)]
    assert client.read(Location(large, 5 * MIB, 10)) == lake.expected(Location(large, 5 * MIB, 10))
    for n in range(20):
        client.read(whole(lake.add(f"other{n}", 6 * MIB)))
    assert client.store is not None
    assert client.store.missing_blocks(large, [0, 1]) == [0, 1]
    assert all(view == lake.expected(whole(ref)) for ref, view in views)


def test_evicted_space_is_given_back_to_the_file_system(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    first = lake.add("first", 6 * MIB)
    client.read(whole(first))
    for n in range(20):
        client.read(whole(lake.add(f"other{n}", 6 * MIB)))
    for _ in range(2):  # at the latest with the read after the one that evicted
        client.read(whole(first))
    with open("/proc/self/maps") as maps:
        assert not [line for line in maps if str(cache_path) in line and "(deleted)" in line]


def test_an_object_larger_than_the_cache_is_read_through_and_evicts_nothing(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    kept, huge = lake.add("kept", 5 * MIB), lake.add("huge", 60 * MIB)
    client.read(whole(kept))
    for start in range(0, 60 * MIB, 6 * MIB):
        location = Location(huge, start, 1000)
        assert client.read(location) == lake.expected(location)
    assert client.stats.snapshot().bytes_origin == 5 * MIB + 10 * 1000
    before = client.stats.snapshot()
    client.read(whole(kept))
    assert (client.stats.snapshot() - before).reads_origin == 0


def test_the_floor_of_free_space_is_kept(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY, free_floor_bytes=1 << 60))
    ref = lake.add("a", 5 * MIB)
    for _ in range(2):
        assert client.read(whole(ref)) == lake.expected(whole(ref))
    stats = client.stats.snapshot()
    assert (stats.fills, stats.uncached, stats.store_failures) == (0, 1, 0)


def test_what_is_charged_and_still_promised_evicts_nothing(
    lake: Lake, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Index.change

    def change_slowly(index: Index, changes: Callable[[Tables], object]) -> object:
        result = change(index, changes)
        time.sleep(0.02)  # another thread looks for room, as one that waits for a processor lets it
        return result

    monkeypatch.setattr(Index, "change", change_slowly)
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    client.read_many([whole(lake.add(f"a{n}", 6 * MIB)) for n in range(7)])
    assert client.stats.snapshot().evicted_bytes == 0
    assert client.stats.snapshot().uncached == 0


def test_room_is_given_back_only_after_the_file_is_gone(
    lake: Lake, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    client = Client(lake.origins, store)
    client.read_many([whole(lake.add(f"a{n}", 6 * MIB)) for n in range(7)])
    seen: list[int] = []
    unlink = os.unlink

    def look_and_unlink(path: str) -> None:
        seen.append(store.status().used_bytes - disk_usage(cache_path))
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr("cache_runtime.store.eviction.os.unlink", look_and_unlink)
        client.read(whole(lake.add("more", 6 * MIB)))
    assert seen
    assert min(seen) > -MIB  # LMDB takes some KB for its lock file


def test_what_a_killed_evictor_left_is_removed_when_the_directory_is_opened(
    lake: Lake, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    client.read_many([whole(lake.add(f"a{n}", 6 * MIB)) for n in range(7)])

    def die(path: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cache_runtime.store.eviction.os.unlink", die)
        with pytest.raises(KeyboardInterrupt):
            client.read(whole(lake.add("more", 6 * MIB)))
    BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert inconsistencies(cache_path) == []
    assert len(list(cache_path.glob("files/*/*"))) == 6
    for ref in lake.refs:
        assert client.read(whole(ref)) == lake.expected(whole(ref))


@pytest.mark.parametrize("size", [MIB - 31, MIB, MIB + 1, 4 * MIB - 1, 4 * MIB + 1])
def test_a_file_takes_no_more_room_than_is_charged(lake: Lake, cache_path: Path, size: int) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    client.read_many([whole(lake.add(f"a{n}", size)) for n in range(3)])
    assert inconsistencies(cache_path) == []


def test_an_eviction_does_not_make_readers_look_at_all_files_they_know(
    lake: Lake, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    client = Client(lake.origins, store)
    monkeypatch.setattr(store._shelf, "_limit", 2)
    refs = [lake.add(f"a{n}", 2 * MIB) for n in range(12)]
    for ref in refs:
        client.read(whole(ref))
    looked: list[int] = []
    unit = Tables.unit

    def look(tables: Tables, number: int) -> UnitRow | None:
        looked.append(number)
        return unit(tables, number)

    monkeypatch.setattr(Tables, "unit", look)
    store._words[0] += 1  # as another process does when it evicts
    assert client.read(whole(refs[-1])) == lake.expected(whole(refs[-1]))
    assert len(looked) <= 4


def test_opening_with_a_lower_capacity_evicts_what_is_beyond_it(lake: Lake, cache_path: Path) -> None:
    refs = [lake.add(f"large{n}", 5 * MIB) for n in range(15)] + [lake.add(f"small{n}", 300_000) for n in range(60)]
    before = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=4 * CAPACITY))
    before.read_many([whole(ref) for ref in refs])
    before.close()
    assert disk_usage(cache_path) > CAPACITY
    after = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=CAPACITY))
    assert CAPACITY // 2 < disk_usage(cache_path) <= CAPACITY
    assert inconsistencies(cache_path) == []
    for ref in refs:
        assert before.read(whole(ref)) == after.read(whole(ref)) == lake.expected(whole(ref))


def test_a_capacity_that_cannot_work_is_refused(cache_path: Path) -> None:
    with pytest.raises(CacheCapacityError, match="at least 33554432 bytes"):
        BlockStore.open(cache_path, capacity_bytes=MIB)
    assert not cache_path.exists()
