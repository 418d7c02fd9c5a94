from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.errors import StateMismatchError
from loaders.ordering import stream
from loaders.ordering.lanes import cut_lanes, usable_lanes
from loaders.ordering.stream import LaneStream
from loaders.sampler import ElasticBatchSampler

if TYPE_CHECKING:
    from loaders.ordering.tails import Tail


@dataclass(frozen=True, eq=False)
class Shards:
    shard_starts: npt.NDArray[np.int64]
    fingerprint: str = "abc"

    def __len__(self) -> int:
        return int(self.shard_starts[-1])


def of_sizes(*sizes: int) -> Shards:
    return Shards(np.cumsum([0, *sizes]).astype(np.int64))


@dataclass(frozen=True)
class Case:
    """An epoch and the worlds that can share it."""

    sizes: tuple[int, ...]
    batch: int
    worlds: tuple[int, ...]
    lanes: int
    window: int | None
    tail: Tail

    def sampler(self, rank: int = 0, world: int = 1) -> ElasticBatchSampler:
        return ElasticBatchSampler(
            of_sizes(*self.sizes),
            self.batch,
            seed=3,
            order="stream",
            rank=rank,
            world_size=world,
            tail=self.tail,
            lanes=self.lanes,
            window=self.window,
        )

    def ranks(self, world: int, *, epoch: int = 2, step: int = 0) -> list[list[list[int]]]:
        every = []
        for rank in range(world):
            sampler = self.sampler(rank, world)
            sampler.seek(epoch, step)
            every.append(list(sampler))
        return every


@st.composite
def cases(draw: st.DrawFn) -> Case:
    world = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 16]))
    batch = world * draw(st.integers(1, 12))
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=60))
    sizes[0] += batch  # at least one whole batch
    return Case(
        tuple(sizes),
        batch,
        tuple(w for w in range(1, batch + 1) if batch % w == 0 and w <= 16),
        draw(st.sampled_from([1, 2, 4, 6, 8, 64])),
        draw(st.sampled_from([None, 1, 2, 5])),
        draw(st.sampled_from(["drop", "pad", "fill", "exact"])),
    )


def joined(every: list[list[list[int]]]) -> list[list[int]]:
    return [[sample for part in step for sample in part] for step in zip(*every, strict=True)]


@given(case=cases())
def test_an_epoch_has_each_sample_once_but_for_what_is_dropped_or_marked(case: Case) -> None:
    n = sum(case.sizes)
    for world in case.worlds:
        every = case.ranks(world)
        masks = [case.sampler(rank, world) for rank in range(world)]
        real = []
        for step, parts in enumerate(zip(*every, strict=True)):
            for sampler, part in zip(masks, parts, strict=True):
                mask = sampler.mask_at(2, step)
                assert len(mask) == len(part)
                real += np.array(part, dtype=int)[mask].tolist()
        expected = n // case.batch * case.batch if case.tail == "drop" else n
        assert len(real) == len(set(real)) == expected
        assert set(real) <= set(range(n))


@given(case=cases())
def test_all_world_sizes_see_the_same_global_batches_in_the_same_number_of_steps(case: Case) -> None:
    alone = joined(case.ranks(1))
    n = sum(case.sizes)
    whole, rest = divmod(n, case.batch)
    for world in case.worlds:
        every = case.ranks(world)
        assert {len(rank) for rank in every} == {len(case.sampler(0, world))}
        together = joined(every)
        assert together[:whole] == alone[:whole]
        assert [batch[:rest] for batch in together[whole:]] == [batch[:rest] for batch in alone[whole:]]
        if case.tail != "exact":
            assert all(len({len(part) for part in parts}) == 1 for parts in zip(*every, strict=True))
        if case.tail in ("exact", "drop"):
            assert together == alone
        if case.tail == "fill":
            assert {len(batch) for batch in together} == {case.batch}


@settings(max_examples=25)
@given(case=cases(), data=st.data())
def test_resume_at_every_step_twice_and_at_another_world_size_equals_the_unbroken_run(
    case: Case, data: st.DataObject
) -> None:
    alone = joined(case.ranks(1))
    n = sum(case.sizes)
    for step in range(len(alone)):
        first, second = data.draw(st.tuples(*[st.sampled_from(case.worlds)] * 2))
        saved = case.sampler(0, first)
        saved.seek(2, step)
        state = json.loads(json.dumps(saved.position()))
        assert len(json.dumps(state)) < 500
        again = case.sampler(first - 1, first)
        again.restore(state)
        state = json.loads(json.dumps(again.position()))
        every = [case.sampler(rank, second) for rank in range(second)]
        for sampler in every:
            sampler.restore(state)
        resumed = joined([list(sampler) for sampler in every])
        sizes = [min(case.batch, n - (step + i) * case.batch) for i in range(len(resumed))]
        expected = [batch[:size] for batch, size in zip(alone[step:], sizes, strict=True)]
        assert [batch[:size] for batch, size in zip(resumed, sizes, strict=True)] == expected


@given(case=cases(), data=st.data())
def test_a_batch_anywhere_is_that_of_the_iteration(case: Case, data: st.DataObject) -> None:
    world = data.draw(st.sampled_from(case.worlds))
    rank = data.draw(st.integers(0, world - 1))
    (expected,) = [case.ranks(world)[rank]]
    sampler = case.sampler(rank, world)
    for step in data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=6)):
        assert sampler.batch_at(2, step) == expected[step]
    assert (sampler.epoch, sampler.step) == (0, 0)


@given(case=cases())
def test_a_rank_reads_the_shards_of_its_lanes_only(case: Case) -> None:
    starts = of_sizes(*case.sizes).shard_starts
    shards = int(np.count_nonzero(np.diff(starts)))
    lanes = usable_lanes(case.lanes, batch_size=case.batch, shards=shards)
    cut = cut_lanes(starts, lanes, seed=3)
    for world in [w for w in case.worlds if lanes % w == 0]:
        for rank, batches in enumerate(case.ranks(world)):
            whole = [batch for batch in batches if len(batch) == case.batch // world]
            if case.tail != "drop" and sum(case.sizes) % case.batch:
                whole = batches[:-1]
            mine: set[int] = set()
            for lane in range(rank * lanes // world, (rank + 1) * lanes // world):
                for first, count in zip(*cut.pieces(lane), strict=True):
                    mine |= set(range(first, first + count))
            assert {sample for batch in whole for sample in batch} <= mine


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=80), lanes=st.integers(1, 16), seed=st.integers(0, 9))
def test_lanes_are_cut_to_the_sample(sizes: list[int], lanes: int, seed: int) -> None:
    sizes[0] += lanes
    cut = cut_lanes(of_sizes(*sizes).shard_starts, lanes, seed=seed)
    n = sum(sizes)
    held = [[s for f, c in zip(*cut.pieces(lane), strict=True) for s in range(f, f + c)] for lane in range(lanes)]
    assert {len(lane) for lane in held} <= {n // lanes, n // lanes + 1}
    assert sorted(sample for lane in held for sample in lane) == list(range(n))
    assert len(cut.first) <= np.count_nonzero(sizes) + lanes - 1


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=60),
    window=st.integers(1, 70),
    short=st.sampled_from([1, 40, 100, 1 << 16]),
    data=st.data(),
)
def test_any_slice_of_a_lane_is_the_slice_of_the_whole(
    counts: list[int], window: int, short: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "SHORT", short)  # longer windows are computed point by point
        n = sum(counts)
        first = np.cumsum([0, *counts])[:-1]
        lane = LaneStream(first, np.array(counts), window=window, key=5)
        whole = lane.slice(0, n).tolist()
        assert sorted(whole) == list(range(n))
        start = data.draw(st.integers(0, n))
        stop = data.draw(st.integers(start, n))
        assert (
            LaneStream(first, np.array(counts), window=window, key=5).slice(start, stop).tolist() == whole[start:stop]
        )
        some = sorted(data.draw(st.lists(st.integers(0, n - 1), max_size=20)))
        assert lane.at(np.array(some, dtype=np.int64)).tolist() == [whole[position] for position in some]


@pytest.mark.parametrize("window", [1, 4, 8])
def test_few_shards_are_in_use_at_a_time(window: int) -> None:
    shards, each, step = 100, 64, 32
    starts = np.arange(shards + 1) * each
    lane = LaneStream(starts[:-1], np.diff(starts), window=window, key=9)
    used = lane.slice(0, shards * each).reshape(-1, step) // each
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, row in enumerate(used.tolist()):
        for shard in row:
            first.setdefault(shard, number)
            last[shard] = number
    live = [sum(first[s] <= t <= last[s] for s in range(shards)) for t in range(len(used))]
    new = [sum(first[s] == t for s in range(shards)) for t in range(len(used))]
    assert max(live) <= 3 * window  # two windows, three in the step at an edge
    assert np.mean(live) <= 2 * window
    assert max(new[1:]) <= 2 * window


def test_the_numbers_of_stream_are_a_format_and_never_change() -> None:
    sampler = ElasticBatchSampler(of_sizes(*[10] * 20), 8, seed=1, order="stream", lanes=4, window=2)
    assert sampler.batch_at(0, 0) == [93, 98, 176, 172, 114, 115, 121, 129]
    assert sampler.batch_at(3, 7) == [80, 155, 24, 160, 116, 186, 127, 122]
    big = ElasticBatchSampler(of_sizes(*[70_000] * 6), 8, seed=1, order="stream", lanes=1, window=2)
    assert big.batch_at(1, 12345) == [108804, 415553, 386107, 350759, 12705, 353503, 160210, 204237]


def test_seed_and_epoch_each_change_the_order() -> None:
    orders = set()
    for seed in range(10):
        sampler = ElasticBatchSampler(of_sizes(*[20] * 30), 60, seed=seed, order="stream")
        orders |= {tuple(sampler.batch_at(epoch, 0)) for epoch in range(10)}
    assert len(orders) == 100


def test_lanes_are_as_many_as_batch_and_shards_allow() -> None:
    assert usable_lanes(64, batch_size=256, shards=1000) == 64
    assert usable_lanes(64, batch_size=96, shards=1000) == 32
    assert usable_lanes(64, batch_size=256, shards=100) == 16
    assert usable_lanes(64, batch_size=255, shards=1000) == 1
    assert usable_lanes(48, batch_size=256, shards=3) == 1


@pytest.mark.parametrize(("field", "other"), [("lanes", {"lanes": 2}), ("window", {"window": 3})])
def test_a_state_of_other_lanes_is_refused_where_they_were_asked_for(field: str, other: dict[str, int]) -> None:
    shards = of_sizes(*[20] * 40)
    saved = ElasticBatchSampler(shards, 8, order="stream", lanes=4, window=2).position()
    usual = ElasticBatchSampler(shards, 8, order="stream")
    usual.restore(saved)
    assert usual.position() == saved
    with pytest.raises(StateMismatchError, match=f"its {field} is"):
        ElasticBatchSampler(shards, 8, order="stream", **other).restore(saved)  # type: ignore[arg-type]


def test_a_state_of_other_shards_is_refused() -> None:
    saved = ElasticBatchSampler(of_sizes(*[20] * 40), 8, order="stream").position()
    with pytest.raises(StateMismatchError, match="its shards is"):
        ElasticBatchSampler(of_sizes(*[10, 30] * 20), 8, order="stream").restore(saved)


def test_stream_needs_shards() -> None:
    class Flat:
        fingerprint = "x"

        def __len__(self) -> int:
            return 10

    with pytest.raises(ValueError, match="needs the data set's shard_starts"):
        ElasticBatchSampler(Flat(), 2, order="stream")
    assert ElasticBatchSampler(Flat(), 2, order="auto").position()["order"] == "full"


def test_auto_is_chosen_when_an_epoch_starts_and_kept_by_the_state() -> None:
    class Remote(Shards):
        is_local = False

    shards = Remote(of_sizes(*[100] * 40).shard_starts)
    sampler = ElasticBatchSampler(shards, 8, order="auto")
    sampler.seek(0, 5)
    saved = sampler.position()
    assert saved["order"] == "stream"
    Remote.is_local = True  # the first epoch has loaded it
    sampler.seek(0, 6)
    assert sampler.position()["order"] == "stream"
    resumed = ElasticBatchSampler(shards, 8, order="auto")
    assert resumed.position()["order"] == "runs"
    resumed.restore(saved)
    assert resumed.position() == saved
    assert next(iter(resumed)) == sampler.batch_at(0, 5)
    resumed.set_epoch(1)
    assert resumed.position()["order"] == "runs"
