"""What is held of a large object is good until something is evicted, and ends where it must not be read any more."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

from cache_runtime import BlockStore
from sources import ObjectRef, StoreId, Version

if TYPE_CHECKING:
    from pathlib import Path

    from cache_runtime.store.holding import Holding

BODY = random.Random(0).randbytes(2 << 20)


def filled(directory: Path) -> tuple[BlockStore, list[ObjectRef]]:
    store = BlockStore.open(directory / "cache", capacity_bytes=64 << 20)
    refs = [ObjectRef(StoreId("test://held"), str(number), Version("1"), len(BODY)) for number in range(2)]
    for ref in refs:
        assert store.hold(ref) is None
        assert store.put(ref, 0, BODY)
        assert bytes(store.find(ref, 0, len(BODY)) or b"") == BODY
    return store, refs


def test_it_is_one_object_until_something_is_evicted_and_then_is_asked_for_again(tmp_path: Path) -> None:
    store, (ref, other) = filled(tmp_path)
    held = store.hold(ref)
    assert held is not None
    assert store.hold(ref) is held
    assert _bytes(held) == BODY
    assert held.words[0] == held.generation
    store.evict([other])
    assert held.words[0] != held.generation
    assert store.hold(ref) is None  # until this process has looked what is gone
    assert bytes(store.find(ref, 0, 1) or b"") == BODY[:1]
    assert store.hold(ref) is held
    assert held.words[0] == held.generation
    store.close()


def test_it_ends_with_eviction_a_closed_store_and_a_failing_disk(tmp_path: Path) -> None:
    store, (ref, other) = filled(tmp_path)
    held = store.hold(ref)
    assert held is not None
    view = held.view
    store.evict([ref])
    assert store.find(other, 0, 1)
    assert held.view is None
    assert bytes(view or b"") == BODY  # what was cut stays
    held = store.hold(other)
    assert held is not None
    store.close()
    assert held.view is None
    assert store.find(other, 0, 1)
    held = store.hold(other)
    assert held is not None
    store.fail(OSError(errno.EIO, "broken"))
    assert held.view is None
    assert store.hold(other) is None


def _bytes(held: Holding) -> bytes:
    return b"" if held.view is None else bytes(held.view)
