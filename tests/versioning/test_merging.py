from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import (
    AUTHOR,
    applied,
    change_sets,
    directories_of,
    entry,
    entry_maps,
    tiny_repository,
)
from versioning import ChangeSet, CommitId, Entry, MergeConflictError, Repository


def _commit(repository: Repository, branch: str, change: ChangeSet, base: CommitId | None) -> CommitId:
    return repository.commit_changes(
        branch, change, message="m", author=AUTHOR, base=base, allow_empty=True, require_base=True
    )


def _merge_path(base: Entry | None, ours: Entry | None, theirs: Entry | None) -> tuple[Entry | None, bool]:
    """What a merge of one path should give, and whether it is a conflict."""

    def content(each: Entry | None) -> bytes | None:
        return each.oid if each else None

    if content(ours) == content(theirs):  # same content, or gone on both sides
        return (theirs if ours == base else ours), False
    if content(theirs) == content(base):  # they moved it at most
        return ours, False
    if content(ours) == content(base):
        return theirs, False
    return None, True


def clashing(
    conflicting: set[str],
    merged: dict[str, tuple[Entry | None, bool]],
    ours: dict[str, Entry],
    theirs: dict[str, Entry],
) -> set[str]:
    """The paths that would be a file on one side and a directory on the other, conflicts taken for there."""
    there = {path for path, (each, _) in merged.items() if each is not None} | conflicting
    pairs = [(file, path) for path in there for file in directories_of(path) if file in there]
    return {
        each
        for file, path in pairs
        if (file in ours and path in theirs) or (file in theirs and path in ours)
        for each in (file, path)
    }


@settings(max_examples=60, deadline=None)
@given(st.data(), entry_maps(60))
def test_a_merge_does_what_the_same_merge_of_dictionaries_does(data: st.DataObject, base: dict[str, Entry]) -> None:
    repository = tiny_repository()
    root = _commit(repository, "main", ChangeSet.of(base.values()), None)
    repository.create_branch("other", root)
    ours_change, theirs_change = data.draw(change_sets(base)), data.draw(change_sets(base))
    ours, theirs = applied(base, ours_change), applied(base, theirs_change)
    head = _commit(repository, "main", ours_change, root)
    other = _commit(repository, "other", theirs_change, root)
    every = base.keys() | ours.keys() | theirs.keys()
    merged = {path: _merge_path(base.get(path), ours.get(path), theirs.get(path)) for path in every}
    conflicting = {path for path, (_, conflict) in merged.items() if conflict}
    conflicts = sorted(conflicting | clashing(conflicting, merged, ours, theirs), key=str.encode)
    if conflicts:
        with pytest.raises(MergeConflictError) as raised:
            repository.merge(other, "main", author=AUTHOR)
        assert raised.value.conflicts["path"].to_pylist() == conflicts
        assert repository.branches()["main"] == head
        return
    result = repository.merge(other, "main", author=AUTHOR)
    expected = {path: each for path, (each, _) in merged.items() if each is not None}
    assert {each.path: each for each in repository.tree("main").entries()} == expected
    assert result.kind == "merged"
    assert repository.commit(result.commit).parents == (head, other)


def test_a_branch_that_is_behind_is_fast_forwarded() -> None:
    repository = tiny_repository()
    first = _commit(repository, "main", ChangeSet.of([entry("a")]), None)
    repository.create_branch("ahead", first)
    second = _commit(repository, "ahead", ChangeSet.of([entry("b")]), first)
    result = repository.merge(second, "main", author=AUTHOR)
    assert (result.kind, result.commit) == ("fast-forward", second)
    assert repository.merge(first, "main", author=AUTHOR).kind == "up-to-date"
    assert repository.branches() == {"ahead": second, "main": second}


def test_merging_into_a_branch_without_commits_creates_it() -> None:
    repository = tiny_repository()
    first = _commit(repository, "main", ChangeSet.of([entry("a")]), None)
    assert repository.merge(first, "new", author=AUTHOR).kind == "fast-forward"
    assert repository.branches()["new"] == first


def test_a_conflict_names_both_operations() -> None:
    repository = tiny_repository()
    root = _commit(repository, "main", ChangeSet.of([entry("both", 1), entry("gone", 1)]), None)
    repository.create_branch("other", root)
    _commit(repository, "main", ChangeSet.of([entry("both", 2)], ["gone"]), root)
    other = _commit(repository, "other", ChangeSet.of([entry("both", 3), entry("gone", 4), entry("new", 1)]), root)
    with pytest.raises(MergeConflictError, match="2 paths changed on both sides: both, gone") as raised:
        repository.merge(other, "main", author=AUTHOR)
    assert raised.value.conflicts.to_pylist() == [
        {"path": "both", "ours": "M", "theirs": "M", "ours_size": 2, "theirs_size": 3, "clash": None},
        {"path": "gone", "ours": "D", "theirs": "M", "ours_size": None, "theirs_size": 4, "clash": None},
    ]


def test_a_merge_after_a_merge_starts_from_the_newer_base() -> None:
    repository = tiny_repository()
    root = _commit(repository, "main", ChangeSet.of([entry("a", 1)]), None)
    repository.create_branch("other", root)
    _commit(repository, "main", ChangeSet.of([entry("b", 1)]), root)
    other = _commit(repository, "other", ChangeSet.of([entry("a", 2)]), root)
    merged = repository.merge(other, "main", author=AUTHOR).commit
    _commit(repository, "main", ChangeSet.of([entry("a", 3)]), merged)
    later = _commit(repository, "other", ChangeSet.of([entry("c", 1)]), other)
    repository.merge(later, "main", author=AUTHOR)
    assert repository.tree("main").get("a") == entry("a", 3)
    assert repository.tree("main").get("c") == entry("c", 1)


def test_histories_with_nothing_in_common_can_be_merged() -> None:
    repository = tiny_repository()
    first = _commit(repository, "main", ChangeSet.of([entry("a", 1)]), None)
    other = _commit(repository, "other", ChangeSet.of([entry("b", 1)]), None)
    result = repository.merge(other, "main", author=AUTHOR)
    assert [each.path for each in repository.tree_of(result.commit).entries()] == ["a", "b"]
    assert repository.commit(result.commit).parents == (first, other)
