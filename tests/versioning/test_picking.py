from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import AUTHOR, TINY, change_sets, entry, entry_maps, tiny_repository
from versioning import (
    ChangeSet,
    CommitId,
    Entry,
    MergeConflictError,
    MergeOptions,
    NotFastForwardError,
    NothingToCommitError,
    Repository,
    RevisionNotFoundError,
)

BOB = "Bob <bob@example.org>"


def commit(
    repository: Repository, branch: str, change: ChangeSet, message: str = "m", author: str = AUTHOR
) -> CommitId:
    return repository.commit_changes(
        branch, change, message=message, author=author, base=repository.head(branch), allow_empty=True
    )


def sizes(repository: Repository, branch: str = "main") -> dict[str, int]:
    return {each.path: each.size for each in repository.tree(branch).entries()}


def test_a_revert_undoes_one_commit_and_keeps_the_later_ones() -> None:
    repository = tiny_repository()
    commit(repository, "main", ChangeSet.of([entry("a", 1), entry("gone", 1)]))
    wrong = commit(repository, "main", ChangeSet.of([entry("a", 2), entry("new", 2)], ["gone"]), "wrong\nbody")
    head = commit(repository, "main", ChangeSet.of([entry("later", 3)]))
    result = repository.revert(wrong, "main", author=BOB)
    assert sizes(repository) == {"a": 1, "gone": 1, "later": 3}
    made = repository.commit(result.commit)
    assert (result.kind, made.parents, made.author) == ("reverted", (head,), BOB)
    assert made.message == f'Revert "wrong"\n\nThis reverts commit {wrong}.'
    with pytest.raises(NothingToCommitError):
        repository.revert(wrong, "main", author=BOB)


@settings(max_examples=40, deadline=None)
@given(st.data(), entry_maps(60))
def test_reverting_the_last_commit_gives_the_tree_before_it(data: st.DataObject, base: dict[str, Entry]) -> None:
    repository = tiny_repository()
    first = commit(repository, "main", ChangeSet.of(base.values()))
    second = commit(repository, "main", data.draw(change_sets(base)))
    diff = repository.diff(first, second)
    if not diff:
        with pytest.raises(NothingToCommitError):
            repository.revert(second, "main", author=AUTHOR)
        return
    reverted = repository.revert(second, "main", author=AUTHOR).commit
    assert not repository.diff(first, reverted)
    assert repository.tree_of(reverted).id == repository.tree_of(first).id
    again = repository.cherry_pick(second, "main", author=AUTHOR).commit
    assert repository.tree_of(again).id == repository.tree_of(second).id


def test_a_first_commit_can_be_reverted() -> None:
    repository = tiny_repository()
    first = commit(repository, "main", ChangeSet.of([entry("a")]))
    commit(repository, "main", ChangeSet.of([entry("b", 1)]))
    repository.revert(first, "main", author=AUTHOR)
    assert sizes(repository) == {"b": 1}


def test_a_revert_of_what_changed_since_is_a_conflict() -> None:
    repository = tiny_repository()
    commit(repository, "main", ChangeSet.of([entry("a", 1)]))
    second = commit(repository, "main", ChangeSet.of([entry("a", 2)]))
    head = commit(repository, "main", ChangeSet.of([entry("a", 3)]))
    with pytest.raises(MergeConflictError, match="revert into main: 1 path changed on both sides: a"):
        repository.revert(second, "main", author=AUTHOR)
    assert repository.head("main") == head
    repository.revert(second, "main", author=AUTHOR, options=MergeOptions("theirs"))
    assert sizes(repository) == {"a": 1}


def test_a_cherry_pick_keeps_author_time_message_and_meta() -> None:
    store = tiny_repository().store
    moments = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(1000))
    repository = Repository(store, "repo/", TINY, clock=lambda: next(moments))
    root = commit(repository, "main", ChangeSet.of([entry("a", 1)]))
    repository.create_branch("side", root)
    commit(repository, "side", ChangeSet.of([entry("unwanted", 1)]))
    picked = repository.commit_changes(
        "side", ChangeSet.of([entry("b", 1)]), message="fix", author=AUTHOR, base=repository.head("side"), meta={"k": 1}
    )
    commit(repository, "main", ChangeSet.of([entry("a", 2)]))
    made = repository.commit(repository.cherry_pick(picked, "main", author=BOB).commit)
    source = repository.commit(picked)
    assert sizes(repository) == {"a": 2, "b": 1}
    assert (made.author, made.committer, made.message, dict(made.meta)) == (AUTHOR, BOB, "fix", {"k": 1})
    assert made.authored_at == source.authored_at < source.committed_at < made.committed_at
    assert next(repository.branch_log("main")).author == BOB


def test_a_merge_is_picked_and_reverted_against_the_parent_that_is_named() -> None:
    repository = tiny_repository()
    root = commit(repository, "main", ChangeSet.of([entry("a", 1)]))
    repository.create_branch("side", root)
    repository.create_branch("third", root)
    commit(repository, "main", ChangeSet.of([entry("ours", 1)]))
    side = commit(repository, "side", ChangeSet.of([entry("theirs", 1)]))
    merged = repository.merge(side, "main", author=AUTHOR).commit
    for mainline in (None, 3):
        with pytest.raises(RevisionNotFoundError, match=r"-m N|no parent number 3"):
            repository.revert(merged, "main", author=AUTHOR, mainline=mainline)
    repository.cherry_pick(merged, "third", author=AUTHOR, mainline=2)
    assert sizes(repository, "third") == {"a": 1, "ours": 1}
    repository.revert(merged, "main", author=AUTHOR, mainline=1)
    assert sizes(repository) == {"a": 1, "ours": 1}


def test_a_branch_without_commits_takes_no_picks() -> None:
    repository = tiny_repository()
    first = commit(repository, "main", ChangeSet.of([entry("a")]))
    with pytest.raises(RevisionNotFoundError, match="no commit to apply changes to"):
        repository.cherry_pick(first, "new", author=AUTHOR)


def _diverged() -> tuple[Repository, CommitId, CommitId, CommitId]:
    repository = tiny_repository()
    root = commit(repository, "main", ChangeSet.of([entry("a", 1)]))
    repository.create_branch("side", root)
    ours = commit(repository, "main", ChangeSet.of([entry("b", 1)]))
    return repository, root, ours, commit(repository, "side", ChangeSet.of([entry("c", 1)]))


def test_only_a_fast_forward_refuses_everything_else() -> None:
    repository, root, ours, theirs = _diverged()
    with pytest.raises(NotFastForwardError, match="main has commits that"):
        repository.merge(theirs, "main", author=AUTHOR, options=MergeOptions(fast_forward="only"))
    assert repository.head("main") == ours
    repository.create_branch("behind", root)
    assert repository.merge(ours, "behind", author=AUTHOR, options=MergeOptions(fast_forward="only")).commit == ours


def test_no_fast_forward_makes_a_merge_commit() -> None:
    repository, root, ours, _ = _diverged()
    repository.create_branch("behind", root)
    result = repository.merge(ours, "behind", author=AUTHOR, options=MergeOptions(fast_forward="never"))
    assert result.kind == "merged"
    assert repository.commit(result.commit).parents == (root, ours)
    assert repository.tree_of(result.commit).id == repository.tree_of(ours).id


def test_a_squash_leaves_their_history_out() -> None:
    repository, root, ours, theirs = _diverged()
    result = repository.merge(theirs, "main", author=AUTHOR, options=MergeOptions(squash=True))
    assert result.kind == "squashed"
    assert repository.commit(result.commit).parents == (ours,)
    assert sizes(repository) == {"a": 1, "b": 1, "c": 1}
    repository.create_branch("behind", root)
    result = repository.merge(ours, "behind", author=AUTHOR, options=MergeOptions(squash=True))
    assert repository.commit(result.commit).parents == (root,)
    with pytest.raises(NothingToCommitError):
        repository.merge(theirs, "main", author=AUTHOR, options=MergeOptions(squash=True))


@settings(max_examples=50, deadline=None)
@given(st.data(), entry_maps(50))
def test_a_merge_without_conflicts_has_the_same_content_either_way(data: st.DataObject, base: dict[str, Entry]) -> None:
    repository = tiny_repository()
    root = commit(repository, "left", ChangeSet.of(base.values()))
    repository.create_branch("right", root)
    left = commit(repository, "left", data.draw(change_sets(base)))
    right = commit(repository, "right", data.draw(change_sets(base)))
    plan, mirrored = repository.plan_merge(right, left), repository.plan_merge(left, right)
    assert plan.conflicts["path"] == mirrored.conflicts["path"]
    if plan.conflicts.num_rows:
        return
    one = repository.merge(right, "left", author=AUTHOR).commit
    other = repository.merge(left, "right", author=AUTHOR).commit
    assert not repository.diff(one, other).only("A", "M", "D")
    if not repository.diff(one, other):
        assert repository.tree_of(one).id == repository.tree_of(other).id
