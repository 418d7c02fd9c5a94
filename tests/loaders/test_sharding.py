import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.errors import DuplicateFieldError
from loaders.sharding import ShardLayout, plan_shards

BLOCK = 512


def table(sizes: dict[str, int]) -> pa.Table:
    paths = sorted(sizes, key=str.encode)
    return pa.table({"path": paths, "size": pa.array([sizes[path] for path in paths], pa.int64())})


def shards(sizes: dict[str, int], layout: ShardLayout) -> list[list[str]]:
    plan = plan_shards(table(sizes), layout)
    return [plan.names[start:stop] for start, stop in plan.shards]


def test_samples_stay_together_in_key_order() -> None:
    sizes = dict.fromkeys(["b.png", "a.png", "a.cls", "b/c.png", "b.cls", "README"], 1)
    assert shards(sizes, ShardLayout()) == [["README", "a.cls", "a.png", "b.cls", "b.png", "b/c.png"]]


def test_stem_joins_directories_and_names_members_by_base_name() -> None:
    sizes = dict.fromkeys(["images/3/17.png", "images/2/18.png", "labels/17.json", "labels/README"], 1)
    assert shards(sizes, ShardLayout(key="stem")) == [["17.json", "17.png", "18.png", "labels/README"]]


def test_a_shard_ends_before_the_sample_that_would_make_it_too_large() -> None:
    sizes = {f"{i}.{field}": 100 for i in range(5) for field in ("x", "y")}
    assert [len(shard) for shard in shards(sizes, ShardLayout(shard_size=8 * BLOCK))] == [4, 4, 2]
    assert [len(shard) for shard in shards(sizes, ShardLayout(shard_size=8 * BLOCK - 1))] == [2, 2, 2, 2, 2]


def test_a_large_sample_is_a_shard_of_its_own() -> None:
    assert shards({"a.x": 1, "b.x": 10_000, "c.x": 1}, ShardLayout(shard_size=2048)) == [["a.x"], ["b.x"], ["c.x"]]


def test_shuffle_moves_whole_samples_and_depends_on_the_seed() -> None:
    sizes = {f"{i:03d}.{field}": 10 for i in range(100) for field in ("cls", "png")}
    orders = [shards(sizes, ShardLayout(shuffle=True, seed=seed))[0] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(sizes)
    assert orders[0] != sorted(orders[0])
    for first, second in zip(orders[0][::2], orders[0][1::2], strict=True):
        assert (first, second) == (first[:3] + ".cls", first[:3] + ".png")


def test_two_paths_for_one_field_are_refused() -> None:
    sizes = dict.fromkeys(["a/1.png", "b/1.png", "a/2.png"], 1)
    with pytest.raises(DuplicateFieldError, match=r"a/1\.png and b/1\.png are both field 'png'") as caught:
        plan_shards(table(sizes), ShardLayout(key="stem"))
    assert caught.value.paths == ("a/1.png", "b/1.png")


def test_nothing_makes_no_shards() -> None:
    plan = plan_shards(table({}), ShardLayout(shuffle=True))
    assert (plan.shards, plan.names, plan.total_bytes) == ([], [], 0)


def test_a_shard_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="shard_size is 0"):
        ShardLayout(shard_size=0)


paths = st.sampled_from([f"{d}{n}{e}" for d in ("", "d/", "e/") for n in "abc" for e in (".x", ".y", "", ".z.x")])
layouts = st.builds(
    ShardLayout, shuffle=st.booleans(), seed=st.integers(0, 3), shard_size=st.integers(1, 20_000), key=st.just("path")
)


@given(sizes=st.dictionaries(paths, st.integers(0, 5000)), layout=layouts, limit=st.integers(1, 9000))
def test_every_file_is_in_one_shard_and_no_sample_in_two(
    sizes: dict[str, int], layout: ShardLayout, limit: int
) -> None:
    plan = plan_shards(table(sizes), layout)
    assert sorted(plan.names) == sorted(sizes)
    assert [stop for _, stop in plan.shards[:-1]] == [start for start, _ in plan.shards[1:]]
    where: dict[str, set[int]] = {}
    for number, (start, stop) in enumerate(plan.shards):
        samples = {name.partition(".")[0] for name in plan.names[start:stop] if "." in name}
        for sample in samples:
            where.setdefault(sample, set()).add(number)
        in_tar = sum(BLOCK + -(-sizes[name] // BLOCK) * BLOCK for name in plan.names[start:stop])
        assert in_tar <= layout.shard_size or len({name.partition(".")[0] for name in plan.names[start:stop]}) == 1
        chunks = list(plan.chunks(start, stop, limit))
        assert [row for first, last in chunks for row in range(first, last)] == list(range(start, stop))
        for first, last in chunks:
            assert sum(sizes[name] for name in plan.names[first:last]) <= limit or last - first == 1
    assert all(len(numbers) == 1 for numbers in where.values())
    assert plan.total_bytes == sum(sizes.values())
    assert plan.rows.dtype == np.int64
