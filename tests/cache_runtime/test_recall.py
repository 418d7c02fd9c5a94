"""The short path of a hit: what was checked before, as long as nothing was evicted since."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore
from cache_runtime.store.layout import slot_of
from cache_runtime.store.visited import VisitedMap
from sources import Location, ObjectRef, StoreId, Version
from tests.cache_runtime.lake import MIB

if TYPE_CHECKING:
    from pathlib import Path

CAPACITY = 32 * MIB
SMALL = ObjectRef(StoreId("test://"), "small", Version("1"), 10_000)
LARGE = ObjectRef(StoreId("test://"), "large", Version("1"), 2 * MIB)


def filled(path: Path) -> BlockStore:
    store = BlockStore.open(path, capacity_bytes=CAPACITY)
    for ref in (SMALL, LARGE):
        assert store.put(ref, 0, content(ref))
        assert store.recall(Location(ref, 0, 1)) is None
        assert store.find(ref, 0, ref.size) == content(ref)
    return store


def content(ref: ObjectRef) -> memoryview:
    return memoryview(ref.id * (ref.size // 16 + 1))[: ref.size]


@pytest.mark.parametrize("ref", [SMALL, LARGE])
@pytest.mark.parametrize(("offset", "length"), [(0, 10_000), (0, 1), (9_999, 1), (17, 4_000)])
def test_what_was_checked_is_recalled(cache_path: Path, ref: ObjectRef, offset: int, length: int) -> None:
    location = Location(ref, offset, length)
    assert filled(cache_path).recall(location) == content(ref)[offset : offset + length]


@pytest.mark.parametrize("ref", [SMALL, LARGE])
@pytest.mark.parametrize(("start", "length"), [(-1, 1), (-5, 10), (0, 0), (0, -1), (1, None), (None, 1)])
def test_a_range_that_is_not_inside_is_neither_recalled_nor_found(
    cache_path: Path, ref: ObjectRef, start: int | None, length: int | None
) -> None:
    store = filled(cache_path)
    location = Location(ref, ref.size if start is None else start, ref.size if length is None else length)
    assert store.recall(location) is None
    assert store.find_many([location, Location(ref, 0, 5)]) == [None, content(ref)[:5]]


def test_an_object_that_claims_another_size_is_not_recalled(cache_path: Path) -> None:
    store = filled(cache_path)
    for size in (SMALL.size - 1, SMALL.size + 1):
        other = ObjectRef(SMALL.store, SMALL.key, SMALL.version, size)
        assert other.id == SMALL.id
        assert store.recall(Location(other, 0, size)) is None
        assert store.find_many([Location(other, 0, size)]) == [None]


def test_an_eviction_elsewhere_ends_recalling_until_the_object_is_found_and_marked_again(cache_path: Path) -> None:
    store = filled(cache_path)
    visited = VisitedMap(str(cache_path / "visited.map"), capacity_bytes=CAPACITY)
    visited.clear(slot_of(SMALL.id))
    assert store.recall(Location(SMALL, 0, 10)) == content(SMALL)[:10]
    visited.bump()  # as the evictor does who cleared the mark
    assert store.recall(Location(SMALL, 0, 10)) is None
    assert store.find(SMALL, 0, 10) == content(SMALL)[:10]
    assert visited.is_set(slot_of(SMALL.id))
    assert store.recall(Location(SMALL, 0, 10)) == content(SMALL)[:10]


def test_what_was_evicted_is_not_recalled(cache_path: Path) -> None:
    store = filled(cache_path)
    wanted = [Location(ref, 0, 10) for ref in (SMALL, LARGE)]
    assert store.find_many(wanted) == [content(SMALL)[:10], content(LARGE)[:10]]
    BlockStore.open(cache_path, capacity_bytes=CAPACITY).evict([SMALL, LARGE])
    assert [store.recall(location) for location in wanted] == [None, None]
