"""Announcements: what the evictors of other processes read is what a plain list says."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.store.coming import Announcements, Expectation, read_coming

if TYPE_CHECKING:
    from pathlib import Path

IDS = [bytes([number]) * 16 for number in range(1, 9)]
STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.sets(st.sampled_from(IDS), min_size=1), st.integers(0, 5), st.sampled_from("arb")),
    max_size=30,
)


@given(STEPS)
def test_the_nearest_use_counts_and_what_is_passed_is_told_last_first(
    steps: list[tuple[int, set[bytes], int, str]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        makers = [Announcements(directory), Announcements(directory)]
        made: list[list[tuple[Expectation, int, str]]] = [[], []]
        ends = [0, 0]
        for maker, ids, size, action in steps:
            if action == "a" or not made[maker]:
                ends[maker] += max(1, size)
                made[maker].append((makers[maker].add(sorted(ids), size), ends[maker], "coming"))
                continue
            place = size % len(made[maker])
            expected, use, state = made[maker][place]
            expected.end(was_read=action == "r")
            if state == "coming":
                made[maker][place] = (expected, use, "passed" if action == "r" else "gone")
        uses: dict[bytes, int] = {}
        ages: dict[bytes, int] = {}
        for rows in made:
            coming = [(use, each.object_ids) for each, use, state in rows if state == "coming"]
            passed = [(use, each.object_ids) for each, use, state in rows if state == "passed"]
            for use, ids_of in coming:
                for object_id in ids_of:
                    distance = use - min(first for first, _ in coming)
                    uses[object_id] = min(uses.get(object_id, distance), distance)
            for use, ids_of in passed:
                for object_id in ids_of:
                    age = max(last for last, _ in passed) - use
                    ages[object_id] = min(ages.get(object_id, age), age)
        found = read_coming(directory)
        assert found.uses == uses
        assert set(found.passed) == ages.keys() - uses.keys()
        assert [ages[object_id] for object_id in found.passed] == sorted(ages[found_id] for found_id in found.passed)
        for announcements in makers:
            announcements.close()
        assert read_coming(directory).uses == {}
        assert not os.path.exists(f"{directory}/announced") or not os.listdir(f"{directory}/announced")


def test_a_child_of_a_fork_neither_holds_nor_ends_what_its_parent_announced(tmp_path: Path) -> None:
    parent = Announcements(str(tmp_path))
    expected = parent.add(IDS[:1], 1)
    child = os.fork()
    if child == 0:
        parent.forget_parent()
        expected.end(was_read=True)
        own = parent.add(IDS[1:2], 1)
        is_right = read_coming(str(tmp_path)).uses.keys() == {IDS[0], IDS[1]} and own is not None
        os._exit(0 if is_right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert read_coming(str(tmp_path)).uses.keys() == {IDS[0]}
    parent.close()


def test_a_ring_that_is_full_forgets_what_was_announced_first(tmp_path: Path) -> None:
    announcements = Announcements(str(tmp_path))
    first = announcements.add(IDS, 1)
    later = [number.to_bytes(16, "little") for number in range(1, 8193)]
    announcements.add(later, 1)
    first.end(was_read=True)  # its rows are others' now
    found = read_coming(str(tmp_path))
    assert found.uses.keys() == set(later)
    assert not found.passed
    announcements.close()
