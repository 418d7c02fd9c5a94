from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import (
    AUTHOR,
    applied,
    built,
    change_sets,
    directories_of,
    entry,
    entry_maps,
    is_checkable,
    paths,
    tiny_nodes,
    tiny_repository,
)
from tests.versioning.test_conflicts import finish, left, stopped
from versioning import (
    ChangeSet,
    CommitId,
    ConflictError,
    Driver,
    Entry,
    MergeConflictError,
    MergeFile,
    MergeOptions,
    MergeResult,
    NothingToCommitError,
    Repository,
    entries_table,
)
from versioning.bases import MergeBases, Side
from versioning.clashes import find_clashes
from versioning.errors import PathClashError
from versioning.merging import plan_merge
from versioning.strategies import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

    from versioning.strategies import Strategy


def commit(repository: Repository, branch: str, change: ChangeSet, base: CommitId | None = None) -> CommitId:
    base = base or repository.head(branch)
    return repository.commit_changes(branch, change, message="m", author=AUTHOR, base=base, allow_empty=True)


def diverged(root: ChangeSet, ours: ChangeSet, theirs: ChangeSet) -> Repository:
    repository = tiny_repository()
    repository.create_branch("other", commit(repository, "main", root))
    commit(repository, "main", ours)
    commit(repository, "other", theirs)
    return repository


def merge(repository: Repository, strategy: Strategy = "manual", *drivers: Driver) -> MergeResult:
    options = MergeOptions(strategy, drivers)
    return repository.merge(repository.resolve("other"), "main", author=AUTHOR, options=options)


def sizes(repository: Repository) -> dict[str, int]:
    return {each.path: each.size for each in repository.tree("main").entries()}


def added(*names: str, content: int = 1) -> ChangeSet:
    return ChangeSet.of(entry(name, content) for name in names)


ROOT = ChangeSet.of([entry("d/x", 1), entry("d/y", 1), entry("e", 1)])
A_FILE_FOR_A_DIRECTORY = ChangeSet.of([entry("d", 2)], ["d/x", "d/y"])
CASES = {
    "both add": (added("a", content=2), added("a/b", "a/c/d", content=3), ["a", "a/b", "a/c/d"]),
    "in the way of an edit": (A_FILE_FOR_A_DIRECTORY, added("d/x", content=3), ["d", "d/x"]),
    "in the way of a new file": (A_FILE_FOR_A_DIRECTORY, added("d/n", content=3), ["d", "d/n"]),
    "a directory for a file": (ChangeSet.of([entry("e/1", 2)], ["e"]), added("e", content=3), ["e", "e/1"]),
    "far apart": (added("f", content=2), added("f-1", "f.txt", "f/1/2/3", content=3), ["f", "f/1/2/3"]),
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_file_of_one_side_in_a_directory_of_the_other_is_a_conflict(case: str, swapped: bool) -> None:
    ours, theirs, expected = CASES[case]
    repository = diverged(ROOT, *((theirs, ours) if swapped else (ours, theirs)))
    head = repository.head("main")
    with pytest.raises(MergeConflictError, match=f"clashes with {expected[0]}") as raised:
        merge(repository)
    assert raised.value.conflicts["path"].to_pylist() == expected
    assert raised.value.conflicts["clash"].to_pylist() == [expected[1], *expected[:1] * (len(expected) - 1)]
    assert repository.head("main") == head


@pytest.mark.parametrize("case", CASES)
def test_strategies_leave_no_clash_and_take_whole_sides(case: str) -> None:
    ours, theirs, conflicts = CASES[case]
    base = applied({}, ROOT)
    settling: list[tuple[Strategy, ChangeSet]] = [("ours", ours), ("theirs", theirs)]
    for strategy, change in settling:
        repository = diverged(ROOT, ours, theirs)
        merge(repository, strategy)
        side = applied(base, change)
        found = sizes(repository)
        assert {path: found[path] for path in conflicts if path in found} == {
            path: side[path].size for path in conflicts if path in side
        }
        assert is_checkable(found)


def test_union_keeps_their_files_beside_ours() -> None:
    repository = diverged(ROOT, added("a", content=2), added("a/b", "a/c/d", content=3))
    merge(repository, "union")
    assert {path: size for path, size in sizes(repository).items() if path.startswith("a")} == {
        "a": 2,
        "a~theirs/b": 3,
        "a~theirs/c/d": 3,
    }
    repository = diverged(ROOT, added("a.d/b", content=2), added("a.d", content=3))
    merge(repository, "union")
    (beside,) = sizes(repository).keys() - {"a.d/b", "d/x", "d/y", "e"}
    assert beside.startswith("a~theirs-")
    assert beside.endswith(".d")


def test_union_stays_a_conflict_where_the_place_beside_is_a_file() -> None:
    repository = diverged(ROOT, added("a", "a~theirs", content=2), added("a/b", content=3))
    with pytest.raises(MergeConflictError, match="a/b"):
        merge(repository, "union")


def test_drivers_that_together_would_clash_leave_a_conflict() -> None:
    repository = diverged(ROOT, added("a", content=2), added("a/b", content=3))
    with pytest.raises(MergeConflictError) as raised:
        merge(repository, "ours", Driver("a/b", "theirs"))
    assert raised.value.conflicts["path"].to_pylist() == ["a/b"]


def test_clashes_are_settled_by_hand_together(tmp_path: Path) -> None:
    repository = diverged(ROOT, added("a", content=2), added("a/b", "a/c", content=3))
    state = stopped(repository)
    assert left(state) == ["a", "a/b", "a/c"]
    assert finish(repository, state.resolved(["a"], "theirs")).keys() >= {"a/b", "a/c"}
    repository = diverged(ROOT, added("a", content=2), added("a/b", "a/c", content=3))
    state = stopped(repository).resolved(["a/b"], "theirs")
    with pytest.raises(PathClashError, match="'a' is a file"):
        state.resolved(["a"], "file", files=entries_table([entry("a", 7)]))
    file = MergeFile(tmp_path / "main.merge")
    file.begin(stopped(repository))
    state = file.update(lambda found: found.resolved(["a"], "file", files=entries_table([entry("a", 7)])))
    assert left(state) == ["a/b", "a/c"]
    state = file.update(lambda found: found.resolved(["a/b", "a/c"], "ours"))
    assert file.read() is not None
    assert finish(repository, state) == {"a": 7, "d/x": 1, "d/y": 1, "e": 1}


def test_what_is_kept_of_a_merge_knows_its_clashes(tmp_path: Path) -> None:
    file = MergeFile(tmp_path / "main.merge")
    file.begin(state := stopped(diverged(ROOT, A_FILE_FOR_A_DIRECTORY, added("d/x", "d/n", content=3))))
    found = file.read()
    assert found is not None
    assert found.conflicts.to_pylist() == state.conflicts.to_pylist()
    assert found.conflicts["ours"].to_pylist() == ["A", "-", "D"]


def test_a_writer_whose_file_became_a_directory_is_in_conflict() -> None:
    repository = tiny_repository()
    base = commit(repository, "main", ROOT)
    commit(repository, "main", added("new/1"))
    for change in (added("new"), added("new/1/2"), ChangeSet.of([entry("new", 1)], ["e"])):
        with pytest.raises(ConflictError, match="new"):
            commit(repository, "main", change, base)
    commit(repository, "main", added("new/2"), base)


@pytest.mark.parametrize(
    "change",
    [
        added("e/1"),
        added("d"),
        added("d/x/y/z"),
        ChangeSet.of([entry("d", 1)], ["d/x"]),
        added("n", "n-1", "n/a"),
    ],
)
def test_a_commit_of_a_clash_is_refused(change: ChangeSet) -> None:
    repository = tiny_repository()
    head = commit(repository, "main", ROOT)
    with pytest.raises(PathClashError, match="is a file; remove or move one"):
        commit(repository, "main", change)
    assert repository.head("main") == head


def test_what_is_deleted_makes_room() -> None:
    repository = tiny_repository()
    commit(repository, "main", ROOT)
    commit(repository, "main", A_FILE_FOR_A_DIRECTORY)
    commit(repository, "main", ChangeSet.of([entry("d/1/2", 1), entry("e/3", 1)], ["d", "e"]))
    assert list(sizes(repository)) == ["d/1/2", "e/3"]


def test_a_revert_that_would_clash_is_a_conflict() -> None:
    repository = tiny_repository()
    commit(repository, "main", ROOT)
    gone = commit(repository, "main", ChangeSet.of((), ["d/x", "d/y"]))
    commit(repository, "main", added("d"))
    with pytest.raises(MergeConflictError, match="clashes with d"):
        repository.revert(gone, "main", author=AUTHOR)
    repository.revert(gone, "main", author=AUTHOR, options=MergeOptions("theirs"))
    assert list(sizes(repository)) == ["d/x", "d/y", "e"]


@settings(max_examples=60, deadline=None)
@given(st.lists(paths, unique=True, max_size=60))
def test_clashes_are_found_as_one_by_one(names: list[str]) -> None:
    names.sort(key=str.encode)
    found = find_clashes(pa.array(names, pa.string()))
    below = {file: [each for each in names if file in directories_of(each)] for file in names}
    assert {names[each.file]: names[each.start : each.stop] for each in found} == {
        file: each for file, each in below.items() if each
    }


@settings(max_examples=60, deadline=None)
@given(entry_maps(), st.lists(paths, unique=True, max_size=300))
def test_a_tree_knows_its_directories(model: dict[str, Entry], names: list[str]) -> None:
    names.sort(key=str.encode)
    tree = built(tiny_nodes(), model.values())
    expected = [any(path.startswith(f"{name}/") for path in model) for name in names]
    assert tree.has_below(pa.array(names, pa.string())).tolist() == expected


_few_paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
_maps = st.dictionaries(_few_paths, st.integers(1, 3), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(STRATEGIES), st.lists(st.sampled_from(STRATEGIES), max_size=2))
def test_whatever_is_committed_and_merged_can_be_checked_out(
    data: st.DataObject, strategy: Strategy, driven: list[Strategy]
) -> None:
    """Two branches, to and fro: each commit, rebase, merge, revert and pick works and is whole, or changes nothing."""
    repository, drivers = tiny_repository(), [Driver(f"{'*/' * n}a**", how) for n, how in enumerate(driven)]
    repository.create_branch("other", commit(repository, "main", added("z")))
    known = [repository.resolve("main")]
    for _ in range(data.draw(st.integers(1, 6))):
        branch, source = data.draw(st.sampled_from(["main", "other"])), data.draw(st.sampled_from(known))
        head, options = repository.resolve(branch), MergeOptions(strategy, tuple(drivers))
        with suppress(MergeConflictError, ConflictError, PathClashError, NothingToCommitError):
            match data.draw(st.sampled_from(["commit", "merge", "revert", "cherry-pick"])):
                case "commit":
                    change = ChangeSet.of(
                        (entry(path, size) for path, size in data.draw(_maps).items()), data.draw(st.sets(_few_paths))
                    )
                    commit(repository, branch, change, source)
                case "merge":
                    repository.merge(source, branch, author=AUTHOR, options=options)
                case "revert" if len(repository.commit(source).parents) < 2:
                    repository.revert(source, branch, author=AUTHOR, options=options)
                case "cherry-pick" if len(repository.commit(source).parents) < 2:
                    repository.cherry_pick(source, branch, author=AUTHOR, options=options)
        now = repository.resolve(branch)
        if now != head:
            known.append(now)
        assert is_checkable(each.path for each in repository.tree_of(now).entries())


@settings(max_examples=60, deadline=None)
@given(st.data(), entry_maps(60))
def test_our_rows_around_their_changes_are_enough_to_plan_with(data: st.DataObject, base: dict[str, Entry]) -> None:
    ours, theirs = data.draw(change_sets(base)), data.draw(change_sets(base))
    repository = diverged(ChangeSet.of(base.values()), ours, theirs)
    bases = MergeBases(repository.work)
    head, other = (Side.of(repository.resolve(branch)) for branch in ("main", "other"))
    root = bases.base_of(head, other)
    found, expected = (
        bases.plan_over(root, head, other),
        plan_merge(bases.compare(root, head), bases.compare(root, other)),
    )
    assert found.changes.upserts.equals(expected.changes.upserts)
    assert found.changes.deleted.equals(expected.changes.deleted)
    assert found.conflicts.to_pylist() == expected.conflicts.to_pylist()
    assert (found.ours.to_pylist(), found.theirs.to_pylist()) == (
        expected.ours.to_pylist(),
        expected.theirs.to_pylist(),
    )
    diff = found.diff()
    assert diff is not None
    wanted = repository.diff_changes(head.top, found.changes)
    assert diff.table.to_pylist() == wanted.table.to_pylist()
    assert diff.new_entries.to_pylist() == wanted.new_entries.to_pylist()


def test_what_only_they_changed_is_not_written_again() -> None:
    names = [f"{number:03d}" for number in range(300)]
    repository = diverged(added(*names), added("001", content=2), added("150", content=3))
    before = repository.nodes.writes
    merge(repository)
    leaf_and_inner = repository.nodes.writes - before
    expected = built(tiny_nodes(), (entry(n, {"001": 2, "150": 3}.get(n, 1)) for n in names))
    assert repository.tree("main").id == expected.id
    assert leaf_and_inner < _depth(repository)


def _depth(repository: Repository) -> int:
    return 1 + repository.nodes.read(repository.tree("main").root).level
