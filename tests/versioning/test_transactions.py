from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.versioning.samples import AUTHOR, entry, tiny_repository
from tests.versioning.stores import MemoryStore
from versioning import (
    ChangeSet,
    ConflictError,
    InvalidNameError,
    PathNotFoundError,
    Repository,
    Transaction,
    TransactionOverError,
    UnreadableFileError,
)
from versioning.reading import read_stored

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(name="repository")
def _repository() -> Repository:
    return tiny_repository()


def begin(repository: Repository, branch: str = "main") -> Transaction:
    return repository.transaction(branch, message="changes", author=AUTHOR, meta={"run": 7})


def content(repository: Repository, path: str) -> bytes:
    found = repository.tree("main").get(path)
    assert found is not None
    return read_stored(repository, found, max_bytes=1000)


def paths(repository: Repository) -> list[str]:
    return [each.path for each in repository.tree("main").entries()]


def test_all_changes_of_a_transaction_are_one_commit(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"from a file")
    with begin(repository) as first:
        first.add("a/bytes", b"bytes", meta={"label": 3})
        first.add("a/file", tmp_path / "local", meta={"label": 4})
        first.add("empty", b"")
    assert first.committed == repository.head("main")
    made = repository.commit(repository.resolve("main"))
    assert (made.message, made.author, dict(made.meta), made.parents) == ("changes", AUTHOR, {"run": 7}, ())
    assert [content(repository, path) for path in paths(repository)] == [b"bytes", b"from a file", b""]
    labels = [each.meta for each in repository.tree("main").entries()]
    assert labels == ['{"label":3}', '{"label":4}', None]
    kept = repository.tree("main").get("a/bytes")
    assert kept is not None
    with begin(repository) as second:
        second.add("linked", kept)
        second.move("a", "b")
        second.remove("empty")
        second.add("b/file", b"over")
    assert paths(repository) == ["b/bytes", "b/file", "linked"]
    assert [content(repository, path) for path in paths(repository)] == [b"bytes", b"over", b"bytes"]
    assert len(list(repository.log("main"))) == 2


def test_a_transaction_sees_its_own_changes(repository: Repository) -> None:
    with begin(repository) as transaction:
        transaction.add("x/1", b"1", meta={"k": 1})
        transaction.add("x/2", b"2")
        transaction.move("x", "y")
        transaction.remove("y/2")
        with pytest.raises(PathNotFoundError):
            transaction.remove("x")
        with pytest.raises(PathNotFoundError):
            transaction.move("y/2", "z")
        with pytest.raises(InvalidNameError):
            transaction.move("y", "y/below")
        transaction.move("y/1", "y/1")
    found = repository.tree("main").get("y/1")
    assert found is not None
    assert found.meta == '{"k":1}'
    assert paths(repository) == ["y/1"]


def test_an_error_leaves_no_commit(repository: Repository) -> None:
    assert isinstance(repository.store, MemoryStore)
    before = dict(repository.store.objects)
    transaction = begin(repository)

    def fail() -> None:
        with transaction:
            transaction.add("a", b"1")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert repository.store.objects == before
    with pytest.raises(TransactionOverError):
        transaction.add("b", b"2")


def test_a_file_that_cannot_be_read_leaves_no_commit(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError), begin(repository) as transaction:
        transaction.add("a", tmp_path / "none")
    assert repository.branches() == {}


def test_nothing_changed_is_no_commit(repository: Repository) -> None:
    with begin(repository) as nothing:
        pass
    assert nothing.committed is None
    with begin(repository) as first:
        first.add("a", b"1")
    with begin(repository) as same:
        same.add("a", b"1")
        same.add("b", b"2")
        same.remove("b")
    assert same.committed is None
    assert repository.head("main") == first.committed


def test_others_may_change_other_paths_meanwhile(repository: Repository) -> None:
    with begin(repository) as transaction:
        transaction.add("ours", b"1")
        repository.commit_changes("main", ChangeSet.of([entry("theirs")]), message="", author=AUTHOR, base=None)
    assert paths(repository) == ["ours", "theirs"]
    late = begin(repository)
    late.add("theirs", b"2")
    with begin(repository) as quick:
        quick.remove("theirs")
    with pytest.raises(ConflictError, match="1 path changed on main"):
        late.commit()
    assert paths(repository) == ["ours"]


@pytest.mark.parametrize("path", ["", "/a", "a/../b", "a//b"])
def test_what_cannot_be_a_path_is_refused_at_once(repository: Repository, path: str) -> None:
    with begin(repository) as transaction, pytest.raises(InvalidNameError):
        transaction.add(path, b"1")
    with begin(repository) as transaction, pytest.raises(InvalidNameError):
        transaction.add("a", b"1", meta={"k": {1, 2}})
