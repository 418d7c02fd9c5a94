from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime import BlockStore
from cache_runtime.errors import CacheShareError
from cache_runtime.store.pinfile import add_pins, read_pins, write_pins
from cache_runtime.store.pins import PinStatus
from cache_runtime.store.shares import Share
from tests.cache_runtime.lake import MIB, inconsistencies
from tests.cache_runtime.objects import lose_index
from tests.cache_runtime.test_shares import content, fill, found, make_ref, present, status

if TYPE_CHECKING:
    from pathlib import Path

CAPACITY = 64 * MIB


@pytest.mark.parametrize("size", [10_000, 600_000, 3 * MIB])
def test_what_is_pinned_is_never_evicted_whether_it_was_cached_before_or_after(cache_path: Path, size: int) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    before = fill(store, "before", 4, size, Share("a"))
    assert store.pin(before, "keep") == 4
    assert store.pin([make_ref(f"after{n}", size) for n in range(4)], "keep") == 0
    after = fill(store, "after", 4, size, Share("a"))
    for n in range(60):
        fill(store, f"flood{n}", 1, 3 * MIB, Share("b", priority=5))
        fill(store, f"dust{n}", 3, 300_000, Share("b", priority=5))
    assert present(store, before + after) == 8
    assert status(store, "a").pinned_bytes >= 8 * size
    store.evict(share="a")
    assert store.evict(before + after) == 0
    assert present(store, before + after) == 8
    for ref in before + after:
        assert found(store, ref) == content(ref)
    assert inconsistencies(cache_path) == []


def test_pins_are_counted_by_label_and_survive_a_restart(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    refs = fill(store, "a", 5, 20_000, Share())
    store.pin(refs[:3], "one")
    store.pin([refs[2].id, refs[3].id, make_ref("later", 5).id], "two")
    store.pin(refs[:3], "one")
    store.close()
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert store.pins() == (PinStatus("one", 3, 3), PinStatus("two", 3, 2))
    assert store.unpin("one") == 3
    assert store.unpin("one") == 0
    assert store.pins() == (PinStatus("two", 3, 2),)


@pytest.mark.parametrize("size", [20_000, 2 * MIB])
def test_an_unpinned_object_may_go_unless_another_label_holds_it(cache_path: Path, size: int) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    refs = fill(store, "a", 6, size, Share("a"))
    store.pin(refs, "one")
    store.pin(refs[:2], "two")
    store.unpin("one")
    assert store.evict(share="a") > 0
    assert present(store, refs[:2]) == 2
    assert present(store, refs) == 2
    assert store.unpin("two") == 2
    store.evict(share="a")
    assert present(store, refs) == 0
    assert status(store, "a").pinned_bytes == 0
    assert inconsistencies(cache_path) == []


def test_a_cache_full_of_pins_refuses_and_reads_on(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    refs = [make_ref(f"a{n}", 3 * MIB) for n in range(30)]
    store.pin(refs, "all")
    stored = [ref for ref in refs if store.put(ref, 0, content(ref))]
    assert 18 <= len(stored) <= 21
    assert not fill(store, "more", 3, 3 * MIB, Share("b", priority=9))
    assert present(store, stored) == len(stored)
    store.unpin("all")
    assert fill(store, "again", 3, 3 * MIB, Share("b", priority=9))


def test_a_pin_is_admitted_where_its_share_keeps(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    share = Share("a", cycle_bytes=200 * MIB)
    assert len(fill(store, "a", 40, 3 * MIB, share)) < 40
    wanted = make_ref("wanted", 3 * MIB)
    assert not store.admits(wanted, share=share)
    store.pin([wanted], "now")
    assert store.admits(wanted, share=share)
    assert store.put(wanted, 0, content(wanted), share=share)


@pytest.mark.parametrize("label", ["", "x" * 256])
def test_a_label_that_cannot_be_is_refused(cache_path: Path, label: str) -> None:
    with pytest.raises(CacheShareError):
        BlockStore.open(cache_path, capacity_bytes=CAPACITY).pin([], label)


def test_pins_survive_the_loss_of_the_index(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    small, large = fill(store, "small", 40, 300_000, Share("a")), fill(store, "large", 4, 3 * MIB, Share("a"))
    later = make_ref("later", 2 * MIB)
    store.pin([*small[:5], *large[:2], later], "a label, ü/%\n")
    store.pin(large[2:3], "gone")
    store.unpin("gone")
    with (cache_path / "pins").open("ab") as file:
        file.write(b"deadbeef torn")  # of a process that was killed
    store.pin(small[5:6], "second")
    before = store.pins()
    store.close()
    del store
    lose_index(cache_path)
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert store.pins() == before == (PinStatus("a label, ü/%\n", 8, 7), PinStatus("second", 1, 1))
    store.put(later, 0, content(later), share=Share("b"))
    store.evict(share="a")
    store.evict(share="b")
    store.evict(need_bytes=CAPACITY)
    assert present(store, [*small[:6], *large[:2], later]) == 9
    assert present(store, large[2:]) == 0
    assert inconsistencies(cache_path) == []
    store.unpin("second")
    store.unpin("a label, ü/%\n")
    store.evict(need_bytes=CAPACITY)
    assert present(store, [*small, *large, later]) == 0
    assert not (cache_path / "pins").read_bytes()


@given(labels=st.lists(st.tuples(st.text(min_size=1, max_size=20), st.lists(st.binary(min_size=16, max_size=16)))))
def test_the_file_of_pins_gives_back_what_was_written_and_no_more(labels: list[tuple[str, list[bytes]]]) -> None:
    pins = [(label.encode(), ids) for label, ids in labels if _is_text(label)]
    with tempfile.TemporaryDirectory() as top:
        path = f"{top}/pins"
        write_pins(path, pins[:2])
        for label, ids in pins[2:]:
            add_pins(path, label, ids)
        assert list(read_pins(path)) == pins
        os.truncate(path, max(0, os.stat(path).st_size - 3))
        assert list(read_pins(path)) == pins[:-1]


def _is_text(label: str) -> bool:
    try:
        label.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
