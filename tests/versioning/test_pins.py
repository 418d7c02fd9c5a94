from __future__ import annotations

import pytest

from tests.versioning.maintenance.places import DAY, Clock, ClockedStore, make_repository, packed, reopened
from tests.versioning.samples import AUTHOR, external, tiny_repository
from versioning import ChangeSet, CommitId, RefExistsError, Repository, RevisionNotFoundError
from versioning.maintenance import check_repository, collect_garbage
from versioning.names import encode_ref


def commit(repository: Repository, change: ChangeSet, branch: str = "main") -> CommitId:
    return repository.commit_changes(branch, change, message="m", author=AUTHOR, base=repository.head(branch))


def test_pins_name_a_commit_for_ever_until_they_are_deleted() -> None:
    repository = tiny_repository()
    first = commit(repository, ChangeSet.of([external("a", "etag:1")]))
    second = commit(repository, ChangeSet.of([external("a", "etag:2")]))
    repository.create_pin("exp/7-é", first)
    repository.create_pin("exp/7-é", first)
    with pytest.raises(RefExistsError):
        repository.create_pin("exp/7-é", second)
    assert repository.pins() == {"exp/7-é": first}
    assert repository.resolve("refs/pins/exp/7-é") == first
    assert repository.resolve("refs/pins/exp/7-é~0") == first
    assert repository.store.fetch(f"repo/refs/pins/{encode_ref('exp/7-é')}")
    assert repository.delete_pin("exp/7-é") == first
    assert repository.pins() == {}
    with pytest.raises(RevisionNotFoundError):
        repository.delete_pin("exp/7-é")
    with pytest.raises(RevisionNotFoundError):
        repository.resolve("refs/pins/exp/7-é")
    repository.create_pin("exp/7-é", second)
    assert repository.pins() == {"exp/7-é": second}


def test_garbage_collection_keeps_what_a_run_uses_until_it_is_unpinned() -> None:
    store = ClockedStore(Clock())
    repository = make_repository(store)
    first = commit(repository, ChangeSet.of(packed(repository, {"a": b"1"})))
    repository.create_branch("run", first)
    used = commit(repository, ChangeSet.of(packed(repository, {"b": b"2"})), "run")
    repository.create_pin("train", used)
    repository.delete_branch("run")
    for _ in range(3):
        store.clock.sleep(30 * DAY)
        collect_garbage(repository)
    again = reopened(store)
    assert [each.path for each in again.tree("refs/pins/train").entries()] == ["a", "b"]
    assert check_repository(again).found == 0
    repository.delete_pin("train")
    for _ in range(3):
        store.clock.sleep(30 * DAY)
        collect_garbage(repository)
    assert not reopened(store).commits.exists(used)
    assert reopened(store).commits.exists(first)
