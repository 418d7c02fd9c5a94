from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import AUTHOR, applied, change_sets, entry, entry_maps, tiny_repository
from versioning import ChangeSet, CommitId, Entry, MergeConflictError, MergeOptions, Repository
from versioning.ancestry import merge_bases

OURS = MergeOptions(strategy="ours", fast_forward="never")


def commit(repository: Repository, branch: str, change: ChangeSet) -> CommitId:
    return repository.commit_changes(
        branch, change, message="m", author=AUTHOR, base=repository.head(branch), allow_empty=True
    )


def crossed(root: ChangeSet, left: ChangeSet, right: ChangeSet) -> Repository:
    """Two branches that merged each other at the same time; where they met in conflict, each kept its own."""
    repository = tiny_repository()
    repository.create_branch("left", commit(repository, "root", root))
    repository.create_branch("right", repository.resolve("root"))
    for branch, change in (("left", left), ("right", right)):
        commit(repository, branch, change)
    cross(repository)
    return repository


def cross(repository: Repository) -> None:
    ours, theirs = repository.resolve("left"), repository.resolve("right")
    repository.merge(theirs, "left", author=AUTHOR, options=OURS)
    repository.merge(ours, "right", author=AUTHOR, options=OURS)
    heads = [repository.resolve(name) for name in ("left", "right")]
    assert len(merge_bases(repository.commits, heads[:1], heads[1:])) == 2


def sizes(repository: Repository, branch: str) -> dict[str, int]:
    return {each.path: each.size for each in repository.tree(branch).entries()}


def test_a_criss_cross_that_agrees_is_merged() -> None:
    repository = crossed(
        ChangeSet.of([entry("a", 1), entry("b", 1)]), ChangeSet.of([entry("a", 2)]), ChangeSet.of([entry("b", 2)])
    )
    commit(repository, "left", ChangeSet.of([entry("b", 3)]))
    commit(repository, "right", ChangeSet.of([entry("new", 1)]))
    repository.merge(repository.resolve("right"), "left", author=AUTHOR)
    assert sizes(repository, "left") == {"a": 2, "b": 3, "new": 1}


def test_one_base_alone_would_have_undone_a_change_silently() -> None:
    """Both merges kept their own `a`: each of the two bases calls one of the contents old."""
    repository = crossed(ChangeSet.of([entry("a", 1)]), ChangeSet.of([entry("a", 2)]), ChangeSet.of([entry("a", 3)]))
    with pytest.raises(MergeConflictError, match="a"):
        repository.merge(repository.resolve("right"), "left", author=AUTHOR)
    commit(repository, "right", ChangeSet.of([entry("b", 1)]))
    for source, into in (("right", "left"), ("left", "right")):
        with pytest.raises(MergeConflictError) as raised:
            repository.merge(repository.resolve(source), into, author=AUTHOR)
        assert raised.value.conflicts["path"].to_pylist() == ["a"]
    commit(repository, "right", ChangeSet.of([entry("a", 2)]))
    repository.merge(repository.resolve("right"), "left", author=AUTHOR)
    assert sizes(repository, "left") == {"a": 2, "b": 1}


def test_a_deletion_that_crossed_a_change_is_in_conflict_again() -> None:
    repository = crossed(ChangeSet.of([entry("a", 1)]), ChangeSet.of([], ["a"]), ChangeSet.of([entry("a", 3)]))
    assert (sizes(repository, "left"), sizes(repository, "right")) == ({}, {"a": 3})
    with pytest.raises(MergeConflictError) as raised:
        repository.merge(repository.resolve("right"), "left", author=AUTHOR)
    assert raised.value.conflicts.to_pylist()[0]["ours"] == "D"
    commit(repository, "right", ChangeSet.of([], ["a"]))
    assert repository.merge(repository.resolve("right"), "left", author=AUTHOR).kind == "merged"
    assert sizes(repository, "left") == {}


def test_many_crosses_on_crosses_end() -> None:
    repository = crossed(ChangeSet.of([entry("a", 1)]), ChangeSet.of([entry("a", 2)]), ChangeSet.of([entry("a", 3)]))
    for number in range(15):
        commit(repository, "left", ChangeSet.of([entry(f"l{number}", 1)]))
        commit(repository, "right", ChangeSet.of([entry(f"r{number}", 1)]))
        cross(repository)
    commit(repository, "right", ChangeSet.of([entry("a", 2)]))
    repository.merge(repository.resolve("right"), "left", author=AUTHOR)
    assert len(sizes(repository, "left")) == 31


@settings(max_examples=50, deadline=None)
@given(st.data(), entry_maps(30))
def test_a_merge_over_a_criss_cross_drops_no_change_silently(data: st.DataObject, base: dict[str, Entry]) -> None:
    """Each path of the result is on a side, and where both sides differ it is not what both sides started from."""
    root = ChangeSet.of(base.values())
    repository = crossed(root, data.draw(change_sets(base)), data.draw(change_sets(base)))
    models: dict[str, dict[str, Entry]] = {}
    for branch in ("left", "right"):
        model = {each.path: each for each in repository.tree(branch).entries()}
        change = data.draw(change_sets(model, max_size=10))
        commit(repository, branch, change)
        models[branch] = applied(model, change)
    left, right = repository.resolve("left"), repository.resolve("right")
    known = [
        {each.path: each.oid for each in repository.tree_of(identity).entries()}
        for identity in merge_bases(repository.commits, [left], [right])
    ]
    plan, mirrored = repository.plan_merge(right, left), repository.plan_merge(left, right)
    conflicts = set(plan.conflicts["path"].to_pylist())
    assert conflicts == set(mirrored.conflicts["path"].to_pylist())
    ours, theirs = models["left"], models["right"]
    result = applied(ours, plan.changes)
    contents = {path: each.oid for path, each in result.items()}
    for path in (ours.keys() | theirs.keys()) - conflicts:
        sides = [side[path].oid if path in side else None for side in (ours, theirs)]
        assert contents.get(path) in sides
        dropped = [side for side in sides if side != contents.get(path)]
        # What was dropped is what one of the bases had, so the other side has changed it since.
        assert all(
            any(base_of.get(path) == side for base_of in known) or side in {_oid(base, path)} for side in dropped
        )
    swapped = applied(theirs, mirrored.changes)
    assert {path: each.oid for path, each in swapped.items() if path not in conflicts} == {
        path: oid for path, oid in contents.items() if path not in conflicts
    }


def _oid(model: dict[str, Entry], path: str) -> bytes | None:
    return model[path].oid if path in model else None
