"""Sample indexes kept as files, mapped by every process that reads them."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loaders.samples
from loaders import MissingFieldError, SampleIndex
from loaders.indexfiles import IndexFolder, open_index, write_index
from tests.loaders.test_samples import ROOT, FixedTree, contents, packed

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from versioning import Entry

BUDGET = 1 << 20
names = st.text("abcé/._", min_size=1, max_size=6)


def entries_of(paths: Iterable[str]) -> list[Entry]:
    return [packed(path, "shard", 10 * number) for number, path in enumerate(sorted(paths))]


class CountedTree(FixedTree):
    """A tree with an id, which counts how often it is scanned."""

    def __init__(self, entries: Iterable[Entry], tree_id: str = "a" * 64) -> None:
        super().__init__(entries, leaf=1000)
        self.id = tree_id
        self.scans = 0

    def scan(self, *arguments: object, **options: object):  # type: ignore[no-untyped-def]
        self.scans += 1
        return super().scan(*arguments, **options)  # type: ignore[arg-type]


def open_samples(tree: CountedTree, folder: IndexFolder | None, **options: object) -> SampleIndex:
    return SampleIndex.from_tree(tree, ROOT, folder=folder, **options)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> IndexFolder:
    return IndexFolder(str(tmp_path / "indexes"), BUDGET)


def files_of(folder: IndexFolder) -> list[Path]:
    return sorted(Path(folder.directory).iterdir()) if os.path.exists(folder.directory) else []


@settings(max_examples=40)
@given(st.sets(names, max_size=30), st.randoms(use_true_random=False))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], rng: random.Random
) -> None:
    made = SampleIndex.from_tree(FixedTree(entries_of(paths)), ROOT, where=lambda _: True)  # type: ignore[arg-type]
    path = str(tmp_path_factory.mktemp("index") / "a.index")
    write_index(path, made)
    found = open_index(path, ROOT)
    assert contents(found) == contents(made)
    assert (found.fields, found.skipped, found.fingerprint) == (made.fields, made.skipped, made.fingerprint)
    assert found.fields_of_each == made.fields_of_each
    picks = np.array([rng.randrange(len(made)) for _ in range(len(made))], dtype=np.int64)
    assert found.keys_of(picks) == made.keys_of(picks) == [made.keys[int(pick)].as_py() for pick in picks]
    assert [found.key_of(int(pick)) for pick in picks] == made.keys_of(picks)
    assert found.gather(picks) == made.gather(picks)


def test_a_commit_is_grouped_once(folder: IndexFolder) -> None:
    tree = CountedTree(entries_of(["a.x", "a.y", "b.x", "b.y", "stray"]))
    first = open_samples(tree, folder)
    second = open_samples(tree, folder)
    assert tree.scans == 1
    assert contents(first) == contents(second)
    assert second.path is not None
    assert second.skipped == 1
    assert second.select(["x"]).path is None
    assert second.select(["x", "y"]) is second
    with pytest.raises(MissingFieldError):
        open_samples(tree, folder, fields=["z"])
    assert tree.scans == 1


def test_another_tree_prefix_rule_or_repository_has_another_file(folder: IndexFolder) -> None:
    entries = entries_of(["a/1.x", "a/2.x", "b/3.x"])
    tree = CountedTree(entries)
    root = replace(ROOT, prefix="elsewhere/")
    assert [
        len(open_samples(tree, folder)),
        len(open_samples(tree, folder, prefix="a/")),
        len(open_samples(tree, folder, key="stem")),
        len(open_samples(CountedTree(entries[:1], "b" * 64), folder)),
        len(SampleIndex.from_tree(tree, root, folder=folder)),  # type: ignore[arg-type]
    ] == [3, 2, 3, 1, 3]
    assert len(files_of(folder)) == 5
    assert len(open_samples(tree, folder, where=lambda key: "a" in key)) == 2
    assert len(files_of(folder)) == 5  # what a function chose is nobody else's


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove", "directory"])
def test_a_file_that_is_damaged_is_made_anew(folder: IndexFolder, damage: str) -> None:
    tree = CountedTree(entries_of([f"{n}.x" for n in range(20)]))
    expected = contents(open_samples(tree, folder))
    (path,) = files_of(folder)
    data = path.read_bytes()
    places = range(0, len(data), 131) if damage == "flip" else [0]
    for place in places:
        path.unlink()
        if damage == "flip":
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        elif damage == "directory":
            path.mkdir()
        elif damage != "remove":
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
        assert contents(open_samples(tree, folder)) == expected
        if damage == "directory":
            path.rmdir()
            path.touch()
    assert [name for name in files_of(folder) if name.name.startswith(".")] == []


def test_files_stay_within_the_budget_and_the_last_used_ones_stay(tmp_path: Path) -> None:
    trees = [CountedTree(entries_of([f"{n}.x" for n in range(200)]), f"{number:064x}") for number in range(5)]
    once = IndexFolder(str(tmp_path / "one"), BUDGET)
    open_samples(trees[0], once)
    size = files_of(once)[0].stat().st_size
    folder = IndexFolder(str(tmp_path / "some"), 3 * size)
    kept = open_samples(trees[0], folder)
    before = contents(kept)
    for tree in trees:
        open_samples(tree, folder)
    assert len(files_of(folder)) <= 3
    open_samples(trees[4], folder)
    assert trees[4].scans == 1
    assert contents(kept) == before  # its file may be gone, what was mapped is not
    assert contents(pickle.loads(pickle.dumps(kept))) == before
    tiny = IndexFolder(str(tmp_path / "tiny"), size // 2)
    assert contents(open_samples(trees[0], tiny)) == before
    assert files_of(tiny) == []


def test_a_large_index_is_pickled_as_the_name_of_its_file(folder: IndexFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = CountedTree(entries_of([f"{n:05d}.{field}" for n in range(2000) for field in "xy"]))
    index = open_samples(tree, folder)
    assert len(pickle.dumps(index)) < 1000
    assert contents(pickle.loads(pickle.dumps(index))) == contents(index)
    chosen = open_samples(tree, folder, where=lambda key: key < "01500", fields=["y"])
    assert len(pickle.dumps(chosen)) > 10_000
    monkeypatch.setattr(loaders.samples, "_LARGE", 1000)
    assert len(pickle.dumps(chosen)) < 1000
    copy = pickle.loads(pickle.dumps(chosen))
    assert contents(copy) == contents(chosen)
    assert (copy.fingerprint, copy.fields) == (chosen.fingerprint, ("y",))
    other = open_samples(tree, folder, where=lambda key: key < "01500", fields=["x"])
    assert contents(pickle.loads(pickle.dumps(other))) == contents(other)


def test_a_full_or_read_only_disk_costs_the_file_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    tree = CountedTree(entries_of(["a.x"]))
    assert len(open_samples(tree, IndexFolder(str(tmp_path / "file/indexes"), BUDGET))) == 1
