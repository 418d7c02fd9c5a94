from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import AUTHOR, applied, change_sets, entry, entry_maps, tiny_repository
from versioning import (
    ChangeSet,
    CommitId,
    Entry,
    HistoryQuery,
    InvalidNameError,
    Repository,
    RevisionNotFoundError,
    diff_spans,
    history,
    range_of,
    spans_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def commit(repository: Repository, branch: str, change: ChangeSet, base: CommitId | None, **meta: object) -> CommitId:
    return repository.commit_changes(
        branch, change, message="m", author=AUTHOR, base=base, meta=meta, allow_empty=True, require_base=True
    )


def shown(repository: Repository, query: HistoryQuery) -> list[CommitId]:
    return [identity for identity, _ in history(repository.work, query)]


def ranged(repository: Repository, text: str) -> set[CommitId]:
    return set(shown(repository, range_of(text, resolve=repository.resolve, work=repository.work)))


def test_ranges_are_what_sets_of_ancestors_say() -> None:
    repository = tiny_repository()
    root = commit(repository, "main", ChangeSet.of([entry("a")]), None)
    repository.create_branch("side", root)
    for number in range(3):
        commit(repository, "main", ChangeSet.of([entry(f"m{number}")]), repository.head("main"))
        commit(repository, "side", ChangeSet.of([entry(f"s{number}")]), repository.head("side"))
    repository.merge(repository.resolve("side~1"), "main", author=AUTHOR)
    for left in ("main", "side", "main~2", "side~3"):
        for right in ("main", "side", "main~1", "side~2"):
            ours = {identity for identity, _ in repository.log(left)}
            theirs = {identity for identity, _ in repository.log(right)}
            assert ranged(repository, f"{left}..{right}") == theirs - ours
            assert ranged(repository, f"{left}...{right}") == ours ^ theirs
    assert ranged(repository, "side") == {identity for identity, _ in repository.log("side")}


@pytest.mark.parametrize("text", ["a..b..c", "nowhere..main", "main..nowhere"])
def test_a_range_that_names_nothing_says_so(text: str) -> None:
    repository = tiny_repository()
    commit(repository, "main", ChangeSet.of([entry("a")]), None)
    with pytest.raises(RevisionNotFoundError):
        ranged(repository, text)


def test_a_log_of_metadata_shows_the_commits_that_have_it() -> None:
    repository = tiny_repository()
    first = commit(repository, "main", ChangeSet.of([entry("a")]), None, ticket="DATA-1", run=7)
    second = commit(repository, "main", ChangeSet.of([entry("b")]), first, ticket="DATA-1")
    third = commit(repository, "main", ChangeSet.of([entry("c")]), second)
    assert shown(repository, HistoryQuery((third,), meta={"ticket": "DATA-1"})) == [second, first]
    assert shown(repository, HistoryQuery((third,), meta={"ticket": "DATA-1", "run": "7"})) == [first]
    assert shown(repository, HistoryQuery((third,), meta={"ticket": "DATA-1"}, limit=1)) == [second]
    assert shown(repository, HistoryQuery((third,), limit=0)) == []


def _at(model: dict[str, Entry], paths: Sequence[str]) -> dict[str, Entry]:
    return {
        path: each
        for path, each in model.items()
        if any(path == top.rstrip("/") or path.startswith(top.rstrip("/") + "/") for top in paths)
    }


asked_paths = st.lists(
    st.one_of(st.sampled_from(["d0", "d3/", "d6", "a", "b/"]), st.integers(0, 300).map(lambda n: f"d{n % 7}/{n:03d}")),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(st.data(), entry_maps(100), asked_paths)
def test_a_diff_within_paths_is_the_part_of_the_diff_that_is_there(
    data: st.DataObject, base: dict[str, Entry], paths: list[str]
) -> None:
    repository = tiny_repository()
    first = commit(repository, "main", ChangeSet.of(base.values()), None)
    second = commit(repository, "main", data.draw(change_sets(base)), first)
    whole = repository.diff(first, second).table.to_pylist()
    wanted = set(_at({row["path"]: entry("x") for row in whole}, paths))
    before, after = (repository.work.tree_root(each) for each in (first, second))
    found = diff_spans(repository.nodes, before, after, spans_of(paths))
    assert found.table.to_pylist() == [row for row in whole if row["path"] in wanted]
    from_nothing = diff_spans(repository.nodes, None, before, spans_of(paths))
    assert set(from_nothing.table.column("path").to_pylist()) == set(_at(base, paths))


@settings(max_examples=40, deadline=None)
@given(st.data(), entry_maps(60), asked_paths)
def test_a_log_of_paths_shows_the_commits_that_changed_them(
    data: st.DataObject, base: dict[str, Entry], paths: list[str]
) -> None:
    repository = tiny_repository()
    model, head, expected = base, commit(repository, "main", ChangeSet.of(base.values()), None), []
    if _at(base, paths):
        expected = [head]
    for _ in range(4):
        change = data.draw(change_sets(model, max_size=6))
        after = applied(model, change)
        head = commit(repository, "main", change, head)
        if _at(after, paths) != _at(model, paths):
            expected.insert(0, head)
        model = after
    assert shown(repository, HistoryQuery((head,), paths=tuple(paths))) == expected


def test_a_log_of_paths_follows_the_side_of_a_merge_that_they_came_from() -> None:
    repository = tiny_repository()
    root = commit(repository, "main", ChangeSet.of([entry("a", 1), entry("b", 1)]), None)
    repository.create_branch("side", root)
    ours = commit(repository, "main", ChangeSet.of([entry("a", 2)]), root)
    theirs = commit(repository, "side", ChangeSet.of([entry("b", 2)]), root)
    merged = repository.merge(theirs, "main", author=AUTHOR).commit
    assert shown(repository, HistoryQuery((merged,), paths=("a",))) == [ours, root]
    assert shown(repository, HistoryQuery((merged,), paths=("b",))) == [theirs, root]
    assert shown(repository, HistoryQuery((merged,), paths=("a", "b"))) == [
        merged,
        *sorted((ours, theirs), key=[i for i, _ in repository.log("main")].index),
        root,
    ]
    assert shown(repository, HistoryQuery((merged,), paths=("c",))) == []


def test_a_log_of_one_file_reads_a_path_of_nodes_for_each_commit() -> None:
    repository = tiny_repository()
    head = commit(repository, "main", ChangeSet.of(entry(f"{number:04d}") for number in range(2000)), None)
    commits = 10
    for number in range(commits):
        head = commit(repository, "main", ChangeSet.of([entry(f"{number * 199:04d}", 5)]), head)
    again = Repository.open(repository.store, repository.prefix)
    found = shown(again, HistoryQuery((head,), paths=("0199",), limit=1))
    assert len(found) == 1
    depth = 1
    node = again.nodes.read(again.tree_of(head).root)
    depth += node.level
    again = Repository.open(repository.store, repository.prefix)
    assert len(shown(again, HistoryQuery((head,), paths=("0199",)))) == 2
    assert again.nodes.reads <= (commits + 1) * depth


@pytest.mark.parametrize("path", ["", "/", "a//b", "../a"])
def test_what_cannot_be_a_path_has_no_log(path: str) -> None:
    with pytest.raises(InvalidNameError):
        spans_of([path])
