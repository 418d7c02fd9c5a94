from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.versioning.samples import applied, change_sets, entry, entry_maps
from versioning import ChangeSet, Entry, InvalidNameError, entries_table


@given(st.data(), entry_maps(20))
def test_merged_change_sets_do_what_both_do_in_turn(data: st.DataObject, model: dict[str, Entry]) -> None:
    first, second = data.draw(change_sets(model)), data.draw(change_sets(model))
    assert applied(model, first.merged_with(second)) == applied(applied(model, first), second)


def test_an_entry_wins_over_a_deletion_of_its_path() -> None:
    change = ChangeSet.of([entry("b"), entry("a")], ["b", "c", "c"])
    assert change.upserts["path"].to_pylist() == ["a", "b"]
    assert change.deleted.to_pylist() == ["c"]
    assert len(change) == 3
    assert not ChangeSet.of()


def test_a_path_twice_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="'a' cannot be a path: the change set has it twice"):
        ChangeSet.of_table(entries_table([entry("a"), entry("b"), entry("a", 1)]))
