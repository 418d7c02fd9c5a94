from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.versioning.samples import AUTHOR, TINY, entry, tiny_repository
from tests.versioning.stores import MemoryStore
from versioning import (
    ChangeSet,
    CommitId,
    CorruptRepositoryError,
    LostRaceError,
    NotFastForwardError,
    ProtectedBranchError,
    RefExistsError,
    Repository,
    RevisionNotFoundError,
)

if TYPE_CHECKING:
    from sources import Version


def commit(repository: Repository, branch: str, path: str) -> CommitId:
    return repository.commit_changes(
        branch, ChangeSet.of([entry(path)]), message=path, author=AUTHOR, base=repository.head(branch)
    )


@pytest.fixture(name="repository")
def _repository() -> Repository:
    repository = tiny_repository()
    commit(repository, "main", "a")
    repository.create_branch("side", commit(repository, "main", "b"))
    commit(repository, "main", "c")
    commit(repository, "side", "d")
    return repository


def test_a_protected_branch_only_moves_forward(repository: Repository) -> None:
    assert repository.protect_branch("main")
    assert not repository.protect_branch("main")
    head = repository.resolve("main")
    with pytest.raises(ProtectedBranchError, match="ds branch --unprotect main"):
        repository.delete_branch("main")
    with pytest.raises(ProtectedBranchError):
        repository.rename_branch("main", "other")
    for revision in ("main~1", "side"):
        with pytest.raises(ProtectedBranchError):
            repository.move_branch("main", repository.resolve(revision), force=True)
    assert (repository.head("main"), repository.head("other")) == (head, None)
    commit(repository, "main", "e")
    merged = repository.merge(repository.resolve("side"), "main", author=AUTHOR).commit
    assert repository.branch("main").is_protected
    repository.create_branch("ahead", merged)
    repository.move_branch("main", commit(repository, "ahead", "f"))
    assert repository.protect_branch("main", protected=False)
    repository.move_branch("main", head, force=True)
    repository.delete_branch("main")
    assert repository.head("main") is None


def test_protection_is_one_word_in_the_ref(repository: Repository) -> None:
    key = "repo/refs/heads/main"
    assert "protected" not in json.loads(repository.store.fetch(key)[0])
    repository.protect_branch("main")
    assert json.loads(repository.store.fetch(key)[0])["protected"] is True
    repository.protect_branch("main", protected=False)
    assert "protected" not in json.loads(repository.store.fetch(key)[0])
    actions = [update.action for update in repository.branch("main").reflog()]
    assert actions[:2] == ["branch: no longer protected", "branch: protected"]


def test_a_ref_with_a_strange_protection_is_damaged(repository: Repository) -> None:
    content = json.loads(repository.store.fetch("repo/refs/heads/main")[0])
    repository.store.put("repo/refs/heads/main", json.dumps({**content, "protected": "no"}).encode())
    with pytest.raises(CorruptRepositoryError):
        repository.head("main")


def test_a_branch_moves_back_by_force_only(repository: Repository) -> None:
    head, before = repository.resolve("main"), repository.resolve("main~1")
    with pytest.raises(NotFastForwardError, match="--force"):
        repository.move_branch("main", before)
    assert repository.move_branch("main", before, force=True, author=AUTHOR, action="reset") == head
    assert repository.resolve("main") == before
    assert repository.resolve("main@{1}") == head
    assert repository.move_branch("main", head) == before
    assert repository.move_branch("main", head) == head
    assert repository.move_branch("new", head) is None
    update = next(each for each in repository.branch_log("main") if each.after == before and each.before == head)
    assert (update.author, update.action) == (AUTHOR, f"reset: to {before[:12]}")


def test_a_renamed_branch_keeps_its_commit_and_the_log_of_the_old_name(repository: Repository) -> None:
    head = repository.resolve("side")
    repository.rename_branch("side", "renamed", author=AUTHOR)
    assert (repository.head("side"), repository.head("renamed")) == (None, head)
    assert next(repository.branch_log("side")).action == "branch: renamed to renamed"
    assert next(repository.branch_log("renamed")).action == "branch: renamed from side"
    with pytest.raises(RefExistsError):
        repository.rename_branch("renamed", "main")
    with pytest.raises(RevisionNotFoundError):
        repository.rename_branch("side", "x")


def test_a_rename_that_a_commit_overtakes_leaves_the_old_name_alone() -> None:
    class Overtaking(MemoryStore):
        armed = False

        def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
            if self.armed and key.endswith("heads/side"):
                self.armed = False
                commit(rival, "side", "late")
            return super().swap(key, data, expect=expect)

    store = Overtaking()
    repository = tiny_repository(store)
    rival = Repository(store, "repo/", TINY)
    commit(repository, "side", "a")
    store.armed = True
    with pytest.raises(LostRaceError):
        repository.rename_branch("side", "renamed")
    assert repository.head("renamed") is None
    assert repository.tree("side").get("late") is not None


class SlowStore(MemoryStore):
    """Takes its time for each ref, and counts how many are read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self.gate = threading.Lock()
        self.slow = False

    def fetch(self, key: str) -> tuple[bytes, Version]:
        if not self.slow or "refs/" not in key:
            return super().fetch(key)
        with self.gate:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.gate:
            self.now -= 1
        return super().fetch(key)


def test_many_refs_are_read_several_at_a_time_and_never_too_many() -> None:
    store = SlowStore()
    repository = tiny_repository(store)
    head = commit(repository, "main", "a")
    for number in range(60):
        repository.create_branch(f"b{number:02d}", head)
    store.slow = True
    assert len(repository.branches()) == 61
    assert 8 <= store.most <= 16


def test_a_branch_handle_works_on_its_branch(repository: Repository) -> None:
    side = repository.branch("side")
    assert side.head == repository.resolve("side")
    assert [each.path for each in side.tree().entries()] == ["a", "b", "d"]
    assert [entry.message for _, entry in side.log(limit=2)] == ["d", "b"]
    assert [entry.message for _, entry in side.log("a")] == ["a"]
    with side.transaction(message="more", author=AUTHOR) as transaction:
        transaction.remove("a")
    assert side.head == transaction.committed
    assert repository.branch("none").head is None
    assert not repository.branch("none").is_protected
    with pytest.raises(RevisionNotFoundError):
        repository.branch("none").tree()
