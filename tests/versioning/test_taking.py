"""Merges take leaves whole where only their side changed something; edits do not hash what they know."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import applied, built, change_sets, changes, entry, entry_maps, tiny_nodes
from tests.versioning.stores import MemoryStore
from versioning import Entry, entries_table
from versioning.building import edit_tree
from versioning.changes import ChangeSet
from versioning.chunking import CutRule, cut_points
from versioning.diffs import diff_trees
from versioning.nodestore import NodeStore
from versioning.spec import RepositorySpec
from versioning.splicing import Run, spliced
from versioning.taking import Arrival
from versioning.trees import Tree

if TYPE_CHECKING:
    from typing import Any

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
LONG = [f"{number:03d}" for number in range(0, 600, 3)]


def _mapped(names: list[str]) -> dict[str, Entry]:
    return {name: entry(name) for name in names}


@settings(max_examples=200 if DEEP else 15, deadline=None)
@given(st.data(), st.one_of(entry_maps(60), st.just(_mapped(LONG[:80]))))
def test_a_merge_that_takes_leaves_writes_the_tree_of_its_rows(data: st.DataObject, base: dict[str, Entry]) -> None:
    """Whatever was added to their changes or left out of them, as strategies and people do."""
    nodes = tiny_nodes()
    root = built(nodes, base.values()).root
    ours = applied(base, data.draw(change_sets(base)))
    theirs = applied(base, data.draw(change_sets(base)))
    our_root, their_root = (built(nodes, model.values()).root for model in (ours, theirs))
    diff = diff_trees(nodes, root, their_root)
    brought = {str(path): theirs.get(str(path)) for path in diff.table.column("path").to_pylist()}
    left_out = data.draw(st.sets(st.sampled_from(sorted(brought)))) if brought else set()
    change = ChangeSet.of(
        [each for path, each in brought.items() if each is not None and path not in left_out],
        [path for path, each in brought.items() if each is None and path not in left_out],
    ).merged_with(data.draw(st.one_of(st.just(changes({})), change_sets(base))))
    merged = edit_tree(nodes, our_root, change, held=[their_root], arrival=Arrival(root, their_root, diff))
    assert merged.hex() == built(tiny_nodes(), applied(ours, change).values()).id


def test_leaves_that_only_they_changed_are_not_read() -> None:
    store, spec = MemoryStore(), RepositorySpec.new()
    base = _mapped([f"{number:06d}" for number in range(60_000)])
    nodes = NodeStore(store, "", spec)
    root = built(nodes, base.values()).root
    theirs = changes({name: entry(name, 7) for name in list(base)[::4000]})
    their_root = edit_tree(nodes, root, theirs)
    our_root = edit_tree(nodes, root, changes({"x": entry("000001", 9)}))
    diff = diff_trees(nodes, root, their_root)
    cold = NodeStore(store, "", spec)
    merged = edit_tree(cold, our_root, theirs, held=[their_root], arrival=Arrival(root, their_root, diff))
    assert merged == edit_tree(NodeStore(store, "", spec), our_root, theirs)
    # three roots, the leaf that both changed, the last one, and the new root; what is read ahead in vain may be dropped
    assert cold.reads <= 3 + 2 + 1
    assert cold.writes <= 2


names = st.sampled_from([f"{number:03d}" for number in range(600)])


@settings(max_examples=300 if DEEP else 50, deadline=None)
@given(st.data(), st.sets(names, max_size=120), st.sets(names, max_size=120), st.sampled_from([2, 5, 9]))
def test_what_an_edit_knows_of_its_rows_gives_the_same_cuts(
    data: st.DataObject, put: set[str], gone: set[str], minimum: int
) -> None:
    rule = CutRule(target=4, minimum=minimum, maximum=24)
    rows = entries_table([entry(name) for name in LONG])
    ends = cut_points(rows.column("path"), level=0, rule=rule)
    assert ends
    starts = [0, *ends[:-1]]
    first = data.draw(st.integers(0, len(ends) - 1))
    before = "" if first == 0 else LONG[starts[first] - 1]
    run, low = Run.of_node(rows.slice(0, 0), rule), before
    for start, stop in zip(starts[first:], ends[first:], strict=True):
        near = [sorted(name for name in side if low < name <= LONG[stop - 1]) for side in (put, gone - put)]
        upserts = entries_table([entry(name, 5) for name in near[0]])
        node = rows.slice(start, stop - start).combine_chunks()
        run = run.then(spliced(Run.of_node(node, rule), upserts, pa.array(near[1], pa.string())))
        low = LONG[stop - 1]
    found: Any = run.rows.column("path")
    expected = (set(LONG) - gone) | put
    assert found.to_pylist() == sorted(name for name in expected if before < name <= low)
    assert cut_points(found, level=0, rule=rule, silent=run.silent) == cut_points(found, level=0, rule=rule)


def test_a_tree_that_takes_nothing_is_still_the_same() -> None:
    nodes = tiny_nodes()
    base = _mapped(LONG)
    root = built(nodes, base.values()).root
    change = changes({"x": entry("300", 4)})
    theirs = edit_tree(nodes, root, change)
    arrival = Arrival(root, theirs, diff_trees(nodes, root, theirs))
    assert edit_tree(nodes, root, change, held=[theirs], arrival=arrival) == theirs
    assert Tree(nodes, theirs).get("300") == entry("300", 4)
