from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.errors import NoSamplesError
from loaders.mixture import Mixture
from loaders.planning import Group, Plan, entropy, plan
from loaders.sampler import ElasticBatchSampler

if TYPE_CHECKING:
    from pathlib import Path

    from loaders.ordering.choosing import OrderName


@dataclass(frozen=True, eq=False)
class Known:
    """Shards whose sample i has 10 + i % 3 bytes."""

    shard_starts: npt.NDArray[np.int64]
    fingerprint: str = "abc"

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    @property
    def sample_bytes(self) -> npt.NDArray[np.int64]:
        return 10 + np.arange(len(self)) % 3


def shards(count: int, each: int) -> Known:
    return Known(np.arange(count + 1) * each)


def group(found: Plan, kind: str) -> Group:
    return next(each for each in found.groups if each.kind == kind)


def shards_fetched(used: list[set[int]], capacity: int, bytes_of: npt.NDArray[np.int64]) -> int:
    """Count what a cache of whole shards that evicts by next use fetches."""
    held: set[int] = set()
    fetched = 0
    for step, needed in enumerate(used):
        for shard in needed - held:
            fetched += 1
            held.add(shard)

        def next_use(shard: int, after: int = step) -> int:
            return next((later for later in range(after + 1, len(used)) if shard in used[later]), len(used))

        held = {shard for shard in held if next_use(shard) < len(used)} | needed
        while sum(bytes_of[list(held)]) > capacity and held - needed:
            held.remove(max(held - needed, key=next_use))
    return fetched


@given(
    count=st.integers(4, 30),
    each=st.integers(2, 20),
    batch=st.sampled_from([4, 8]),
    order=st.sampled_from(["stream", "full", "none"]),
    lanes=st.sampled_from([1, 2, 4]),
    node=st.sampled_from([1, 2]),
)
def test_with_the_planned_cache_nothing_is_fetched_twice_and_with_less_something_is(
    count: int, each: int, batch: int, order: OrderName, lanes: int, node: int
) -> None:
    known = shards(count, each)
    found = plan(known, batch, world_size=2, ranks_per_node=node, order=order, lanes=lanes, seed=5)
    cache = group(found, "node").cache_bytes_most
    bytes_of = np.add.reduceat(known.sample_bytes, known.shard_starts[:-1])
    worst = 0
    for first in range(0, 2, node):
        ranks = range(first, first + node)
        samplers = [
            ElasticBatchSampler(known, batch, seed=5, order=order, lanes=lanes, rank=rank, world_size=2, drop_last=True)
            for rank in ranks
        ]
        used = [{sample // each for part in step for sample in part} for step in zip(*samplers, strict=True)]
        distinct = len(set().union(*used))
        assert shards_fetched(used, cache, bytes_of) == distinct
        assert distinct <= group(found, "node").shards_most
        peak = max(sum(bytes_of[list(step)]) for step in used)
        if peak < cache and shards_fetched(used, cache - 1, bytes_of) > distinct:
            worst = 1
        worst = max(worst, int(peak == cache))
    assert worst


def test_the_numbers_of_a_small_epoch() -> None:
    found = plan(shards(4, 4), 4, order="none", labels=[0, 1] * 8)
    assert (found.samples, found.simulated, found.steps, found.shards) == (16, 16, 4, 4)
    assert found.first_batch_bytes == 10 + 11 + 12 + 10
    assert (found.classes_mean, found.classes_least) == (2.0, 2)
    assert found.sample_entropy == 0
    total = sum(10 + i % 3 for i in range(16))
    assert group(found, "rank") == Group("rank", 1, 4, total, total, 1, 1.0, 1, 45, 43)


def test_a_rank_of_a_lane_reads_its_part_of_the_shards() -> None:
    found = plan(shards(64, 100), 32, world_size=16, ranks_per_node=4, order="stream", lanes=16)
    assert group(found, "lane").count == 16
    assert group(found, "rank").shards_most <= 64 // 16 + 2
    assert group(found, "node").shards_most <= 64 // 4 + 2
    assert group(found, "rank").used_bytes_most < 1.02 * group(plan(shards(64, 100), 32), "rank").used_bytes_most / 16


def test_entropy_is_that_of_the_distances() -> None:
    assert entropy(np.arange(100)) == 0
    assert entropy(np.array([0, 1, 3, 4, 6])) == 1
    shuffled = plan(shards(100, 100), 10, order="full").sample_entropy
    mixed = plan(shards(100, 100), 10, order="stream", lanes=1).sample_entropy
    assert 0 < mixed < shuffled < np.log2(10_000)


def test_the_plan_is_json_and_a_picture(tmp_path: Path) -> None:
    found = plan(shards(50, 100), 32, order="stream", labels=np.arange(5000) // 500)
    numbers = json.loads(found.to_json())
    assert numbers["order"] == {"order": "stream", "lanes": 8, "window": 11}
    assert {each["kind"] for each in numbers["groups"]} == {"rank", "node", "lane"}
    found.plot(tmp_path / "epoch.svg")
    root = ElementTree.fromstring((tmp_path / "epoch.svg").read_text())
    assert len(root.findall("{*}polygon")) == 4


def test_a_mixture_and_a_part_of_an_epoch_are_planned() -> None:
    mixture = Mixture({"a": (shards(20, 50), 3), "b": (shards(10, 50), 1)})
    found = plan(mixture, 16, world_size=2, order="stream", max_samples=160)
    assert found.simulated == 160
    assert found.samples == mixture.epoch_size
    assert found.shards == 30


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be shared equally by 3 ranks"):
        plan(shards(4, 4), 4, world_size=3)
    with pytest.raises(ValueError, match="has no whole batch of 64"):
        plan(shards(4, 4), 64)
    with pytest.raises(NoSamplesError):
        plan(shards(4, 0), 4)
