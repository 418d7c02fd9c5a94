from __future__ import annotations

import multiprocessing
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.versioning.samples import TINY, built, entry, tiny_nodes
from tests.versioning.stores import MemoryStore
from versioning import CorruptRepositoryError, NodeFiles
from versioning.nodestore import NodeStore
from versioning.trees import Tree

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = [entry(f"{number:04d}", number, meta="{}" if number % 2 else None) for number in range(500)]


def _store(tmp_path: Path, store: MemoryStore, **options: int) -> NodeStore:
    return NodeStore(store, "", TINY, files=NodeFiles(tmp_path / "nodes", **options))


def _kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "nodes").rglob("*.arrow"))


def test_a_second_process_reads_no_node_from_the_store(tmp_path: Path) -> None:
    store = MemoryStore()
    tree = built(_store(tmp_path, store), ENTRIES)
    again = _store(tmp_path, store)
    assert list(Tree(again, tree.root).entries()) == ENTRIES
    assert again.reads == 0


def test_what_was_fetched_is_kept_too(tmp_path: Path) -> None:
    store = MemoryStore()
    tree = built(tiny_nodes(store), ENTRIES)
    assert list(Tree(first := _store(tmp_path, store), tree.root).entries()) == ENTRIES
    assert list(Tree(again := _store(tmp_path, store), tree.root).entries()) == ENTRIES
    assert (first.reads > 0, again.reads) == (True, 0)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "zeros", "another"])
def test_a_damaged_file_is_fetched_again(tmp_path: Path, damage: str) -> None:
    store = MemoryStore()
    tree = built(_store(tmp_path, store), ENTRIES)
    for file in (files := _kept(tmp_path)):
        data = bytearray(file.read_bytes())
        if damage == "cut":
            del data[len(data) // 2 :]
        elif damage == "flipped":
            data[len(data) // 3] ^= 1
        elif damage == "empty":
            data.clear()
        elif damage == "zeros":
            data = bytearray(len(data))
        else:
            data = bytearray(b"nonsense" * 100)
        file.unlink()
        file.write_bytes(data)
    again = _store(tmp_path, store)
    assert list(Tree(again, tree.root).entries()) == ENTRIES
    assert again.reads == len(files)
    assert list(Tree(third := _store(tmp_path, store), tree.root).entries()) == ENTRIES
    assert third.reads == 0


def test_the_files_stay_below_their_limit_and_those_used_last_stay(tmp_path: Path) -> None:
    store = MemoryStore()
    built(_store(tmp_path, store), ENTRIES)
    sizes = [file.stat().st_size for file in _kept(tmp_path)]
    for file in _kept(tmp_path):
        os.utime(file, (1, 1))
    files = NodeFiles(tmp_path / "nodes", max_bytes=sum(sizes) // 2)
    recent = [bytes.fromhex(file.stem) for file in _kept(tmp_path)[:3]]
    for node_id in recent:
        assert files.get(node_id) is not None  # type: ignore[arg-type]
    built(NodeStore(store, "", TINY, files=files), [entry("another")])
    assert sum(file.stat().st_size for file in _kept(tmp_path)) <= sum(sizes) // 2
    assert all(files.get(node_id) is not None for node_id in recent)  # type: ignore[arg-type]


def test_a_mapped_node_outlives_its_file(tmp_path: Path) -> None:
    store = MemoryStore()
    tree = built(_store(tmp_path, store), ENTRIES)
    again = _store(tmp_path, store)
    found = list(Tree(again, tree.root).scan())
    for file in _kept(tmp_path):
        file.unlink()
    assert sum(table.num_rows for table in found) == len(ENTRIES)
    assert list(Tree(again, tree.root).entries()) == ENTRIES


def test_an_unwritable_directory_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("a file")
    store = MemoryStore()
    tree = built(_store(tmp_path, store), ENTRIES)
    assert list(Tree(_store(tmp_path, store), tree.root).entries()) == ENTRIES


def test_unfinished_files_of_processes_that_died_go_away(tmp_path: Path) -> None:
    folder = tmp_path / "nodes" / "00"
    folder.mkdir(parents=True)
    for name, age in (("old", 7200), ("young", 0)):
        (folder / f".new-{name}").write_bytes(b"x")
        os.utime(folder / f".new-{name}", (time.time() - age,) * 2)
    built(_store(tmp_path, MemoryStore()), ENTRIES)
    assert [file.name for file in folder.glob(".new-*")] == [".new-young"]


def _read_all(tmp_path: Path, store: MemoryStore, root: bytes, done: multiprocessing.Queue[int]) -> None:
    nodes = _store(tmp_path, store, max_bytes=40_000)
    for _ in range(5):
        assert list(Tree(nodes, root).entries()) == ENTRIES  # type: ignore[arg-type]
        nodes._cached.clear()
        nodes._held_bytes = 0
    done.put(1)


def test_forked_processes_share_the_files_while_they_are_evicted(tmp_path: Path) -> None:
    store = MemoryStore()
    tree = built(_store(tmp_path, store), ENTRIES)
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    workers = [context.Process(target=_read_all, args=(tmp_path, store, tree.root, done)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_without_files_the_store_itself_is_seen(tmp_path: Path) -> None:
    store = MemoryStore()
    tree = built(_store(tmp_path, store), ENTRIES)
    store.objects.clear()
    assert list(Tree(_store(tmp_path, store), tree.root).entries()) == ENTRIES
    with pytest.raises(CorruptRepositoryError, match="missing"):
        list(Tree(tiny_nodes(store), tree.root).entries())
