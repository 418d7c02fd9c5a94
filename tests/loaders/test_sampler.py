from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.errors import IterationError, NoSamplesError, StateMismatchError
from loaders.order import Order
from loaders.resume import ResumableLoader
from loaders.sampler import ElasticBatchSampler, rank_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaders.ordering.tails import Tail


@dataclass(frozen=True)
class Samples:
    n: int
    fingerprint: str = "abc"

    def __len__(self) -> int:
        return self.n


def ranks(n: int, batch: int, world: int, *, drop_last: bool = False, step: int = 0) -> list[list[list[int]]]:
    every = []
    for rank in range(world):
        sampler = ElasticBatchSampler(Samples(n), batch, seed=3, rank=rank, world_size=world, drop_last=drop_last)
        sampler.seek(2, step)
        every.append(list(sampler))
    return every


def joined(every: list[list[list[int]]]) -> list[list[int]]:
    return [[sample for part in step for sample in part] for step in zip(*every, strict=True)]


sizes = st.tuples(st.integers(1, 300), st.integers(1, 12), st.sampled_from([1, 2, 3, 4, 8]))


@given(sizes=sizes)
def test_every_sample_is_delivered_once_but_for_counted_repeats(sizes: tuple[int, int, int]) -> None:
    n, per_rank, world = sizes
    every = ranks(n, per_rank * world, world)
    order = Order(n, 3, 2).indices(0, n).tolist()
    delivered = [sample for step in joined(every) for sample in step]
    assert delivered[:n] == order
    assert len(delivered) - n < world
    assert delivered[n:] == (order * world)[: len(delivered) - n]


@given(sizes=sizes)
def test_all_ranks_take_the_same_steps_of_the_same_size(sizes: tuple[int, int, int]) -> None:
    n, per_rank, world = sizes
    shapes = {tuple(len(batch) for batch in rank) for rank in ranks(n, per_rank * world, world)}
    assert len(shapes) == 1
    assert len(ElasticBatchSampler(Samples(n), per_rank * world, world_size=world)) == len(shapes.pop())


@given(sizes=sizes, drop_last=st.booleans())
def test_every_world_size_sees_the_same_whole_batches(sizes: tuple[int, int, int], drop_last: bool) -> None:
    n, per_rank, world = sizes
    batch = per_rank * world
    n += batch
    whole = n // batch
    assert joined(ranks(n, batch, world, drop_last=drop_last))[:whole] == ranks(n, batch, 1)[0][:whole]


@given(n=st.integers(1, 20_000), batch=st.integers(1, 6000))
def test_blocks_do_not_show(n: int, batch: int) -> None:
    sampler = ElasticBatchSampler(Samples(n), batch, seed=1)
    order = Order(n, 1, 0).indices(0, n).tolist()
    assert list(sampler) == [order[i : i + batch] for i in range(0, n, batch)]


def test_drop_last_drops_less_than_a_batch() -> None:
    assert [len(batch) for batch in ElasticBatchSampler(Samples(10), 4, drop_last=True)] == [4, 4]


def test_fewer_samples_than_ranks_are_repeated() -> None:
    every = ranks(2, 8, 8)
    assert [len(rank[0]) for rank in every] == [1] * 8
    assert {rank[0][0] for rank in every} == {0, 1}


@pytest.mark.parametrize("world", [1, 2, 4])
def test_resume_at_every_step_and_world_size_equals_the_unbroken_run(world: int) -> None:
    unbroken = joined(ranks(103, 8, 1))
    for step in range(len(unbroken)):
        resumed = joined(ranks(103, 8, world, step=step))
        assert [batch[: len(unbroken[step + i])] for i, batch in enumerate(resumed)] == unbroken[step:]


def test_the_state_is_small_json_and_the_same_on_every_rank() -> None:
    states = []
    for rank in range(4):
        sampler = ElasticBatchSampler(Samples(10**9), 64, seed=5, rank=rank, world_size=4)
        sampler.seek(3, 1_000_000)
        states.append(json.dumps(sampler.position()))
    assert len(set(states)) == 1
    assert len(states[0]) < 300


def test_a_state_of_a_huge_epoch_loads_at_once() -> None:
    sampler = ElasticBatchSampler(Samples(10**15), 64, seed=5)
    sampler.seek(3, 10**12)
    other = ElasticBatchSampler(Samples(10**15), 64, seed=5, rank=1, world_size=2)
    other.restore(json.loads(json.dumps(sampler.position())))
    assert next(iter(other)) == next(iter(sampler))[32:]


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("samples", ElasticBatchSampler(Samples(100, "xyz"), 8, seed=5)),
        ("batch_size", ElasticBatchSampler(Samples(100), 4, seed=5)),
        ("seed", ElasticBatchSampler(Samples(100), 8, seed=6)),
        ("order", ElasticBatchSampler(Samples(100), 8, seed=5, order="runs")),
        ("tail", ElasticBatchSampler(Samples(100), 8, seed=5, drop_last=True)),
    ],
)
def test_a_state_of_another_order_is_refused_and_changes_nothing(field: str, other: ElasticBatchSampler) -> None:
    sampler = ElasticBatchSampler(Samples(100), 8, seed=5)
    sampler.seek(1, 2)
    state = other.position()
    with pytest.raises(StateMismatchError, match=f"its {field} is") as caught:
        sampler.restore(state)
    assert caught.value.field == field
    assert (sampler.epoch, sampler.step) == (1, 2)


def test_a_state_of_another_version_is_refused() -> None:
    sampler = ElasticBatchSampler(Samples(100), 8)
    with pytest.raises(StateMismatchError, match="its version is 99"):
        sampler.restore({**sampler.position(), "version": 99})


def test_set_epoch_starts_another_epoch_and_leaves_a_resumed_one_alone() -> None:
    sampler = ElasticBatchSampler(Samples(100), 8)
    sampler.seek(1, 5)
    sampler.set_epoch(1)
    assert (sampler.epoch, sampler.step) == (1, 5)
    sampler.set_epoch(2)
    assert (sampler.epoch, sampler.step) == (2, 0)


def test_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    sampler = ElasticBatchSampler(Samples(100), 8)
    sampler.seek(1, len(sampler))
    assert (sampler.epoch, sampler.step) == (2, 0)
    with pytest.raises(ValueError, match="step 14 is outside of an epoch of 13 steps"):
        sampler.seek(1, 14)


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be shared equally by 3 ranks"):
        ElasticBatchSampler(Samples(100), 8, world_size=3)
    with pytest.raises(ValueError, match="rank 2 is not in"):
        ElasticBatchSampler(Samples(100), 8, rank=2, world_size=2)
    with pytest.raises(NoSamplesError, match="no samples"):
        ElasticBatchSampler(Samples(0), 8)
    with pytest.raises(NoSamplesError, match="5 samples do not fill one global batch of 8"):
        ElasticBatchSampler(Samples(5), 8, drop_last=True)


def test_a_state_of_version_1_is_resumed() -> None:
    saved = {
        "version": 1,
        "samples": "abc",
        "batch_size": 8,
        "drop_last": True,
        "order": "runs",
        "seed": 5,
        "epoch": 3,
        "step": 7,
    }
    sampler = ElasticBatchSampler(Samples(100), 8, seed=5, order="runs", drop_last=True)
    sampler.restore(saved)
    assert (sampler.epoch, sampler.step) == (3, 7)
    assert next(iter(sampler)) == Order(100, 5, 3, "runs").indices(56, 64).tolist()
    with pytest.raises(StateMismatchError, match="its tail is 'drop', here it is 'pad'"):
        ElasticBatchSampler(Samples(100), 8, seed=5, order="runs").restore(saved)


@pytest.mark.parametrize("step", [-1, 13, 99])
def test_a_state_of_no_step_is_refused_and_changes_nothing(step: int) -> None:
    sampler = ElasticBatchSampler(Samples(100), 8, order="auto")
    with pytest.raises(ValueError, match=f"names step {step} of epoch 0; an epoch has 13 steps"):
        sampler.restore({**sampler.position(), "step": step})
    assert (sampler.epoch, sampler.step) == (0, 0)


@given(n=st.integers(1, 200), world=st.sampled_from([1, 2, 3, 4, 8]), per_rank=st.integers(1, 6))
def test_tails_deliver_what_is_left(n: int, world: int, per_rank: int) -> None:
    batch = per_rank * world
    whole, rest = divmod(n, batch)
    if not rest:
        return
    order = Order(n, 3, 0).indices(0, n).tolist()
    lasts = {}
    tails: tuple[Tail, ...] = ("pad", "fill", "exact")
    for tail in tails:
        samplers = [
            ElasticBatchSampler(Samples(n), batch, seed=3, rank=rank, world_size=world, tail=tail)
            for rank in range(world)
        ]
        lasts[tail] = [sampler.batch_at(0, whole) for sampler in samplers]
        masks = [sampler.mask_at(0, whole).tolist() for sampler in samplers]
        assert [list(map(len, each)) for each in (masks, lasts[tail])] == [list(map(len, lasts[tail]))] * 2
        flat = [sample for part in lasts[tail] for sample in part]
        mask = [real for part in masks for real in part]
        assert [sample for sample, real in zip(flat, mask, strict=True) if real] == order[whole * batch :]
        assert flat == (order[whole * batch :] + order * batch)[: len(flat)]
        assert {tuple(sampler.mask_at(0, step)) for sampler in samplers for step in range(whole)} <= {
            (True,) * per_rank
        }
    assert {len(part) for part in lasts["fill"]} == {per_rank}
    assert len({len(part) for part in lasts["pad"]}) == 1
    assert max(map(len, lasts["exact"])) - min(map(len, lasts["exact"])) <= 1


def test_the_mask_of_a_loader_is_that_of_the_batch_delivered_last() -> None:
    @dataclass
    class Loader:
        batch_sampler: ElasticBatchSampler

        def __iter__(self) -> Iterator[list[int]]:
            return iter(list(self.batch_sampler))  # asks for all batches before it delivers one

    loader = ResumableLoader(Loader(ElasticBatchSampler(Samples(10), 4, tail="fill")))
    masks = [loader.mask.tolist() for _ in loader]
    assert masks == [[True] * 4, [True] * 4, [True, True, False, False]]


@dataclass
class Direct:
    batch_sampler: ElasticBatchSampler

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batch_sampler)


def test_a_resumable_loader_counts_one_iteration_at_a_time() -> None:
    loader = ResumableLoader(Direct(ElasticBatchSampler(Samples(20), 4)))
    first = iter(loader)
    next(first)
    second = iter(loader)
    next(second)
    with pytest.raises(IterationError, match="one loader for each loop"):
        next(first)
    loader.set_epoch(4)
    with pytest.raises(IterationError, match="its position changed"):
        next(second)
    assert (loader.state_dict()["epoch"], loader.state_dict()["step"]) == (4, 0)
    assert len(list(loader)) == 5


def test_tail_and_drop_last_agree() -> None:
    assert ElasticBatchSampler(Samples(10), 4, tail="drop").drop_last
    assert ElasticBatchSampler(Samples(10), 4, drop_last=True).tail == "drop"
    with pytest.raises(ValueError, match="drop_last=True drops what tail='pad' delivers"):
        ElasticBatchSampler(Samples(10), 4, drop_last=True, tail="pad")
    with pytest.raises(ValueError, match="unknown tail 'cut'"):
        ElasticBatchSampler(Samples(10), 4, tail="cut")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lanes is 0"):
        ElasticBatchSampler(Samples(10), 4, lanes=0)


def test_rank_and_world_size_come_from_the_environment_when_asked() -> None:
    assert rank_options({}) == {"rank": 0, "world_size": 1}
    assert rank_options({"RANK": "3", "WORLD_SIZE": "8", "HOME": "/"}) == {"rank": 3, "world_size": 8}
    sampler = ElasticBatchSampler(Samples(100), 8, **rank_options({"RANK": "1", "WORLD_SIZE": "2"}))
    assert (sampler.rank, sampler.world_size) == (1, 2)
    for wrong in ({"RANK": "3"}, {"RANK": "x", "WORLD_SIZE": "8"}):
        with pytest.raises(ValueError, match="expected RANK and WORLD_SIZE as numbers"):
            rank_options(wrong)
