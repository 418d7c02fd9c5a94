from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.versioning.samples import applied, change_sets, entry, entry_maps
from versioning import ChangeSet, CommitId, Entry, Stage, StageUnavailableError
from versioning.staging import _decode, _encode

if TYPE_CHECKING:
    from pathlib import Path

BASE, LATER = CommitId("a" * 64), CommitId("b" * 64)


@given(st.data(), entry_maps(20), st.sampled_from([None, BASE]))
def test_what_is_staged_is_read_back(data: st.DataObject, model: dict[str, Entry], base: CommitId | None) -> None:
    change = data.draw(change_sets(model))
    staged = _decode(_encode(change, base), "stage")
    assert staged.base == base
    assert staged.changes.upserts.equals(change.upserts)
    assert staged.changes.deleted.equals(change.deleted)
    assert applied(model, staged.changes) == applied(model, change)


def test_updates_add_up_on_the_first_base(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "deep" / "stage")
    assert not stage.read().changes
    stage.update(ChangeSet.of([entry("a"), entry("b")]), base=BASE)
    stage.update(ChangeSet.of([entry("c")], ["a"]), base=LATER)
    staged = stage.read()
    assert staged.base == BASE
    assert staged.changes.upserts["path"].to_pylist() == ["b", "c"]
    assert staged.changes.deleted.to_pylist() == ["a"]
    assert sorted(file.name for file in stage.path.parent.iterdir()) == ["stage", "stage.lock"]


def test_a_cleared_stage_takes_a_new_base(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    stage.update(ChangeSet.of([entry("a")]), base=BASE)
    assert stage.clear()
    assert stage.update(ChangeSet.of([entry("b")]), base=LATER).base == LATER


def test_what_was_staged_during_a_commit_stays(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    committed = stage.update(ChangeSet.of([entry("a")]), base=BASE)
    assert stage.read().token == committed.token
    stage.update(ChangeSet.of([entry("b")]), base=BASE)
    assert not stage.clear(committed.token)
    assert stage.read().changes.upserts["path"].to_pylist() == ["a", "b"]


def test_a_stage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StageUnavailableError, match=str(tmp_path)):
        Stage(tmp_path / "file" / "stage").update(ChangeSet.of(), base=None)
