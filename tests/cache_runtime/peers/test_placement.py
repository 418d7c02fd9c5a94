from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_runtime.errors import MembershipError
from cache_runtime.peers.placement import Member, Members, group_of, placement_key, rank, rank_many
from sources import ObjectId, ObjectRef, StoreId, Version

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

names = st.lists(st.text("abcdefgh0123456789-.", min_size=1, max_size=12), min_size=1, max_size=12, unique=True)
ids = st.binary(min_size=16, max_size=16).map(ObjectId)
groups = st.integers(0, 1 << 22)


def members_of(found: list[str], weights: list[float] | None = None) -> Members:
    weights = weights or [1.0]
    return Members(Member(name, f"http://{n}:1", weights[n % len(weights)]) for n, name in enumerate(found))


@given(names, ids, groups, st.integers(1, 14), st.randoms())
def test_candidates_are_distinct_and_do_not_depend_on_the_order_of_the_members(
    found: list[str], object_id: ObjectId, group: int, count: int, picks: random.Random
) -> None:
    shuffled = picks.sample(found, len(found))
    ranked = [member.name for member in rank(members_of(found), object_id, group, count)]
    assert ranked == [member.name for member in rank(members_of(shuffled), object_id, group, count)]
    assert len(set(ranked)) == len(ranked) == min(count, len(found))


@given(names, ids, groups, st.lists(st.floats(0.1, 100), min_size=1, max_size=3))
def test_a_member_that_leaves_changes_the_order_of_no_other(
    found: list[str], object_id: ObjectId, group: int, weights: list[float]
) -> None:
    members = members_of(found, weights)
    ranked = rank(members, object_id, group, len(found))
    for gone in ranked:
        rest = Members(member for member in members if member != gone)
        assert rank(rest, object_id, group, len(found)) == [member for member in ranked if member != gone]


@given(names, st.lists(st.tuples(ids, groups), max_size=30), st.integers(1, 5), st.sampled_from([[1.0], [1.0, 3.0]]))
def test_many_are_ranked_as_one_by_one(
    found: list[str], places: list[tuple[ObjectId, int]], count: int, weights: list[float]
) -> None:
    members = members_of(found, weights)
    assert rank_many(members, places, count) == [rank(members, *place, count) for place in places]


@given(names, ids, groups)
def test_equal_weights_rank_the_same_whatever_they_are(found: list[str], object_id: ObjectId, group: int) -> None:
    order = [member.name for member in rank(members_of(found, [1.0]), object_id, group, 12)]
    assert order == [member.name for member in rank(members_of(found, [7.5]), object_id, group, 12)]
    nearly = members_of(found, [1.0, 1.0 + 1e-12])
    assert order == [member.name for member in rank(nearly, object_id, group, 12)]


def test_nobody_owns_anything_without_members() -> None:
    assert rank(Members(), ObjectId(bytes(16)), 0, 3) == []
    assert rank_many(Members(), [(ObjectId(bytes(16)), 0)], 3) == [[]]


def test_placement_is_that_of_the_first_release() -> None:
    # a change here moves every block of every running cluster
    members = members_of([f"worker-{n}" for n in range(5)], [1.0, 2.0])
    object_id = ObjectId(bytes(range(16)))
    assert [placement_key(object_id, group) for group in (0, 1)] == [3307809424672682345, 5847296397456434287]
    assert ["".join(m.name[-1] for m in rank(members, object_id, group, 5)) for group in range(4)] == [
        "13042",
        "43120",
        "30142",
        "14032",
    ]


def test_the_blocks_of_one_group_stay_together_and_groups_spread() -> None:
    ref = ObjectRef(StoreId("s3://b"), "k", Version("etag:1"), 1 << 40)
    small = ObjectRef(StoreId("s3://b"), "k", Version("etag:1"), 1 << 20)
    assert [group_of(ref, block) for block in (0, 15, 16, 47)] == [0, 0, 1, 2]
    assert group_of(small, 0) == 0
    members = members_of([f"w{n}" for n in range(8)])
    owners = [rank(members, ref.id, group, 1)[0].name for group in range(800)]
    counts = [owners.count(f"w{n}") for n in range(8)]
    assert min(counts) > 70
    assert max(counts) < 130


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_positive_number_is_refused(weight: float) -> None:
    with pytest.raises(MembershipError, match="weight"):
        Members([Member("a", "http://a:1", weight)])


def test_members_of_one_name_are_refused() -> None:
    with pytest.raises(MembershipError, match="same name"):
        Members([Member("a", "http://a:1"), Member("a", "http://b:1")])


def test_members_pickle_and_compare() -> None:
    members = members_of(["b", "a"], [1.0, 2.0])
    copy: Members = pickle.loads(pickle.dumps(members))
    assert copy == members
    assert list(copy) == list(members)
    assert hash(copy) == hash(members)
    assert copy.named("a") == members[0]


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 60), st.integers(0, 1 << 30))
def test_blocks_spread_as_evenly_as_dice_would(workers: int, seed: int) -> None:
    members = members_of([f"worker-{n}" for n in range(workers)])
    keys = numpy.random.default_rng(seed).integers(0, 1 << 64, 40_000, numpy.uint64, endpoint=False)
    counts = numpy.bincount(members.rank_keys(keys, 1)[:, 0], minlength=workers)
    expected = len(keys) / workers
    assert abs(counts - expected).max() < 6 * expected**0.5


def test_the_simulation_finds_even_loads_and_least_moves(tmp_path: Path) -> None:
    simulation = load_benchmark()
    result = simulation.run(workers=30, blocks=1_600_000, sweep_blocks=320_000)
    assert result["equal"]["max_to_mean"] < 1.08
    assert result["weighted"]["max_to_mean"] < 1.12
    assert result["replicas"]["distinct"]
    assert result["replicas"]["max_to_mean"] < 1.12
    assert [row["workers"] for row in result["changes"]] == [4, 10, 30]
    for row in result["changes"]:
        assert row["moved_on_join"] == pytest.approx(row["ideal_join"], rel=0.1)
        assert row["moved_on_leave"] == pytest.approx(row["ideal_leave"], rel=0.1)
        assert row["moved_to_the_new_one"]
        assert row["old_owner_is_next"]
        assert row["only_its_blocks_moved"]
    draw: Callable[[dict[str, Any]], str] = simulation.draw
    assert draw(result).startswith("<svg")


def load_benchmark() -> Any:
    path = Path(__file__).parents[3] / "benchmarks" / "placement.py"
    spec = importlib.util.spec_from_file_location("placement_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
