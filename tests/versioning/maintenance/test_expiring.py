from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from sources import SwapLostError
from tests.versioning.maintenance.places import DAY, Clock, ClockedStore, make_repository, packed, reopened
from tests.versioning.samples import AUTHOR
from versioning import ChangeSet, CommitId, CorruptRepositoryError, Repository
from versioning.maintenance import (
    ExpirePolicy,
    check_repository,
    collect_garbage,
    expire_history,
)
from versioning.maintenance.operations import operations
from versioning.shallow import hide, read_shallow

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture
def store() -> ClockedStore:
    return ClockedStore(Clock())


@pytest.fixture
def repository(store: ClockedStore) -> Repository:
    return make_repository(store)


def commits(repository: Repository, store: ClockedStore, count: int, branch: str = "main") -> list[CommitId]:
    """One commit a day."""
    made: list[CommitId] = []
    for _ in range(count):
        base = repository.head(branch)
        number = store.clock.nanoseconds()
        change = ChangeSet.of(packed(repository, {f"{branch}/{number}": b"%d" % number}))
        made.append(repository.commit_changes(branch, change, message="", author=AUTHOR, base=base))
        store.clock.sleep(DAY)
    return made


def log(repository: Repository, rev: str = "main") -> Sequence[CommitId]:
    return [identity for identity, _ in repository.log(rev)]


def collect_all(store: ClockedStore) -> None:
    for _ in range(3):
        store.clock.sleep(9 * DAY)
        collect_garbage(reopened(store))


def is_there(store: ClockedStore, commit: CommitId) -> bool:
    return f"repo/commits/{commit[:2]}/{commit}.json" in store.objects


def test_the_newest_commits_stay_and_the_others_go_with_the_garbage(
    repository: Repository, store: ClockedStore
) -> None:
    made = commits(repository, store, 10)
    report = expire_history(repository, ExpirePolicy(newest=3))
    assert (report.kept, report.hidden) == (3, (made[-4],))
    assert log(repository) == log(reopened(store)) == made[:-4:-1]
    assert repository.commits.read_whole(made[-3]).parents == (made[-4],)  # what its id covers
    collect_all(store)
    assert [is_there(store, each) for each in made] == [False] * 7 + [True] * 3
    again = reopened(store)
    assert log(again) == made[:-4:-1]
    assert again.tree("main").rows == 10
    assert check_repository(again).found == 0
    more = commits(again, store, 2)
    assert log(again) == [*reversed(more), *made[:-4:-1]]


def test_what_is_younger_stays(repository: Repository, store: ClockedStore) -> None:
    made = commits(repository, store, 10)
    since = store.clock() - timedelta(days=4.5)
    assert expire_history(repository, ExpirePolicy(since=since)).kept == 4
    assert log(repository) == made[:-5:-1]
    assert expire_history(repository, ExpirePolicy(since=since)).hidden == ()
    assert expire_history(repository, ExpirePolicy(since=store.clock())).kept == 1  # the head always stays


def test_a_tag_keeps_its_commit_and_on_request_all_behind_it(repository: Repository, store: ClockedStore) -> None:
    made = commits(repository, store, 10)
    repository.create_tag("v1", made[4])
    kept = expire_history(repository, ExpirePolicy(newest=2, tagged_history=True), dry_run=True)
    assert (kept.kept, kept.hidden) == (7, (made[7],))
    assert expire_history(repository, ExpirePolicy(newest=2)).hidden == tuple(sorted((made[3], made[7])))
    collect_all(store)
    again = reopened(store)
    assert (log(again), log(again, "v1")) == (made[:-3:-1], [made[4]])
    assert again.tree("v1").rows == 5
    assert check_repository(again).found == 0


def test_other_branches_keep_what_they_reach(repository: Repository, store: ClockedStore) -> None:
    made = commits(repository, store, 4)
    repository.create_branch("side", made[1])
    side = commits(repository, store, 1, "side")
    expire_history(repository, ExpirePolicy(newest=1), branches=["main"])
    collect_all(store)
    again = reopened(store)
    assert log(again, "side") == [*side, made[1], made[0]]
    assert log(again) == [made[3]]
    assert check_repository(again).found == 0


def test_merges_across_the_boundary_are_tolerated(repository: Repository, store: ClockedStore) -> None:
    made = commits(repository, store, 3)
    repository.create_branch("side", made[0])
    commits(repository, store, 2, "side")
    merged = repository.merge(repository.resolve("side"), "main", author=AUTHOR).commit
    expire_history(repository, ExpirePolicy(newest=2))
    collect_all(store)
    again = reopened(store)
    assert log(again)[0] == merged
    assert check_repository(again).found == 0
    commits(again, store, 1, "side")
    again.merge(again.resolve("side"), "main", author=AUTHOR)
    assert check_repository(again).found == 0


def test_a_dry_run_writes_nothing(repository: Repository, store: ClockedStore) -> None:
    commits(repository, store, 5)
    store.quiet()
    assert expire_history(repository, ExpirePolicy(newest=1), dry_run=True).dry_run
    assert {method for method, _ in store.calls} <= {"list", "fetch", "stat"}


def test_two_expiries_at_once_hide_what_both_hide(repository: Repository, store: ClockedStore) -> None:
    made = commits(repository, store, 6)
    stale = read_shallow(store, "repo/")
    hide(store, "repo/", stale, [made[0]])
    with pytest.raises(SwapLostError):
        hide(store, "repo/", stale, [made[1]])
    expire_history(repository, ExpirePolicy(newest=2))
    assert read_shallow(store, "repo/").hidden == {made[0], made[3]}
    assert [each.kind for each in operations(repository)] == ["expire"]


def test_a_damaged_record_is_noticed(repository: Repository, store: ClockedStore) -> None:
    commits(repository, store, 2)
    for content in (b"", b"[]", b'{"format": 2, "hidden": []}', b'{"format": 1, "hidden": ["x"]}', b'{"format": 1}'):
        store.put("repo/shallow.json", content)
        with pytest.raises(CorruptRepositoryError, match=r"shallow\.json"):
            list(reopened(store).log("main"))
        report = check_repository(reopened(store))
        assert report.findings[0].object == "shallow.json"
