from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.mount.epochs import Epochs
from cache_runtime.mount.nodes import (
    MAX_LEVEL,
    MAX_ROWS,
    SLOTS,
    THROUGH,
    ino_in,
    node_id,
    node_ids,
    place_in,
    slot_in,
    slot_of,
)
from cache_runtime.mount.protocol import ROOT_ID
from cache_runtime.mount.view import ROOT, Place
from tests.cache_runtime.mount.views import MemoryView

EPOCHS = st.integers(0, 1 << 20)
ROWS = st.integers(0, MAX_ROWS - 1)
LEVELS = st.integers(0, MAX_LEVEL).filter(lambda level: level != 1)


@given(EPOCHS, ROWS, LEVELS)
def test_an_id_tells_its_place_and_slot(epoch: int, row: int, level: int) -> None:
    node = node_id(slot_of(epoch), Place(row, level))
    for each in (node, node | THROUGH):
        assert place_in(each) == (row, level)
        assert slot_in(each) == slot_of(epoch)
        assert ino_in(each) == node
        assert ROOT_ID < each < 1 << 63


@given(EPOCHS, st.lists(st.tuples(ROWS, LEVELS), min_size=1))
def test_many_ids_are_those_of_each(epoch: int, places: list[tuple[int, int]]) -> None:
    rows, levels = zip(*places, strict=True)
    slot = slot_of(epoch)
    ids = node_ids(slot, np.array(rows, "i8"), np.array(levels, "u2"))
    assert ids.tolist() == [node_id(slot, Place(*place)) for place in places]


def test_the_root_has_the_id_that_the_protocol_gives_it() -> None:
    assert node_id(slot_of(7), ROOT) == ROOT_ID
    assert place_in(ROOT_ID) == ROOT


@given(st.integers(1, 60), st.integers(1, 9))
def test_the_newest_epochs_are_served_and_no_others(changes: int, kept: int) -> None:
    views = [MemoryView({"a": (number, 0)}) for number in range(changes + 1)]
    epochs = Epochs(views[0], kept=kept)
    for view in views[1:]:
        epochs.add(view)
    assert epochs.newest.view is views[-1]
    assert epochs.at(ROOT_ID)[0].view is views[-1]
    for number, view in enumerate(views):
        node = node_id(slot_of(number), Place(0, 0))
        if number > changes - kept:
            assert epochs.at(node)[0].view is view
        else:
            with pytest.raises(OSError, match="Stale"):
                epochs.at(node)
    assert len(epochs) == min(kept, changes + 1)


def test_a_slot_that_comes_again_has_another_generation() -> None:
    view = MemoryView({"a": (1, 0)})
    epochs = Epochs(view, kept=2)
    for _ in range(SLOTS):
        epochs.add(view)
    assert epochs.newest.slot == slot_of(0)
    assert epochs.newest.number == SLOTS


@given(st.integers(0, (1 << 64) - 1))
def test_any_number_is_an_id_or_stale(node: int) -> None:
    epochs = Epochs(MemoryView({"a/b": (1, 0), "c": (2, 0)}))
    if node == ROOT_ID or (slot_in(node) == slot_of(0) and place_in(node).row < 2):
        assert epochs.at(node)[1] == place_in(node)
    else:
        with pytest.raises(OSError, match="Stale"):
            epochs.at(node)
