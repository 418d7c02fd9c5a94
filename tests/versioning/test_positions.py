from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import StoreId
from tests.versioning.samples import TINY, built, entry, entry_maps, tiny_nodes
from tests.versioning.stores import MemoryStore
from versioning import CorruptRepositoryError, NodeFiles, RepositoryRoot
from versioning.nodes import NODE_SCHEMA, node_of
from versioning.nodestore import NodeStore
from versioning.positions import UNKNOWN_TIME, Positions

if TYPE_CHECKING:
    from pathlib import Path

    from versioning import Entry

ROOT = RepositoryRoot(StoreId("file://"), "repo/")
keys = st.one_of(
    st.text(st.sampled_from("abd/0123é\U0001f600\uffff\x01"), max_size=6).map(str.encode),
    st.binary(max_size=3),
    st.integers(0, 300).map(lambda number: b"d%d/%03d" % (number % 7, number)),
)


@settings(max_examples=80, deadline=None)
@given(entry_maps(), st.lists(keys, max_size=25), st.integers(0, 1 << 16))
def test_positions_are_those_of_a_sorted_list(model: dict[str, Entry], asked: list[bytes], cache_bytes: int) -> None:
    ordered = sorted(path.encode() for path in model)
    nodes = tiny_nodes(cache_bytes=1)
    positions = Positions(nodes, built(nodes, model.values()).root, cache_bytes=cache_bytes)
    assert positions.rows == len(ordered)
    for key in asked:
        assert positions.first_not_below(key) == sum(path < key for path in ordered)
        below = [row for row, path in enumerate(ordered) if path.startswith(key)]
        if not key.endswith(b"\xff"):
            assert list(positions.rows_below(key)) == below
            size = sum(model[ordered[row].decode()].size for row in below)
            assert positions.bytes_of(positions.rows_below(key)) == size
    for row, path in [*enumerate(ordered), *reversed(list(enumerate(ordered)))]:
        leaf = positions.leaf(row)
        assert leaf.start <= row < leaf.stop
        assert leaf.key(row) == path
        assert leaf.sizes[row - leaf.start] == model[path.decode()].size
        assert leaf.table.column("path")[row - leaf.start].as_py() == path.decode()
        each = model[path.decode()]
        assert (leaf.oid(row), leaf.location(row, ROOT)) == (each.oid, each.location(ROOT))
        assert positions.first_not_below(path) == row
    for row in (-1, len(ordered), len(ordered) + 5):
        with pytest.raises(IndexError):
            positions.leaf(row)


def test_modification_times_may_be_unknown() -> None:
    nodes = tiny_nodes()
    entries = [entry("a"), replace(entry("b"), mtime_ns=7), entry("c")]
    leaf = Positions(nodes, built(nodes, entries).root).leaf(1)
    assert leaf.mtimes_ns.tolist() == [UNKNOWN_TIME, 7, UNKNOWN_TIME]
    known = Positions(nodes, built(nodes, entries[1:2]).root).leaf(0)
    assert known.mtimes_ns.tolist() == [7]


def test_a_row_is_found_by_reading_one_way_down() -> None:
    store = MemoryStore()
    root = built(tiny_nodes(store), [entry(f"{number:05d}") for number in range(5000)]).root
    cold = tiny_nodes(store)
    positions = Positions(cold, root)
    assert positions.leaf(3210).key(3210) == b"03210"
    assert cold.reads <= 9
    before = cold.reads
    assert positions.first_not_below(b"03210") == 3210
    assert cold.reads == before


def test_what_is_kept_is_bounded() -> None:
    nodes = tiny_nodes(cache_bytes=1)
    root = built(nodes, [entry(f"{number:05d}") for number in range(3000)]).root
    positions = Positions(nodes, root, cache_bytes=20_000)
    for row in range(3000):
        positions.leaf(row)
    assert positions._held_bytes <= 20_000
    assert sum(size for _, size in positions._held.values()) == positions._held_bytes


@pytest.mark.parametrize("off", [-1, 1])
def test_a_parent_that_counts_wrongly_is_found_out(off: int) -> None:
    nodes = tiny_nodes()
    top = nodes.read(built(nodes, [entry(f"{number:03d}") for number in range(100)]).root)
    rows = top.table.to_pylist()
    rows[0]["rows"] += off
    forged = node_of(NODE_SCHEMA.empty_table().from_pylist(rows, schema=NODE_SCHEMA), top.level)
    nodes.write(forged)
    with pytest.raises(CorruptRepositoryError, match="counts another number"):
        Positions(nodes, forged.id).leaf(0)


def test_a_decoded_node_may_be_mapped_at_once(tmp_path: Path) -> None:
    store = MemoryStore()
    root = built(tiny_nodes(store), [entry(f"{number:03d}") for number in range(50)]).root
    mapping = NodeStore(store, "", TINY, files=NodeFiles(tmp_path), maps=True)
    allocated = pa.total_allocated_bytes()
    node = mapping.read(root)
    assert pa.total_allocated_bytes() == allocated
    assert node.table == tiny_nodes(store).read(root).table
    assert mapping.read(root) is node
    assert mapping.reads == 1
