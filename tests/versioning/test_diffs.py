from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import TINY, applied, built, change_sets, entry, entry_maps, external, tiny_nodes
from tests.versioning.stores import MemoryStore
from versioning import ChangeSet, DiffSummary, Entry, table_entries
from versioning.building import edit_tree
from versioning.committing import changes_of
from versioning.diffs import diff_trees
from versioning.nodestore import NodeStore


def _expected(old: dict[str, Entry], new: dict[str, Entry]) -> dict[str, str]:
    ops = dict.fromkeys(old.keys() - new.keys(), "D") | dict.fromkeys(new.keys() - old.keys(), "A")
    for path in old.keys() & new.keys():
        if old[path] != new[path]:
            ops[path] = "L" if old[path].oid == new[path].oid else "M"
    return ops


@settings(max_examples=80, deadline=None)
@given(entry_maps(), entry_maps())
def test_a_diff_applied_to_the_old_tree_gives_the_new_one(old: dict[str, Entry], new: dict[str, Entry]) -> None:
    nodes = tiny_nodes()
    before, after = built(nodes, old.values()), built(nodes, new.values())
    diff = diff_trees(nodes, before.root, after.root)
    assert dict(zip(diff.table["path"].to_pylist(), diff.table["op"].to_pylist(), strict=True)) == _expected(old, new)
    assert edit_tree(nodes, before.root, changes_of(diff)) == after.root


@settings(max_examples=50, deadline=None)
@given(st.data(), entry_maps())
def test_a_diff_of_an_edit_names_sizes_and_new_entries(data: st.DataObject, old: dict[str, Entry]) -> None:
    change = data.draw(change_sets(old))
    new = applied(old, change)
    nodes = tiny_nodes()
    before = built(nodes, old.values())
    diff = diff_trees(nodes, before.root, edit_tree(nodes, before.root, change))
    paths = [str(path) for path in diff.table["path"].to_pylist()]
    assert paths == sorted(paths, key=str.encode)
    assert diff.table["old_size"].to_pylist() == [old[path].size if path in old else None for path in paths]
    assert diff.table["new_size"].to_pylist() == [new[path].size if path in new else None for path in paths]
    assert list(table_entries(diff.new_entries)) == [new[path] for path in paths if path in new]


def test_a_diff_reads_only_nodes_that_differ() -> None:
    store = MemoryStore()
    nodes = tiny_nodes(store)
    old = built(nodes, [entry(f"{number:05d}") for number in range(5000)])
    new = edit_tree(nodes, old.root, ChangeSet.of([entry("02500", 1)]))
    cold = NodeStore(store, "", TINY)
    diff = diff_trees(cold, old.root, new)
    depth = cold.read(old.root).level + 1
    assert len(diff) == 1
    assert cold.reads <= 2 * depth


def test_unhashed_content_is_compared_by_its_source() -> None:
    nodes = tiny_nodes()
    old = built(nodes, [external("changed", "etag:1"), external("packed", "etag:1"), external("same", "etag:1")])
    packed = entry("packed", 1)
    packed = Entry(**{**{name: getattr(packed, name) for name in Entry.__slots__}, "source": "etag:1"})
    new = built(nodes, [external("changed", "etag:2"), packed, external("same", "etag:1")])
    diff = diff_trees(nodes, old.root, new.root)
    assert diff.table.select(["path", "op"]).to_pylist() == [
        {"path": "changed", "op": "M"},
        {"path": "packed", "op": "L"},
    ]


def test_other_labels_are_another_content() -> None:
    nodes = tiny_nodes()
    old, new = built(nodes, [entry("a")]), built(nodes, [entry("a", meta='{"label":1}')])
    assert diff_trees(nodes, old.root, new.root).table["op"].to_pylist() == ["M"]


def test_a_summary_counts_paths_and_bytes() -> None:
    nodes = tiny_nodes()
    old = built(nodes, [entry("deleted", 5), entry("modified", 1), entry("moved", 3)])
    new = built(nodes, [entry("added", 7), entry("modified", 2), entry("moved", 3, place=1)])
    diff = diff_trees(nodes, old.root, new.root)
    assert diff.summary() == DiffSummary(1, 1, 1, 1, 7, 2, 5, 3)
    assert diff.only("A", "M").new_entries["path"].to_pylist() == ["added", "modified"]
    assert not diff_trees(nodes, old.root, old.root)
