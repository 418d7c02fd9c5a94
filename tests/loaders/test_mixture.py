from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.errors import NoSamplesError, StateMismatchError
from loaders.mixture import Mixture
from loaders.ordering.quotas import MAX_PERIOD, Quotas, whole_weights
from loaders.sampler import ElasticBatchSampler


@dataclass(frozen=True)
class Numbers:
    """Sample i is (name, i), in shards of 7."""

    name: str
    n: int

    def __len__(self) -> int:
        return self.n

    @property
    def fingerprint(self) -> str:
        return self.name

    @property
    def shard_starts(self) -> npt.NDArray[np.int64]:
        return np.minimum(np.arange(0, self.n + 7, 7), self.n)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.name, index


def mixture(**sources: tuple[int, float]) -> Mixture:
    return Mixture({name: (Numbers(name, n), weight) for name, (n, weight) in sources.items()})


weights = st.lists(st.one_of(st.integers(0, 50), st.floats(0, 10)), min_size=1, max_size=8).filter(any)


def by_largest_deficit(weights: list[int], slots: int) -> list[int]:
    """The rule itself, slot by slot."""
    total = sum(weights)
    given = [0] * len(weights)
    chosen = []
    for slot in range(1, slots + 1):
        owed = [Fraction(weight * slot, total) - count for weight, count in zip(weights, given, strict=True)]
        chosen.append(max(range(len(weights)), key=lambda number: (owed[number], -number)))
        given[chosen[-1]] += 1
    return chosen


@given(weights=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any), start=st.integers(0, 300))
def test_the_source_of_a_slot_is_the_one_that_is_owed_most(weights: list[int], start: int) -> None:
    slots = Quotas([(0, weights)]).at(np.arange(start, start + 50))
    model = by_largest_deficit(weights, start + 50)
    assert slots.source.tolist() == model[start:]
    assert slots.before.tolist() == [model[:slot].count(model[slot]) for slot in range(start, start + 50)]


@given(weights=weights)
def test_quotas_are_exact_in_every_period_and_nobody_is_a_sample_ahead(weights: list[float]) -> None:
    whole = whole_weights(weights)
    assert sum(whole) <= MAX_PERIOD
    assert [w > 0 for w in whole] == [w > 0 for w in weights]
    quotas = Quotas([(0, weights)])
    assert quotas.counts(3 * sum(whole)).tolist() == [3 * w for w in whole]
    for slots in range(0, sum(whole), 7):
        assert (quotas.counts(slots) - slots * np.array(whole) / sum(whole)).max() < 1


def test_weights_are_whole_numbers() -> None:
    assert whole_weights([0.7, 0.3]) == (7, 3)
    assert whole_weights([2, 4]) == (1, 2)
    assert whole_weights([1281167, 50000]) == (3942, 154)
    assert whole_weights([1, 1e-9, 0]) == (4095, 1, 0)


@given(
    phases=st.lists(st.tuples(st.integers(1, 90), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any))),
    data=st.data(),
)
def test_counts_and_slots_agree_whatever_the_schedule(
    phases: list[tuple[int, list[float]]], data: st.DataObject
) -> None:
    starts = np.cumsum([0, *(length for length, _ in phases)]).tolist()
    weights: list[list[float]] = [[1, 2, 3], *(changed for _, changed in phases)]
    quotas = Quotas(list(zip(starts, weights, strict=True)))
    every = quotas.at(np.arange(starts[-1] + 60))
    assert [int(n) for n in every.before] == [
        every.source[:p].tolist().count(s) for p, s in enumerate(every.source.tolist())
    ]
    slots = data.draw(st.integers(0, len(every.source)))
    assert quotas.counts(slots).tolist() == np.bincount(every.source[:slots], minlength=3).tolist()
    assert quotas.at(np.arange(slots, len(every.source))).source.tolist() == every.source[slots:].tolist()


def test_an_epoch_ends_before_the_first_source_begins_anew() -> None:
    mixed = mixture(web=(700, 0.7), code=(100, 0.3))
    assert mixed.quotas.counts(mixed.epoch_size).tolist() == [235, 100]
    assert mixed.quotas.counts(mixed.epoch_size + 1).tolist() == [235, 101]


def test_or_when_every_source_has_been_through() -> None:
    mixed = Mixture({"web": (Numbers("web", 700), 0.7), "code": (Numbers("code", 100), 0.3)}, stop="all_exhausted")
    assert mixed.epoch_size == 1000
    assert Mixture({"a": (Numbers("a", 5), 1)}, epoch_size=50).epoch_size == 50


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    order=st.sampled_from(["full", "runs", "none", "stream", "auto"]),
    epoch_size=st.integers(48, 200),
)
def test_each_source_goes_through_its_epochs_over_those_of_the_mixture(
    sizes: list[int], weights: list[int], order: str, epoch_size: int
) -> None:
    names = [f"s{number}" for number in range(len(sizes))]
    sources = {name: (Numbers(name, n), w) for name, n, w in zip(names, sizes, weights, strict=False)}
    mixed = Mixture(sources, epoch_size=epoch_size)
    sampler = ElasticBatchSampler(mixed, 16, order=order, tail="exact", seed=4)  # type: ignore[arg-type]
    given = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        given += [sample for batch in sampler for sample in batch]
    samples = mixed.__getitems__(given)
    assert len(samples) == 3 * epoch_size
    for name, n in zip(names, sizes, strict=True):
        mine = [number for source, number in samples if source == name]
        for start in range(0, len(mine), n):
            part = mine[start : start + n]
            assert len(set(part)) == len(part)
    sampler.set_epoch(3)
    counts = Counter(source for source, _ in samples)
    assert counts == {name: c for name, c in sampler.position()["sources"].items() if c}


@pytest.mark.parametrize("order", ["full", "stream"])
def test_every_world_size_and_resume_give_the_same_mixture(order: str) -> None:
    mixed = mixture(web=(700, 0.6), code=(90, 0.25), books=(50, 0.15))

    def sampler(rank: int = 0, world: int = 1) -> ElasticBatchSampler:
        return ElasticBatchSampler(mixed, 24, rank=rank, world_size=world, order=order, tail="exact")  # type: ignore[arg-type]

    alone = sampler()
    alone.set_epoch(2)
    batches = list(alone)
    for step in range(len(batches)):
        saved = sampler()
        saved.seek(2, step)
        state = json.loads(json.dumps(saved.position()))
        assert len(json.dumps(state)) < 500
        world = (1, 2, 4, 6, 12)[step % 5]
        ranks = [sampler(rank, world) for rank in range(world)]
        for rank in ranks:
            rank.restore(state)
        parts = [list(rank) for rank in ranks]
        assert [[s for part in step for s in part] for step in zip(*parts, strict=True)] == batches[step:]


def test_every_batch_has_the_proportions() -> None:
    mixed = mixture(web=(7000, 0.7), code=(3000, 0.2), books=(1000, 0.1))
    for batch in ElasticBatchSampler(mixed, 100, drop_last=True):
        counts = Counter(mixed.source_of(sample)[0] for sample in batch)
        assert counts == {"web": 70, "code": 20, "books": 10}


def test_weights_change_at_a_number_of_delivered_samples() -> None:
    sources = {"easy": (Numbers("easy", 1000), 1.0), "hard": (Numbers("hard", 1000), 0.0)}
    mixed = Mixture(sources, schedule=[(200, {"easy": 1, "hard": 3}), (400, {"easy": 0})], epoch_size=600)
    names = [mixed.source_of(s)[0] for batch in ElasticBatchSampler(mixed, 100) for s in batch]
    assert Counter(names[:200]) == {"easy": 200}
    assert Counter(names[200:400]) == {"easy": 50, "hard": 150}
    assert Counter(names[400:]) == {"hard": 200}


def test_a_run_goes_on_with_a_longer_schedule_but_not_with_another_past() -> None:
    sources = {"a": (Numbers("a", 1000), 1), "b": (Numbers("b", 1000), 1)}
    sampler = ElasticBatchSampler(Mixture(sources, epoch_size=1000), 100)
    sampler.seek(0, 5)
    state = sampler.position()
    assert state["sources"] == {"a": 250, "b": 250}
    longer = ElasticBatchSampler(Mixture(sources, epoch_size=1000, schedule=[(500, {"b": 9})]), 100)
    longer.restore(state)
    assert sum(s < 1000 for s in next(iter(longer))) == 10
    other = ElasticBatchSampler(Mixture(sources, epoch_size=1000, schedule=[(400, {"b": 9})]), 100)
    with pytest.raises(StateMismatchError, match="its sources is"):
        other.restore(state)


def test_a_huge_mixture_starts_and_resumes_at_once() -> None:
    huge = Mixture({"a": (Numbers("a", 10**12), 0.9), "b": (Numbers("b", 1000), 0.1)}, epoch_size=10**12)
    before = time.process_time()
    sampler = ElasticBatchSampler(huge, 64)
    sampler.seek(5, 10**10)
    other = ElasticBatchSampler(huge, 64, rank=1, world_size=2)
    other.restore(json.loads(json.dumps(sampler.position())))
    assert next(iter(other)) == sampler.batch_at(5, 10**10)[32:]
    assert time.process_time() - before < 5


def test_samples_come_from_their_sources() -> None:
    mixed = mixture(a=(10, 1), b=(20, 1))
    assert len(mixed) == 30
    assert mixed[3] == ("a", 3)
    assert mixed[-1] == ("b", 19)
    assert mixed.__getitems__([29, 0, 10, 9]) == [("b", 19), ("a", 0), ("b", 0), ("a", 9)]
    assert mixed.shard_starts is not None
    assert mixed.shard_starts.tolist() == [0, 7, 10, 17, 24, 30]
    with pytest.raises(IndexError, match="sample 30 is outside"):
        mixed[30]


def test_wrong_mixtures_are_refused() -> None:
    a = Numbers("a", 10)
    with pytest.raises(NoSamplesError, match="source 'b' of the mixture has no samples"):
        Mixture({"a": (a, 1), "b": (Numbers("b", 0), 1)})
    with pytest.raises(ValueError, match="not all 0"):
        Mixture({"a": (a, 0)})
    with pytest.raises(ValueError, match="not all 0"):
        Mixture({"a": (a, -1)})
    with pytest.raises(ValueError, match=r"the schedule names \['b'\]"):
        Mixture({"a": (a, 1)}, schedule=[(5, {"b": 1})])
    with pytest.raises(ValueError, match="unknown stop"):
        Mixture({"a": (a, 1)}, stop="never")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is never exhausted"):
        Mixture({"a": (a, 1), "b": (a, 0)}, stop="all_exhausted")
    with pytest.raises(ValueError, match="source 'a' is a Numbers; expected a pair"):
        Mixture({"a": a})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="is a mixture itself"):
        Mixture({"m": (Mixture({"a": (a, 1)}), 1)})
    with pytest.raises(NoSamplesError, match="no data sets"):
        Mixture({})
