from __future__ import annotations

import struct

import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import (
    TINY,
    applied,
    built,
    change_sets,
    changes,
    entry,
    entry_maps,
    external,
    paths,
    tiny_nodes,
)
from tests.versioning.stores import MemoryStore
from versioning import ENTRY_SCHEMA, Entry, PathNotFoundError, entries_table
from versioning.building import build_tree, edit_tree
from versioning.nodes import node_of
from versioning.nodestore import NodeStore
from versioning.spec import RepositorySpec
from versioning.trees import DirectoryItem, Tree

GOLDEN_ROWS = [entry("a", 1), external("b/é", "etag:1"), entry("b/\U0001f600", 2, meta='{"label":3}')]


@settings(max_examples=70, deadline=None)
@given(st.data(), entry_maps())
def test_an_edited_tree_is_the_tree_built_from_the_result(data: st.DataObject, model: dict[str, Entry]) -> None:
    nodes = tiny_nodes()
    tree = built(nodes, model.values())
    for _ in range(3):
        change = data.draw(change_sets(model))
        model = applied(model, change)
        tree = Tree(nodes, edit_tree(nodes, tree.root, change))
        assert tree.id == built(tiny_nodes(), model.values()).id


@settings(max_examples=60, deadline=None)
@given(entry_maps(), st.integers(1, 7))
def test_a_tree_does_not_depend_on_how_the_rows_arrive(model: dict[str, Entry], step: int) -> None:
    nodes = tiny_nodes()
    rows = entries_table(sorted(model.values(), key=lambda each: each.path.encode()))
    tables = [rows.slice(start, step) for start in range(0, rows.num_rows, step)]
    assert build_tree(nodes, tables) == build_tree(nodes, [rows])


@settings(max_examples=60, deadline=None)
@given(entry_maps(), st.lists(paths, max_size=20), st.sampled_from(["", "d", "d1/", "d3/0", "a", "zz", "é"]))
def test_a_tree_answers_like_a_dictionary(model: dict[str, Entry], asked: list[str], prefix: str) -> None:
    tree = built(tiny_nodes(), model.values())
    ordered = sorted(model.values(), key=lambda each: each.path.encode())
    assert (tree.rows, tree.size) == (len(model), sum(each.size for each in ordered))
    assert [tree.get(path) for path in asked] == [model.get(path) for path in asked]
    assert list(tree.entries(prefix)) == [each for each in ordered if each.path.startswith(prefix)]
    wanted = sorted(set(asked), key=str.encode)
    found = tree.get_many(pa.array(wanted, pa.string()))
    assert found.column("path").to_pylist() == [path for path in wanted if path in model]


@settings(max_examples=60, deadline=None)
@given(entry_maps(), st.sampled_from(["", "d1", "d3/", "a", "a/b", "é"]))
def test_listdir_shows_the_direct_children(model: dict[str, Entry], path: str) -> None:
    prefix = f"{path.rstrip('/')}/" if path else ""
    below = {each.path[len(prefix) :]: each for each in model.values() if each.path.startswith(prefix)}
    expected = {DirectoryItem(rest.partition("/")[0], True, 0) for rest in below if "/" in rest}
    expected |= {DirectoryItem(rest, False, each.size) for rest, each in below.items() if "/" not in rest}
    tree = built(tiny_nodes(), model.values())
    if prefix and not expected:
        with pytest.raises(PathNotFoundError):
            tree.listdir(path)
        return
    listed = tree.listdir(path)
    assert set(listed) == expected
    assert [item.name.encode() for item in listed] == sorted(item.name.encode() for item in listed)


def test_listdir_skips_large_directories() -> None:
    store = MemoryStore()
    tree = built(tiny_nodes(store), [entry(f"{name}/{number:04d}") for name in "abc" for number in range(2000)])
    cold = NodeStore(store, "", TINY)
    assert [item.name for item in Tree(cold, tree.root).listdir()] == ["a", "b", "c"]
    assert cold.reads < 60


def test_an_empty_tree_is_one_empty_leaf() -> None:
    nodes = tiny_nodes()
    tree = built(nodes, [])
    assert tree.root == node_of(ENTRY_SCHEMA.empty_table(), 0).id
    assert (tree.rows, tree.size, list(tree.scan()), tree.listdir()) == (0, 0, [], [])
    full = built(nodes, [entry(f"{number:03d}") for number in range(100)])
    emptied = edit_tree(nodes, full.root, changes(deleted=[f"{number:03d}" for number in range(100)]))
    assert emptied == tree.root


def test_an_edit_touches_one_node_per_level() -> None:
    store = MemoryStore()
    spec = RepositorySpec.new()
    tree = built(NodeStore(store, "", spec), [entry(f"{number:06d}") for number in range(50_000)])
    cold = NodeStore(store, "", spec)
    edited = edit_tree(cold, tree.root, changes({"x": entry("025000", 7)}))
    assert (cold.reads, cold.writes) == (2, 2)
    assert Tree(cold, edited).get("025000") == entry("025000", 7)


def test_an_edit_that_changes_nothing_writes_nothing() -> None:
    nodes = tiny_nodes()
    tree = built(nodes, [entry(f"{number:03d}") for number in range(100)])
    written = nodes.writes
    assert edit_tree(nodes, tree.root, changes({"x": entry("050")}, ["absent"])) == tree.root
    assert nodes.writes == written


def test_ids_of_the_format_never_change() -> None:
    leaf = node_of(entries_table(GOLDEN_ROWS), 0)
    assert leaf.id.hex() == "f3ca673f9022d5d000c7753717e29e2802ccdfdd8bd812034a7276a9ee5e50d4"
    assert (
        node_of(ENTRY_SCHEMA.empty_table(), 0).id.hex()
        == "fd0497f17f5dcd80be0af42cb205126ac06859caabbb161ddf83ae10c3ffa30c"
    )
    # Once stored, such ids are in other people's commits.
    deep = built(tiny_nodes(), [entry(f"{number:03d}", number) for number in range(200)])
    assert deep.id == "ddc67e1138c451d39b6776bdf6e5613ddda38e8621b2da90e51c1cc9fb0eec7b"
    usual = built(
        NodeStore(MemoryStore(), "", RepositorySpec.new()),
        [entry(f"{number:05d}", number) for number in range(20_000)],
    )
    assert usual.id == "96e364139a278fe7ef242095d27f076952783a163674599ab8556311f8489086"


def test_a_leaf_id_is_the_hash_that_the_format_describes() -> None:
    """The same hash, value by value in plain Python."""
    hasher = blake3(b"forebay.leaf.v1\n")
    tags = {"oid": "bytes32", "crc32c": "uint32", "size": "int64", "offset": "int64"}
    tags |= {"object_size": "int64", "mtime_ns": "int64"}
    for name in ENTRY_SCHEMA.names:
        tag = tags.get(name, "string")
        hasher.update(struct.pack("<HH", len(name), len(tag)) + name.encode() + tag.encode())
        hasher.update(struct.pack("<Q", len(GOLDEN_ROWS)))
        values = [getattr(row, name) for row in GOLDEN_ROWS]
        hasher.update(bytes([sum(1 << bit for bit, value in enumerate(values) if value is not None)]))
        if tag == "string":
            texts = [(value or "").encode() for value in values]
            hasher.update(b"".join(struct.pack("<I", len(text)) for text in texts) + b"".join(texts))
        elif tag == "bytes32":
            hasher.update(b"".join(value or bytes(32) for value in values))
        else:
            hasher.update(b"".join(struct.pack("<q" if tag == "int64" else "<I", value or 0) for value in values))
    assert node_of(entries_table(GOLDEN_ROWS), 0).id == hasher.digest()


def test_ids_do_not_depend_on_slicing_or_on_bytes_behind_nulls() -> None:
    rows = [entry("a"), external("b", "v"), external("c", "v")]
    whole = entries_table([entry("0"), *rows, entry("z")])
    assert node_of(whole.slice(1, 3), 0).id == node_of(entries_table(rows), 0).id
    chunked = pa.concat_tables([entries_table(rows[:1]), entries_table(rows[1:])])
    assert node_of(chunked, 0).id == node_of(entries_table(rows), 0).id
    behind = pa.StringArray.from_buffers(
        3,
        pa.py_buffer(b"\x00\x00\x00\x00\x05\x00\x00\x00\x0a\x00\x00\x00\x0f\x00\x00\x00"),
        pa.py_buffer(b"aaaaabbbbbccccc"),
        pa.py_buffer(b"\x00"),
    )
    column = entries_table(rows).schema.get_field_index("meta")
    hidden = entries_table(rows).set_column(column, ENTRY_SCHEMA.field("meta"), behind)
    assert node_of(hidden, 0).id == node_of(entries_table(rows), 0).id


def test_the_cache_of_nodes_is_bounded() -> None:
    store = MemoryStore()
    tree = built(tiny_nodes(store), [entry(f"{number:04d}") for number in range(1000)])
    small = tiny_nodes(store, cache_bytes=10_000)
    assert sum(table.num_rows for table in Tree(small, tree.root).scan()) == 1000
    assert sum(table.num_rows for table in Tree(small, tree.root).scan()) == 1000
    assert small._held_bytes <= 10_000
    assert small._held_bytes == sum(node.table.nbytes for node in small._cached.values())
