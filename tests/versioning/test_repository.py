from __future__ import annotations

import json
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from sources import FileStore, Location, ObjectRef, StoreId, SwapLostError, UnsafeSwapError, Version
from tests.versioning.samples import AUTHOR, TINY, entry, external, tiny_repository
from tests.versioning.stores import MemoryStore
from versioning import (
    ChangeSet,
    CommitId,
    ConflictError,
    CorruptRepositoryError,
    Entry,
    InvalidNameError,
    LostRaceError,
    NothingToCommitError,
    RefExistsError,
    Repository,
    RepositoryExistsError,
    RepositoryFormatError,
    RepositoryNotFoundError,
    RepositoryRoot,
    RevisionNotFoundError,
    locations,
)

if TYPE_CHECKING:
    from pathlib import Path


def _commit(repository: Repository, *entries: Entry, base: CommitId | None = None, branch: str = "main") -> CommitId:
    return repository.commit_changes(branch, ChangeSet.of(entries), message="m", author=AUTHOR, base=base)


def test_a_repository_in_a_directory_keeps_its_layout(tmp_path: Path) -> None:
    prefix = f"{tmp_path}/repo/"[1:]
    repository = Repository.init(FileStore(tmp_path), prefix)
    first = _commit(repository, entry("a"))
    repository.create_tag("v1", first)
    files = sorted(str(file.relative_to(tmp_path / "repo")) for file in tmp_path.rglob("*") if file.is_file())
    tree = repository.commit(first).tree
    assert [file for file in files if "forebay-tmp" not in file] == [
        f"commits/{first[:2]}/{first}.json",
        "logs/heads/main/00000000000000000001",
        "refs/heads/main",
        "refs/tags/v1",
        "repo.json",
        f"trees/{tree[:2]}/{tree}.parquet",
    ]
    described = json.loads((tmp_path / "repo/repo.json").read_bytes())
    assert described.pop("id")
    assert described == {
        "format": 1,
        "hash": "blake3",
        "leaf": {"target": 8192, "min": 2048, "max": 32768},
        "inner": {"target": 512, "min": 128, "max": 2048},
        "features": [],
    }
    assert Repository.open(FileStore(tmp_path), prefix).tree("v1").get("a") == entry("a")


def test_a_copied_repository_still_works(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    repository = Repository.init(FileStore(tmp_path), f"{tmp_path}/one/"[1:])
    _commit(repository, entry("a"))
    (tmp_path / "one").rename(tmp_path / "two")
    moved = Repository.open(FileStore(tmp_path), f"{tmp_path}/two/"[1:])
    found = moved.tree("main").get("a")
    assert found is not None
    assert found.location(moved.root).object.key == f"{tmp_path}/two/packs/0"[1:]


def test_a_second_init_changes_nothing() -> None:
    repository = tiny_repository()
    with pytest.raises(RepositoryExistsError):
        Repository.init(repository.store, repository.prefix)
    assert Repository.open(repository.store, repository.prefix).spec == repository.spec


def test_opening_nothing_says_how_to_create_it() -> None:
    with pytest.raises(RepositoryNotFoundError, match=r"no repository at memory://test/x; .*ds apply"):
        Repository.open(MemoryStore(), "x/")
    with pytest.raises(InvalidNameError):
        Repository.open(MemoryStore(), "x")


def test_init_leaves_only_its_description() -> None:
    store = MemoryStore()
    Repository.init(store, "")
    assert list(store.objects) == ["repo.json"]


class _BothWin(MemoryStore):
    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        del expect
        self.objects[key] = data
        return self.fetch(key)[1]


class _NobodyWins(MemoryStore):
    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        del data
        raise SwapLostError(key, expected=expect)


@pytest.mark.parametrize(("unsafe", "why"), [(_BothWin(), "racing writers won"), (_NobodyWins(), "was refused")])
def test_a_store_without_a_true_compare_and_swap_is_refused(unsafe: MemoryStore, why: str) -> None:
    with pytest.raises(UnsafeSwapError, match=why):
        Repository.init(unsafe, "repo/")
    assert not unsafe.objects


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "upgrade forebay"),
        ({"hash": "md5"}, "upgrade forebay"),
        ({"features": ["teleport"]}, "features that this version lacks: teleport"),
        ({"leaf": {"target": 1, "min": 0, "max": 4}}, "restore it"),
        ({"inner": {"target": "512", "min": 2, "max": 4}}, "restore it"),
        ({"features": None}, "restore it"),
    ],
)
def test_a_repository_of_another_format_is_refused(change: dict[str, object], message: str) -> None:
    repository = tiny_repository()
    content = json.loads(repository.store.fetch("repo/repo.json")[0])
    repository.store.put("repo/repo.json", json.dumps({**content, **change}).encode())
    with pytest.raises(RepositoryFormatError, match=message):
        Repository.open(repository.store, "repo/")


def test_a_commit_says_what_it_did() -> None:
    repository = tiny_repository()
    first = _commit(repository, entry("a", 1), entry("b", 2), entry("c", 3))
    change = ChangeSet.of([entry("a", 4), entry("b", 2, place=1), entry("d", 5)], ["c", "absent"])
    second = repository.commit_changes(
        "main",
        change,
        message="Zwölf\nmore",
        author=AUTHOR,
        base=first,
        meta={"label": [1, None]},
        lineage={"code": "git:1"},
    )
    commit = repository.commit(second)
    stats = commit.stats
    assert (stats.files, stats.bytes) == (3, 4 + 2 + 5)
    assert (stats.added, stats.modified, stats.deleted, stats.layout) == (1, 1, 1, 1)
    assert (commit.parents, commit.generation, commit.message) == ((first,), 2, "Zwölf\nmore")
    assert (commit.meta, commit.lineage) == ({"label": [1, None]}, {"code": "git:1"})
    assert [update.action for update in repository.branch_log("main")] == ["commit: Zwölf", "commit: m"]


def test_a_commit_that_changes_nothing_is_refused() -> None:
    repository = tiny_repository()
    first = _commit(repository, entry("a"))
    with pytest.raises(NothingToCommitError, match="nothing to commit on main"):
        _commit(repository, entry("a"), base=first)
    with pytest.raises(NothingToCommitError):
        repository.commit_changes("main", ChangeSet.of(deleted=["x"]), message="", author=AUTHOR, base=first)
    empty = repository.commit_changes("main", ChangeSet.of(), message="", author=AUTHOR, base=first, allow_empty=True)
    assert repository.commit(empty).tree == repository.commit(first).tree


def test_a_change_set_is_rebased_on_a_moved_head() -> None:
    repository = tiny_repository()
    base = _commit(repository, entry("a", 1), entry("b", 1))
    head = _commit(repository, entry("b", 2), base=base)
    done = _commit(repository, entry("a", 2), base=base)
    assert repository.commit(done).parents == (head,)
    assert list(repository.tree("main").entries()) == [entry("a", 2), entry("b", 2)]


def test_the_first_committer_of_a_path_wins() -> None:
    repository = tiny_repository()
    base = _commit(repository, entry("a", 1))
    head = _commit(repository, entry("a", 2), base=base)
    with pytest.raises(ConflictError, match=r"1 path changed on main since .*: a;") as raised:
        _commit(repository, entry("a", 3), entry("b", 1), base=base)
    assert raised.value.conflicts["path"].to_pylist() == ["a"]
    assert repository.branches() == {"main": head}
    with pytest.raises(LostRaceError, match="not at the required base"):
        repository.commit_changes(
            "main", ChangeSet.of([entry("c")]), message="", author=AUTHOR, base=base, require_base=True
        )


def test_packing_never_undoes_a_content_change_made_meanwhile() -> None:
    repository = tiny_repository()
    base = _commit(repository, entry("a", 1), entry("b", 1))
    _commit(repository, entry("a", 2), base=base)
    _commit(repository, entry("a", 1, place=9), entry("b", 1, place=9), base=base)
    assert list(repository.tree("main").entries()) == [entry("a", 2), entry("b", 1, place=9)]
    with pytest.raises(NothingToCommitError):
        _commit(repository, entry("a", 1, place=8), base=base)


def test_a_new_branch_begins_at_the_base() -> None:
    repository = tiny_repository()
    base = _commit(repository, entry("a"))
    done = _commit(repository, entry("b"), base=base, branch="side")
    assert repository.commit(done).parents == (base,)
    assert repository.branches() == {"main": base, "side": done}


def test_a_branch_can_be_deleted_and_created_again() -> None:
    repository = tiny_repository()
    first = _commit(repository, entry("a"))
    repository.create_branch("side", first)
    with pytest.raises(RefExistsError):
        repository.create_branch("side", first)
    repository.delete_branch("side")
    assert repository.branches() == {"main": first}
    with pytest.raises(RevisionNotFoundError):
        repository.resolve("side")
    with pytest.raises(RevisionNotFoundError, match="no such branch"):
        repository.delete_branch("side")
    repository.create_branch("side", first)
    assert [update.sequence for update in repository.branch_log("side")] == [3, 2, 1]


def test_a_tag_never_moves() -> None:
    repository = tiny_repository()
    first = _commit(repository, entry("a"))
    second = _commit(repository, entry("b"), base=first)
    repository.create_tag("v/1", first)
    with pytest.raises(RefExistsError):
        repository.create_tag("v/1", second)
    assert repository.tags() == {"v/1": first}
    with pytest.raises(CorruptRepositoryError):
        repository.create_tag("v2", CommitId("0" * 64))


def test_a_log_shows_children_before_parents_over_all_branches() -> None:
    repository = tiny_repository()
    root = _commit(repository, entry("a"))
    left = _commit(repository, entry("b"), base=root)
    right = _commit(repository, entry("c"), base=root, branch="side")
    merged = repository.merge(right, "main", author=AUTHOR).commit
    order = [identity for identity, _ in repository.log("main")]
    assert order[0] == merged
    assert set(order[1:3]) == {left, right}
    assert order[3] == root
    assert len(list(repository.log("main", limit=2))) == 2


@pytest.mark.parametrize("branch", ["a..b", "../../x", "HEAD", ""])
def test_a_branch_name_cannot_leave_the_refs(branch: str) -> None:
    repository = tiny_repository()
    with pytest.raises(InvalidNameError):
        _commit(repository, entry("a"), branch=branch)


def test_meta_that_is_no_json_is_refused_before_the_branch_moves() -> None:
    repository = tiny_repository()
    with pytest.raises(InvalidNameError):
        repository.commit_changes(
            "main", ChangeSet.of([entry("a")]), message="", author=AUTHOR, base=None, meta={"x": float("nan")}
        )
    assert repository.branches() == {}


def test_locations_make_one_object_per_pack() -> None:
    root = RepositoryRoot(StoreId("s3://repo"), "r/")
    repository = tiny_repository()
    _commit(repository, entry("a", 1), entry("b", 2), external("c", "etag:1"))
    table = next(repository.tree("main").scan())
    found = locations(table, root)
    pack = ObjectRef(StoreId("s3://repo"), "r/packs/0", Version("oid:0"), 1001)
    assert found[0] == Location(pack, 0, 1)
    assert found[2] == Location(ObjectRef(StoreId("s3://b"), "c", Version("etag:1"), 1), 0, 1)
    assert found == [each.location(root) for each in repository.tree("main").entries()]


@pytest.mark.parametrize("key", ["../secret", "packs/../../secret", "repo.json", "/etc/passwd"])
def test_an_entry_cannot_name_an_object_outside_of_the_packs(key: str) -> None:
    bad = Entry(**{**{name: getattr(entry("a"), name) for name in Entry.__slots__}, "key": key})
    with pytest.raises(CorruptRepositoryError):
        bad.location(RepositoryRoot(StoreId("s3://repo"), "r/"))


def test_the_spec_of_a_test_repository_is_tiny() -> None:
    assert tiny_repository().spec == TINY


def test_a_head_is_one_read_however_many_branches_there_are() -> None:
    repository = tiny_repository()
    first = _commit(repository, entry("a"))
    for number in range(20):
        repository.create_branch(f"b{number}", first)
    store = repository.store
    assert isinstance(store, MemoryStore)
    with patch.object(store, "fetch", wraps=store.fetch) as fetch:
        assert repository.head("main") == first
        assert repository.head("nothing") is None
    assert fetch.call_count == 2
