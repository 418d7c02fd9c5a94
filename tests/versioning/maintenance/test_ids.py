from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from versioning.maintenance.ids import IdSet, ids_of, ids_with_sizes
from versioning.maintenance.keys import ObjectKind, ids_of_keys

# few first bytes and few second words, so that ids share buckets and their first 64 bits
_ids = st.builds(
    lambda head, middle, tail: bytes([head]) + bytes(6) + bytes([middle]) + bytes(7) + bytes([tail]) + bytes(16),
    st.integers(0, 255),
    st.integers(0, 1),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_ids, max_size=30), max_size=20))
def test_a_set_of_ids_is_a_set(batches: list[list[bytes]]) -> None:
    import versioning.maintenance.ids as module

    loose, module._LOOSE_IDS = module._LOOSE_IDS, 8
    try:
        found, model = IdSet(), set[bytes]()
        for batch in batches:
            before = set(model)
            expected = []
            for each in batch:
                expected.append(each not in model)
                model.add(each)
            assert found.contains(ids_of(batch)).tolist() == [each in before for each in batch]
            assert found.add(ids_of(batch)).tolist() == expected
            assert len(found) == len(model)
        everything = sorted({each for batch in batches for each in batch})
        assert found.contains(ids_of(everything)).all()
    finally:
        module._LOOSE_IDS = loose


def test_a_million_ids_take_sixteen_bytes_each_and_little_more_on_the_way() -> None:
    count, batch = 1_000_000, 50_000
    generator = np.random.default_rng(1)
    tracemalloc.start()
    try:
        found = IdSet()
        for _ in range(count // batch):
            found.add(generator.integers(0, 256, (batch, 32), np.uint8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found), found.nbytes) == (count, 16 * count)
    assert peak < 32 * count  # less than the ids themselves


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**60), st.integers(0, 2**60))
def test_ids_with_other_sizes_are_others(identity: bytes, size: int, other: int) -> None:
    both = ids_with_sizes(ids_of([identity, identity]), np.array([size, other]))
    assert (both[0].tobytes() == both[1].tobytes()) == (size == other)


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.sampled_from(ObjectKind)), max_size=10), st.text())
def test_keys_and_ids_are_two_ways_to_say_the_same(objects: list[tuple[bytes, ObjectKind]], other: str) -> None:
    texts = [f"repo/{kind.key(identity)}" for identity, kind in objects]
    keys = pa.array(
        [*texts, other.replace("\0", "").encode("utf-8", "replace").decode(), "repo/packs/00/" + "g" * 64 + ".tar"]
    )
    for kind in ObjectKind:
        mask, ids = ids_of_keys(keys, kind, prefix="repo/")
        assert mask.tolist() == [each is kind for _, each in objects] + [False, False]
        assert [row.tobytes() for row in ids] == [identity for identity, each in objects if each is kind]
