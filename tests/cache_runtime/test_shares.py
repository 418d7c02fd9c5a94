from __future__ import annotations

import multiprocessing
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime import BlockStore
from cache_runtime.errors import CacheShareError
from cache_runtime.store.blockfiles import block_checksum
from cache_runtime.store.ghosts import GhostMap, MissReason
from cache_runtime.store.layout import checksum
from cache_runtime.store.shares import Share, ShareRow, ShareStatus
from sources import ObjectRef, StoreId, Version
from tests.cache_runtime.lake import MIB, disk_usage, inconsistencies

if TYPE_CHECKING:
    from pathlib import Path

CAPACITY = 64 * MIB
FORK = multiprocessing.get_context("fork")


def make_ref(name: str, size: int) -> ObjectRef:
    return ObjectRef(StoreId("test://"), name, Version("1"), size)


def content(ref: ObjectRef) -> bytes:
    return (ref.id * (ref.size // 16 + 1))[: ref.size]


def fill(store: BlockStore, name: str, count: int, size: int, share: Share, *, guest: bool = False) -> list[ObjectRef]:
    """Put so many objects; return those that were stored."""
    refs = [make_ref(f"{name}{n}", size) for n in range(count)]
    return [ref for ref in refs if store.put(ref, 0, content(ref)[: 4 * MIB], share=share, guest=guest)]


def found(store: BlockStore, ref: ObjectRef) -> bytes | None:
    view = store.find(ref, 0, ref.size)
    return None if view is None else bytes(view)


def present(store: BlockStore, refs: list[ObjectRef]) -> int:
    return len(refs) - len(store.missing_ids([ref.id for ref in refs]))


def status(store: BlockStore, name: str) -> ShareStatus:
    return next(held for held in store.status().shares if held.share.name == name)


@pytest.mark.parametrize("size", [200_000, 3 * MIB])
def test_a_share_stays_within_its_quota_and_evicts_its_own(cache_path: Path, size: int) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    other = fill(store, "other", 5, 2 * MIB, Share("other"))
    share = Share("small", quota_bytes=16 * MIB)
    for n in range(30 * MIB // size):
        assert fill(store, f"a{n}", 1, size, share)
        assert status(store, "small").used_bytes <= 16 * MIB
    assert status(store, "small").used_bytes > 8 * MIB
    assert present(store, other) == len(other)
    assert not store.put(make_ref("larger than the quota", 17 * MIB), 0, bytes(4 * MIB), share=share)
    assert inconsistencies(cache_path) == []


def test_a_quota_that_was_lowered_lets_others_take_the_excess_first(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    greedy = fill(store, "a", 10, 3 * MIB, Share("a", priority=9))
    modest = fill(store, "b", 9, 3 * MIB, Share("b"))
    store.put(make_ref("x", 5), 0, b"12345", share=Share("a", priority=9, quota_bytes=12 * MIB))
    fill(store, "c", 5, 3 * MIB, Share("c"))
    assert present(store, modest) == len(modest)
    assert 3 <= present(store, greedy) < 10


def test_low_priorities_go_first_and_high_ones_never_for_a_lower_one(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    low = fill(store, "low", 8, 3 * MIB, Share("low", priority=-1))
    high = fill(store, "high", 8, 3 * MIB, Share("high", priority=1))
    fill(store, "mid", 10, 3 * MIB, Share("mid"))
    assert present(store, high) == len(high)
    assert present(store, low) <= 2
    fill(store, "more", 40, 3 * MIB, Share("mid"))
    assert present(store, high) == len(high)
    assert present(store, fill(store, "lowest", 20, 3 * MIB, Share("low", priority=-1))) <= 2
    assert present(store, high) == len(high)


def test_guests_take_free_room_only_and_go_first(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    own = fill(store, "own", 10, 3 * MIB, Share("a"))
    guests = fill(store, "guest", 20, 3 * MIB, Share("b"), guest=True)
    assert 5 <= len(guests) < 20
    assert store.why_missing(make_ref("guest19", 3 * MIB)) is MissReason.NOT_ADMITTED
    assert present(store, own) == len(own)
    held = status(store, "b")
    assert held.guest_bytes == held.used_bytes > 0
    more = fill(store, "more", 5, 3 * MIB, Share("a"))
    assert (present(store, own), present(store, more)) == (10, 5)
    assert present(store, guests) < len(guests)


def test_small_objects_of_several_shares_do_not_share_a_slab(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    refs = {name: fill(store, name, 40, 10_000, Share(name)) for name in "abcdefgh"}
    assert [held.share.name for held in store.status().shares] == list("abcdefgh")
    assert store.evict(share="c") > 0
    store.close()
    assert {name: present(store, some) for name, some in refs.items()} == dict.fromkeys("abdefgh", 40) | {"c": 0}
    assert inconsistencies(cache_path) == []


def test_many_small_objects_are_stored_in_few_transactions(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    refs = [make_ref(f"a{n}", 100 + n) for n in range(2000)]
    before = store._index._environment.info()["last_txnid"]
    assert store.put_many([(ref, content(ref)) for ref in refs]) == 2000
    assert store._index._environment.info()["last_txnid"] - before < 24
    assert store.put_many([]) == 0
    views = [store.find(ref, 0, ref.size) for ref in refs]
    assert [bytes(view or b"") for view in views] == [content(ref) for ref in refs]
    assert BlockStore.open(cache_path, capacity_bytes=CAPACITY).status().objects == 2000


def test_put_many_stores_what_there_is_room_for(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=32 * MIB)
    refs = [make_ref(f"a{n}", 500_000) for n in range(100)]
    share = Share("a", cycle_bytes=50_000_000)
    stored = store.put_many([(ref, content(ref)) for ref in refs], share=share)
    assert 50 < stored < 70
    assert present(store, refs) == stored
    assert disk_usage(cache_path) <= 32 * MIB


def test_checksums_that_a_peer_checked_are_stored_as_they_are(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    small, large = make_ref("small", 5000), make_ref("large", 6 * MIB)
    assert store.put(small, 0, content(small), crcs=[checksum(content(small), small.id)])
    blocks = [content(large)[: 4 * MIB], content(large)[4 * MIB :]]
    crcs = [block_checksum(large.id, number, block) for number, block in enumerate(blocks)]
    assert store.put(large, 0, content(large), crcs=crcs)
    for ref in (small, large):
        assert found(store, ref) == content(ref)
    wrong = make_ref("wrong", 5000)
    assert store.put(wrong, 0, content(wrong), crcs=[1])
    assert store.find(wrong, 0, 5000) is None
    assert store.why_missing(wrong) is MissReason.CORRUPT


def test_every_miss_has_a_reason(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    refs = fill(store, "a", 40, 3 * MIB, Share()) + fill(store, "small", 300, 500_000, Share())
    gone = [ref for ref in refs if store.missing_ids([ref.id])]
    assert len(gone) > 100
    reasons = [store.why_missing(ref) for ref in gone]
    assert reasons.count(MissReason.EVICTED) > 0.9 * len(gone)  # a ghost may be overwritten by another one
    assert set(reasons) <= {MissReason.EVICTED, MissReason.NEVER_CACHED}
    assert store.why_missing(make_ref("new", 10)) is MissReason.NEVER_CACHED
    assert not store.admits(make_ref("huge", 100 * MIB), length=5)
    assert store.why_missing(make_ref("huge", 100 * MIB)) is MissReason.NOT_ADMITTED
    store.off_reason = "broken"
    assert store.why_missing(gone[0]) is MissReason.STORE_OFF


def test_evict_frees_objects_shares_and_bytes(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    large, small = fill(store, "a", 6, 3 * MIB, Share("a")), fill(store, "b", 20, 100_000, Share("b"))
    assert store.evict(large[:2]) >= 6 * MIB
    assert store.evict([small[0].id]) == 0  # its slab holds others
    assert store.evict(small[1:]) > 1_900_000
    assert (present(store, large), present(store, small)) == (4, 0)
    assert store.why_missing(small[3]) is MissReason.EVICTED
    assert store.evict(need_bytes=4 * MIB) >= 4 * MIB
    assert present(store, large) == 2
    assert store.evict(share="a") >= 6 * MIB
    assert store.evict(share="nobody") == 0
    assert present(store, large) == 0
    assert inconsistencies(cache_path) == []


def put_within_quota(path: Path, seed: int) -> None:
    store = BlockStore.open(path, capacity_bytes=40 * MIB)
    picks = random.Random(seed)
    for n in range(70):
        share = Share(f"s{n % 3}", quota_bytes=10 * MIB, priority=n % 2)
        ref = make_ref(f"{seed}-{n}", picks.choice([3000, 400_000, 3 * MIB]))
        store.put(ref, 0, content(ref), share=share, guest=n % 5 == 0)
        used = [held.used_bytes for held in store.status().shares]
        assert max(used) <= 10 * MIB, used
        view = store.find(ref, 0, ref.size)
        assert view is None or view == content(ref)


def test_quotas_and_the_capacity_hold_under_several_processes(cache_path: Path) -> None:
    processes = [FORK.Process(target=put_within_quota, args=(cache_path, seed), daemon=True) for seed in range(3)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        assert disk_usage(cache_path) <= 40 * MIB
        processes[0].join(0.02)
    assert [process.exitcode for process in processes] == [0] * 3
    assert inconsistencies(cache_path) == []


@pytest.mark.parametrize(
    "terms",
    [{"name": "x" * 256}, {"priority": 1 << 40}, {"quota_bytes": -1}, {"cycle_bytes": -1}],
    ids=lambda terms: next(iter(terms)),
)
def test_a_share_that_cannot_be_is_refused(terms: dict[str, int]) -> None:
    with pytest.raises(CacheShareError):
        Share(**terms)  # type: ignore[arg-type]


@given(
    st.builds(
        Share,
        st.text(st.characters(codec="utf-8"), max_size=60),
        st.integers(-(1 << 31), (1 << 31) - 1),
        st.none() | st.integers(0, 1 << 62),
        st.integers(0, 1 << 62),
    ),
    st.lists(st.integers(0, 1 << 62), min_size=4, max_size=4),
)
def test_a_share_is_read_back_as_it_was_written(share: Share, numbers: list[int]) -> None:
    row = ShareRow(share, *numbers)
    assert ShareRow.unpack(row.pack()) == row


@given(
    st.lists(st.tuples(st.binary(min_size=16, max_size=16), st.sampled_from(["evicted", "not_admitted", "corrupt"])))
)
def test_the_last_ghost_of_a_slot_is_remembered(notes: list[tuple[bytes, str]]) -> None:
    ghosts = GhostMap(memoryview(bytearray(4 * 64)).cast("I"))
    for object_id, reason in notes:
        ghosts.note([object_id], MissReason(reason))
        assert ghosts.reason(object_id) == reason
