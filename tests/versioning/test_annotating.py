from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.versioning.samples import AUTHOR, change_sets, entry, entry_maps, tiny_repository
from versioning import ChangeSet, CommitId, MergeOptions, PathNotFoundError
from versioning.annotating import annotate

if TYPE_CHECKING:
    from versioning import Entry, Repository


def commit(repository: Repository, change: ChangeSet, branch: str = "main") -> CommitId:
    return repository.commit_changes(
        branch, change, message="m", author=AUTHOR, base=repository.head(branch), allow_empty=True
    )


def blamed(repository: Repository, path: str = "") -> dict[str, CommitId]:
    start = repository.resolve("main")
    found = annotate(repository.work, repository.tree("main"), start, path)
    return {str(each): blame.commit_id for blame in found for each in blame.paths.to_pylist()}


@settings(max_examples=15, deadline=None)
@given(st.data(), entry_maps(80))
def test_each_path_belongs_to_the_commit_that_changed_it_last(data: st.DataObject, base: dict[str, Entry]) -> None:
    repository, model = tiny_repository(), dict(base)
    last = dict.fromkeys(model, commit(repository, ChangeSet.of(base.values())))
    for _ in range(3):
        before = repository.resolve("main")
        change = data.draw(change_sets(model))
        now = commit(repository, change)
        diff = repository.diff(before, now)
        last.update(dict.fromkeys(map(str, diff.only("A", "M").table.column("path").to_pylist()), now))
        model = {each.path: each for each in repository.tree("main").entries()}
    assert blamed(repository) == {path: last[path] for path in model}


def test_a_merge_is_blamed_only_for_what_neither_side_has() -> None:
    repository = tiny_repository()
    first = commit(repository, ChangeSet.of([entry(name, 1) for name in ("a", "b", "c", "d")]))
    repository.create_branch("side", first)
    ours = commit(repository, ChangeSet.of([entry("a", 2), entry("c", 2)]))
    theirs = commit(repository, ChangeSet.of([entry("b", 2)]), "side")
    result = repository.merge(theirs, "main", author=AUTHOR, options=MergeOptions(fast_forward="never"))
    assert blamed(repository) == {"a": ours, "b": theirs, "c": ours, "d": first}
    assert result.commit not in blamed(repository).values()


def test_a_directory_costs_the_nodes_that_cover_it() -> None:
    repository = tiny_repository()
    first = commit(repository, ChangeSet.of([entry(f"{number:04}/x", 1) for number in range(600)]))
    for number in range(20):
        commit(repository, ChangeSet.of([entry(f"{300 + number:04}/x", 2 + number)]))
    fresh = type(repository).open(repository.store, repository.prefix)
    assert blamed(fresh, "0007") == {"0007/x": first}
    # The root and one node a level differ in each commit; the leaf of the path is the same in all, and read once.
    assert fresh.nodes.reads < 21 * 3
    with pytest.raises(PathNotFoundError):
        blamed(fresh, "nowhere")
