"""A sample tells how much of a version each worker has, wherever placement would put it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.loading.pieces import blocks_of, piece_bytes
from cache_runtime.peers import Member, Peers, StaticMembers
from cache_runtime.store.layout import BLOCK_SHIFT, SMALL_BYTES
from dataset_controller.agent.sampling import Sample, held_shares
from sources import FileStore, Location, ObjectRef, Version
from tests.cache_runtime.lake import MIB, Lake
from tests.cache_runtime.worker.workers import worker
from tests.services.processes import free_port

if TYPE_CHECKING:
    from pathlib import Path

STORE = FileStore("/").id


def _location(number: int, size: int, offset: int = 0, length: int | None = None) -> Location:
    ref = ObjectRef(STORE, f"o/{number}", Version("etag:1"), size)
    return Location(ref, offset, size - offset if length is None else length)


@given(st.lists(st.integers(0, 300 * MIB), max_size=20))
def test_of_a_small_version_everything_is_asked_for(sizes: list[int]) -> None:
    locations = [_location(number, size) for number, size in enumerate(sizes)]
    sample = Sample("c1")
    assert list(sample.through(locations)) == locations
    assert sum(map(piece_bytes, sample.pieces)) == sum(sizes)
    blocks = [(ref.id, block) for ref, run in sample.pieces for block in blocks_of((ref, run))]
    assert len(blocks) == len(set(blocks))
    assert all(run.last - run.first < 16 for _, run in sample.pieces)


@given(st.integers(0, 400 * MIB - 1), st.integers(0, 400 * MIB))
def test_of_a_large_object_only_what_is_touched(offset: int, length: int) -> None:
    length = min(length, 400 * MIB - offset)
    sample = Sample("c1")
    list(sample.through([_location(1, 400 * MIB, offset, length)]))
    found = [block for piece in sample.pieces for block in blocks_of(piece)]
    wanted = range(offset >> BLOCK_SHIFT, ((offset + length - 1) >> BLOCK_SHIFT) + 1) if length else range(0)
    assert found == list(wanted)


def test_of_a_large_version_so_many_and_the_same_each_time() -> None:
    locations = [_location(number, SMALL_BYTES) for number in range(20_000)]
    samples = [Sample(seed) for seed in ("c1", "c1", "c2")]
    for sample in samples:
        assert sum(1 for _ in sample.through(locations)) == len(locations)
    assert [len(sample.pieces) for sample in samples] == [512] * 3
    assert samples[0].pieces == samples[1].pieces != samples[2].pieces
    first = sum(int(ref.key[2:]) < 10_000 for ref, _ in samples[0].pieces)
    assert 206 < first < 306  # of a half, 4.4 deviations


def test_each_worker_is_asked_and_one_that_is_away_is_left_out(tmp_path: Path) -> None:
    for name in ("lake", "one", "two"):
        (tmp_path / name).mkdir()
    lake = Lake(tmp_path / "lake")
    small, large = lake.add("small", MIB), lake.add("large", 15 * MIB)
    whole = [Location(ref, 0, ref.size) for ref in (small, large)]
    with (
        worker(lake.root, tmp_path / "one" / "cache", name="w1") as one,
        worker(lake.root, tmp_path / "two" / "cache", name="w2") as two,
    ):
        for location in whole:
            assert one.read(location).status in (200, 206)
        two.read(Location(large, 13 * MIB, 1))
        members = [Member("w1", one.url), Member("w2", two.url), Member("w3", f"http://127.0.0.1:{free_port()}")]
        peers = Peers(StaticMembers(members))
        sample = Sample("c1")
        list(sample.through(whole))
        assert held_shares(peers, sample.pieces) == {"w1": 1.0, "w2": 3 / 16}
        assert held_shares(peers, []) == {}
