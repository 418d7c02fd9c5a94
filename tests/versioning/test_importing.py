from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sources import FileStore, ObjectStat, StoreId, Version, batch_of, scan
from tests.versioning.samples import AUTHOR, built, entry, external, tiny_nodes, tiny_repository
from versioning import ChangeSet, EntryKind, InvalidNameError, NothingToCommitError, Repository, stage_import
from versioning.building import edit_tree
from versioning.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

STORE = StoreId("s3://b")


def _stat(key: str, version: str, size: int = 1) -> ObjectStat:
    return ObjectStat(key, size, Version(version), 5)


def _stage(tree: Tree | None, listing: Iterable[ObjectStat], *, target: str = "images/") -> ChangeSet:
    return stage_import(tree, [batch_of(listing)], store=STORE, source_prefix="raw/", target=target)


def test_a_first_import_points_at_the_source() -> None:
    change = _stage(None, [_stat("raw/b", "etag:2"), _stat("raw/", "x"), _stat("raw/a", "etag:1", 9)])
    tree = built(tiny_nodes(), [])
    found = Tree(tree._nodes, edit_tree(tree._nodes, tree.root, change)).get("images/a")
    assert found is not None
    assert (found.kind, found.store, found.key) == (EntryKind.EXTERNAL, "s3://b", "raw/a")
    assert (found.version, found.source, found.size, found.object_size) == ("etag:1", "etag:1", 9, 9)
    assert (found.oid, found.crc32c, found.mtime_ns) == (None, None, 5)
    assert len(change) == 2


def test_an_import_changes_what_changed_below_its_target() -> None:
    packed = entry("images/packed", 1)
    fields = {name: getattr(packed, name) for name in packed.__slots__}
    tree = built(
        tiny_nodes(),
        [
            type(packed)(**{**fields, "source": "etag:1"}),
            replace(external("images/same", "etag:1"), store=STORE, key="raw/same"),
            replace(external("images/moved", "etag:1"), store="s3://where-it-was", key="raw/moved"),
            external("images/changed", "etag:1"),
            external("images/gone", "etag:1"),
            entry("images/added from disk"),
            external("other/kept", "etag:1"),
        ],
    )
    listing = [_stat(f"raw/{name}", "etag:1") for name in ("same", "packed", "moved", "new")]
    change = _stage(tree, [*listing, _stat("raw/changed", "etag:2")])
    assert change.upserts["path"].to_pylist() == ["images/changed", "images/moved", "images/new"]
    assert change.deleted.to_pylist() == ["images/gone"]


def test_an_import_of_a_directory_is_stable(tmp_path: Path) -> None:
    for number in range(30):
        file = tmp_path / "raw" / str(number % 3) / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(number))
    store = FileStore(tmp_path)
    prefix = f"{tmp_path}/raw/"[1:]

    def stage(tree: Tree | None) -> ChangeSet:
        return stage_import(tree, scan(store, prefix), store=store.id, source_prefix=prefix, target="")

    tree = built(tiny_nodes(), [])
    tree = Tree(tree._nodes, edit_tree(tree._nodes, tree.root, stage(tree)))
    assert tree.rows == 30
    assert not stage(tree)
    (tmp_path / "raw/1/1.txt").write_bytes(b"longer")
    (tmp_path / "raw/2/2.txt").unlink()
    change = stage(tree)
    assert change.upserts["path"].to_pylist() == ["1/1.txt"]
    assert change.deleted.to_pylist() == ["2/2.txt"]


def test_an_import_of_nothing_deletes_what_was_imported() -> None:
    tree = built(tiny_nodes(), [external("images/a", "etag:1"), entry("images/b")])
    assert _stage(tree, []).deleted.to_pylist() == ["images/a"]
    assert not _stage(None, [])


@pytest.mark.parametrize("key", ["raw//a", "raw/../a", "other/a"])
def test_a_key_that_cannot_be_a_path_is_named(key: str) -> None:
    with pytest.raises(InvalidNameError):
        _stage(None, [_stat(key, "v")])


def test_a_target_is_a_directory() -> None:
    with pytest.raises(InvalidNameError, match="import target"):
        _stage(None, [], target="images")


def test_nothing_is_read_to_commit_that_nothing_changed() -> None:
    repository = tiny_repository()
    rows = [external(f"{row:04d}", "etag:1") for row in range(500)]
    repository.commit_changes("main", ChangeSet.of(rows), message="all", author=AUTHOR, base=None)
    again = Repository.open(repository.store, repository.prefix)
    with pytest.raises(NothingToCommitError):  # an empty stage has no base: all of the head came since then
        again.commit_changes("main", ChangeSet.of(), message="none", author=AUTHOR, base=None)
    assert again.nodes.reads == 0
