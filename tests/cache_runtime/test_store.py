from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache_runtime import BlockStore, CacheDirectoryError
from cache_runtime.store.layout import BLOCK_BYTES, BlockRun, block_span, join_blocks
from cache_runtime.store.shares import Grade
from cache_runtime.store.slabs import OpenUnit, Record
from cache_runtime.store.tables import Entry
from sources import ObjectRef, StoreId, Version
from tests.cache_runtime.lake import MIB, disk_usage, inconsistencies

CAPACITY = 32 * MIB
SIZES = [1, 5000, 300_000, MIB, MIB + 1, 5 * MIB, 9 * MIB]
OBJECTS = [ObjectRef(StoreId("test://"), f"k{n}", Version("1"), SIZES[n % len(SIZES)]) for n in range(28)]


def content(ref: ObjectRef) -> bytes:
    return (ref.id * (ref.size // 16 + 1))[: ref.size]


def found(store: BlockStore, ref: ObjectRef) -> bytes | None:
    view = store.find(ref, 0, ref.size)
    return None if view is None else bytes(view)


def put_blocks(store: BlockStore, ref: ObjectRef) -> None:
    for block in range((ref.size - 1) // BLOCK_BYTES + 1):
        start, length = block_span(BlockRun(block, block), ref.size)
        assert store.put(ref, block, content(ref)[start : start + length])


class StoreModel(RuleBasedStateMachine):
    """Whatever is put, evicted, closed or reopened: what is found is right, and what was put last is found."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="forebay-model-"))
        self.store = BlockStore.open(self.path, capacity_bytes=CAPACITY)
        self.held: list[tuple[memoryview, bytes]] = []

    @rule(ref=st.sampled_from(OBJECTS), data=st.data())
    def put(self, ref: ObjectRef, data: st.DataObject) -> None:
        block = data.draw(st.integers(0, (ref.size - 1) // BLOCK_BYTES)) if ref.size > MIB else 0
        start, length = block_span(BlockRun(block, block), ref.size)
        assert self.store.put(ref, block, content(ref)[start : start + length])
        view = self.store.find(ref, start, length)
        assert view is not None
        self.held.append((view, content(ref)[start : start + length]))

    @rule(ref=st.sampled_from(OBJECTS), data=st.data())
    def find(self, ref: ObjectRef, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, ref.size - 1))
        length = data.draw(st.integers(1, ref.size - offset))
        view = self.store.find(ref, offset, length)
        blocks = range(offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1)
        assert (view is None) == bool(self.store.missing_blocks(ref, blocks if ref.size > MIB else [0]))
        assert view is None or view == content(ref)[offset : offset + length]

    @rule()
    def close(self) -> None:
        self.store.close()

    @rule(sizes=st.sampled_from([CAPACITY, 2 * CAPACITY]))
    def reopen(self, sizes: int) -> None:
        before = self.store.status()
        self.store.close()
        self.store = BlockStore.open(self.path, capacity_bytes=sizes)
        assert inconsistencies(self.path) == []
        if sizes >= before.capacity_bytes:
            assert (self.store.status().objects, self.store.status().blocks) == (before.objects, before.blocks)

    @rule()
    def lose_the_index(self) -> None:
        before = {ref: self.store.missing_ids([ref.id]) for ref in OBJECTS}
        self.store.close()
        for name in ("index.lmdb", "index.lmdb-lock", "index.lmdb-clean"):
            (self.path / name).unlink(missing_ok=True)
        self.store = BlockStore.open(self.path, capacity_bytes=2 * CAPACITY)
        assert inconsistencies(self.path) == []
        assert {ref: self.store.missing_ids([ref.id]) for ref in OBJECTS} == before

    @rule()
    def scrub(self) -> None:
        report = self.store.scrub()
        assert (report.bad_parts, report.bad_units) == (0, 0)

    @invariant()
    def is_within_capacity_and_intact(self) -> None:
        status = self.store.status()
        assert disk_usage(self.path) <= 2 * CAPACITY
        assert status.used_bytes <= 2 * CAPACITY
        assert self.store.stats.corrupt_blocks == self.store.stats.store_failures == 0

    def teardown(self) -> None:
        assert all(view == expected for view, expected in self.held)
        self.held.clear()
        del self.store
        shutil.rmtree(self.path)


TestStoreModel = StoreModel.TestCase
TestStoreModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("ref", [OBJECTS[1], OBJECTS[5]], ids=["small", "large"])
def test_what_is_lent_stays_readable_after_eviction(cache_path: Path, ref: ObjectRef) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert store.lend(ref, 10, 100) is None
    put_blocks(store, ref)
    lent = store.lend(ref, 10, 4000)
    assert lent is not None
    assert store.evict(need_bytes=CAPACITY) > 0
    store.close()
    assert store.missing_ids([ref.id]) == [ref.id]
    assert not [path for top in ("slabs", "files") for path in (cache_path / top).rglob("*") if path.is_file()]
    assert os.pread(lent.fd, lent.length, lent.offset) == content(ref)[10:4010]


@pytest.mark.parametrize("ref", [OBJECTS[1], OBJECTS[5]], ids=["small", "large"])
def test_damaged_bytes_are_not_lent(cache_path: Path, ref: ObjectRef) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    put_blocks(store, ref)
    path = next(path for top in ("slabs", "files") for path in (cache_path / top).rglob("*") if path.is_file())
    with path.open("r+b") as file:
        file.seek(3000)
        file.write(bytes(8))
    store.close()
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)  # as another process: what one wrote, it trusts
    assert store.lend(ref, 10, 100) is None
    assert store.stats.corrupt_blocks == 1
    put_blocks(store, ref)
    lent = store.lend(ref, 0, ref.size)
    assert lent is not None
    assert os.pread(lent.fd, lent.length, lent.offset) == content(ref)


def test_a_lost_visited_map_is_made_anew(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert store.put(OBJECTS[1], 0, content(OBJECTS[1]))
    del store
    (cache_path / "visited.map").unlink()
    assert BlockStore.open(cache_path, capacity_bytes=CAPACITY).find(OBJECTS[1], 0, 5) is not None


def test_a_directory_with_something_else_in_it_is_refused(cache_path: Path) -> None:
    (cache_path / "slabs").mkdir(parents=True)
    (cache_path / "slabs" / "000000000001.slab").write_text("mine")
    with pytest.raises(CacheDirectoryError, match="neither empty nor a cache"):
        BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert (cache_path / "slabs" / "000000000001.slab").read_text() == "mine"


def test_files_that_no_unit_owns_are_swept(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert store.put(OBJECTS[1], 0, content(OBJECTS[1]))
    orphans = [cache_path / "slabs" / f"{9:012x}.slab", cache_path / "files" / "09" / f"{9:012x}-{'0' * 32}"]
    orphans[1].parent.mkdir()
    for path in orphans:
        path.write_bytes(b"x")
    foreign = cache_path / "files" / "notes.txt"
    foreign.write_text("not ours")
    BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert not [path for path in orphans if path.exists()]
    assert foreign.exists()
    assert store.find(OBJECTS[1], 0, 5) is not None


@pytest.mark.parametrize("below", ["file", "/proc"])
def test_a_directory_that_cannot_be_made_is_named_with_the_next_step(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / below / "cache"
    with pytest.raises(CacheDirectoryError, match="choose another directory") as caught:
        BlockStore.open(path, capacity_bytes=CAPACITY)
    assert str(path) in str(caught.value)


def test_join_blocks_joins_neighbours_up_to_the_limit() -> None:
    assert list(join_blocks([0, 1, 2, 3, 4, 7, 9, 10])) == [(0, 3), (4, 4), (7, 7), (9, 10)]
    assert list(join_blocks([])) == []


def test_as_many_slabs_stay_open_as_the_limit_allows(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    monkeypatch.setattr(store._shelf, "_limit", 3)
    refs = [ObjectRef(StoreId("test://"), f"o{n}", Version("1"), 900_000) for n in range(24)]
    for ref in refs:
        assert store.put(ref, 0, content(ref))
    for ref in refs * 2:
        assert found(store, ref) == content(ref)
    targets = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)]
    assert len([target for target in targets if target.startswith(str(cache_path / "slabs"))]) <= 4  # one is written


def test_a_process_remembers_so_many_large_files(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache_runtime.store.shelf._MAX_FILES", 3)
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    refs = [ObjectRef(StoreId("test://"), f"o{n}", Version("1"), MIB + 1 + n) for n in range(10)]
    for ref in refs:
        assert store.put(ref, 0, content(ref))
    for ref in refs * 2:
        assert found(store, ref) == content(ref)
    assert len(store._shelf.files) <= 3


def test_a_slab_taken_over_before_its_last_record_is_published_keeps_both(cache_path: Path) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    first, second = (ObjectRef(StoreId("test://"), name, Version("1"), 5000) for name in "ab")
    writer = store._filler._writers.writer(0, Grade.NORMAL)
    (place,) = writer.append([Record(first.id, content(first))])
    writer.release()  # a thread closes the store just then
    assert BlockStore.open(cache_path, capacity_bytes=CAPACITY).put(second, 0, content(second))
    entry = Entry(*place, slot=0, size=first.size)
    store._index.change(lambda tables: tables.publish_record(first.id, entry))
    assert len(list(cache_path.glob("slabs/*"))) == 1
    with store._index.reading() as tables:
        assert sorted(value for _, value in tables.parts(place.unit)) == sorted([first.id, second.id])


def test_a_slab_evicted_before_its_file_was_made_leaves_no_file(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    opened: list[str] = []

    def open_late(path: str, flags: int) -> OpenUnit:
        if not opened:
            store._filler.evictor.drop(int(Path(path).stem, 16))
        opened.append(path)
        return OpenUnit(path, flags)

    monkeypatch.setattr("cache_runtime.store.slabs.OpenUnit", open_late)
    assert store.put(OBJECTS[1], 0, content(OBJECTS[1]))
    assert len(opened) == 2
    assert inconsistencies(cache_path) == []


def test_a_directory_that_was_removed_and_opened_again_is_a_new_cache(cache_path: Path) -> None:
    old = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    for ref in OBJECTS[:6]:
        assert old.put(ref, 0, content(ref)[:BLOCK_BYTES])
    with old._index.reading() as tables:
        before = {unit for unit, _ in tables.units()}
    shutil.rmtree(cache_path)
    new = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert new.status().objects == 0
    assert (cache_path / "index.lmdb").exists()
    assert new.put(OBJECTS[5], 0, content(OBJECTS[5])[:BLOCK_BYTES])
    with new._index.reading() as tables:
        assert before.isdisjoint(unit for unit, _ in tables.units())
    for store in (old, new):
        view = store.find(OBJECTS[5], 0, 9)
        assert view is not None
        assert view == content(OBJECTS[5])[:9]


def test_a_child_of_a_fork_uses_the_index_that_is_there(cache_path: Path) -> None:
    old = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    shutil.rmtree(cache_path)
    new = BlockStore.open(cache_path, capacity_bytes=CAPACITY)
    assert new.put(OBJECTS[1], 0, content(OBJECTS[1]))

    def read_in_child() -> None:
        assert found(old, OBJECTS[1]) == content(OBJECTS[1])
        assert found(new, OBJECTS[1]) == content(OBJECTS[1])

    child = multiprocessing.get_context("fork").Process(target=read_in_child, daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0
