"""A merge, a revert and a cherry-pick die at each of their requests; whatever was acknowledged stays."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from sources import SourceUnavailableError
from tests.versioning.samples import AUTHOR, TINY, entry, tiny_repository
from tests.versioning.stores import FailingStore, MemoryStore
from versioning import ChangeSet, CommitId, MergeOptions, NothingToCommitError, Repository, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = RetryPolicy(deadline_seconds=5, first_seconds=0.001, cap_seconds=0.001)


def _prepared(store: MemoryStore) -> tuple[CommitId, CommitId]:
    """Main and side of a repository, which both have commits of their own."""
    repository = tiny_repository(store)
    base: CommitId | None = None
    for number in range(2):
        change = ChangeSet.of([entry(f"{number}/{each:02d}", number) for each in range(12)])
        base = repository.commit_changes("main", change, message="m", author=AUTHOR, base=base)
    assert base is not None
    repository.create_branch("side", base)
    side = repository.commit_changes(
        "side", ChangeSet.of([entry("s", 1)], ["0/03"]), message="s", author=AUTHOR, base=base
    )
    main = repository.commit_changes("main", ChangeSet.of([entry("m", 1)]), message="m", author=AUTHOR, base=base)
    return main, side


WORK: dict[str, Callable[[Repository, CommitId], object]] = {
    "merge": lambda repository, side: repository.merge(side, "main", author=AUTHOR),
    "squash": lambda repository, side: repository.merge(side, "main", author=AUTHOR, options=MergeOptions(squash=True)),
    "cherry-pick": lambda repository, side: repository.cherry_pick(side, "main", author=AUTHOR),
    "revert": lambda repository, side: repository.revert(repository.resolve("main"), "main", author=AUTHOR),
    "reset": lambda repository, side: repository.move_branch("main", side, force=True),
    "rename": lambda repository, side: repository.rename_branch("main", "renamed"),
    "protect": lambda repository, side: repository.protect_branch("main"),
}


def _check(repository: Repository, main: CommitId, side: CommitId) -> None:
    """The branches are there, every commit of theirs is whole, and what main had is found."""
    branches = repository.branches()
    assert branches["side"] == side
    named = [branches[name] for name in ("main", "renamed") if name in branches]
    assert named
    for head in named:
        history = [identity for identity, _ in repository.log(head)]
        assert main in history or head == side
        for identity in history:
            commit = repository.commit(identity)
            assert sum(table.num_rows for table in repository.tree_of(identity).scan()) == commit.stats.files


@pytest.mark.parametrize("after_effect", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("kind", WORK)
def test_a_crash_at_any_write_leaves_a_repository_that_goes_on(kind: str, after_effect: bool) -> None:
    done = False
    for write in range(1, 100):
        inner = MemoryStore()
        main, side = _prepared(inner)
        store = FailingStore(inner, after_effect=after_effect)
        broken = Repository(store, "repo/", TINY, retry=QUICK)
        store.arm(write)
        try:
            WORK[kind](broken, side)
            done = store.writes < write
        except SourceUnavailableError:
            done = False
        again = Repository(inner, "repo/", TINY, retry=QUICK)
        _check(again, main, side)
        if "main" in again.branches():
            with suppress(NothingToCommitError):
                again.merge(side, "main", author=AUTHOR)
            assert again.tree("main").get("s") is not None
            _check(again, main, side)
        if done:
            return
    raise AssertionError("it never ended")


@pytest.mark.parametrize("after_effect", [False, True], ids=["before the swap", "after the swap"])
@pytest.mark.parametrize("kind", WORK)
def test_one_lost_answer_neither_loses_nor_doubles_it(kind: str, after_effect: bool) -> None:
    whole = MemoryStore()
    _, side = _prepared(whole)
    WORK[kind](expected := Repository(whole, "repo/", TINY), side)
    for swap in range(1, 10):
        store = FailingStore(MemoryStore(), after_effect=after_effect, once=True)
        _, side = _prepared(store.inner)  # type: ignore[arg-type]
        repository = Repository(store, "repo/", TINY, retry=QUICK)
        store.arm(swap, only_swaps=True)
        try:
            WORK[kind](repository, side)
        except SourceUnavailableError:
            # Only moves that are no commit give up at once; nothing changed, and they can be repeated.
            assert kind in ("reset", "rename", "protect")
            assert not after_effect
            store.arm(None)
            continue
        again = Repository(store.inner, "repo/", TINY)
        name = "main" if "main" in expected.branches() else "renamed"
        assert again.branches().keys() == expected.branches().keys()
        assert again.tree(name).id == expected.tree(name).id
        assert len(list(again.log(name))) == len(list(expected.log(name)))
