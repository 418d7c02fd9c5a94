from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.versioning.samples import AUTHOR, entry, tiny_repository
from versioning import (
    ChangeSet,
    CommitId,
    Driver,
    Job,
    MergeConflictError,
    MergeFile,
    MergeOptions,
    MergeState,
    MergeStateError,
    PathNotFoundError,
    Repository,
    entries_table,
    plan_job,
    run_job,
)

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = MergeOptions("manual", (Driver("nothing/**", "ours"),))


def commit(repository: Repository, branch: str, change: ChangeSet) -> CommitId:
    return repository.commit_changes(branch, change, message="m", author=AUTHOR, base=repository.head(branch))


@pytest.fixture(name="repository")
def _repository() -> Repository:
    repository = tiny_repository()
    root = commit(repository, "main", ChangeSet.of([entry(path, 1) for path in ("a", "d/1", "d/2", "e")]))
    repository.create_branch("other", root)
    commit(repository, "main", ChangeSet.of([entry("a", 2), entry("d/1", 2), entry("d/2", 2)], ["e"]))
    commit(repository, "other", ChangeSet.of([entry("a", 3), entry("d/1", 3), entry("e", 3), entry("n", 3)], ["d/2"]))
    return repository


def stopped(repository: Repository) -> MergeState:
    job = Job("merge", repository.resolve("other"), "merged", AUTHOR, OPTIONS)
    with pytest.raises(MergeConflictError) as raised:
        run_job(repository, "main", job)
    assert raised.value.plan is not None
    assert raised.value.head == repository.head("main")
    return MergeState.of("main", repository.resolve("main"), job, raised.value.plan)


def finish(repository: Repository, state: MergeState) -> dict[str, int]:
    run_job(repository, state.branch, state.job, resolved=state)
    return {each.path: each.size for each in repository.tree("main").entries()}


def left(state: MergeState) -> list[str]:
    return [str(path) for path in state.left["path"].to_pylist()]


def test_conflicts_are_settled_one_by_one_and_then_merged(repository: Repository, tmp_path: Path) -> None:
    file = MergeFile(tmp_path / "x" / "main.merge")
    assert file.read() is None
    file.begin(stopped(repository))
    file.update(lambda state: state.resolved(["a"], "theirs"))
    file.update(lambda state: state.resolved(["d"], "ours"))
    file.update(lambda state: state.resolved(["d/2"], "theirs"))
    state = file.update(lambda state: state)
    assert (left(state), state.how_of()) == (["e"], {"a": "theirs", "d/1": "ours", "d/2": "theirs"})
    with pytest.raises(MergeConflictError, match="1 path changed on both sides: e;"):
        finish(repository, state)
    mine = entries_table([entry("e", 7)])
    state = file.update(lambda state: state.resolved(["e"], "file", files=mine))
    assert finish(repository, state) == {"a": 3, "d/1": 2, "e": 7, "n": 3}
    made = repository.commit(repository.resolve("main"))
    assert (made.message, len(made.parents)) == ("merged", 2)
    assert file.clear()
    assert not file.clear()


def test_a_state_is_read_as_it_was_written(repository: Repository, tmp_path: Path) -> None:
    file, state = MergeFile(tmp_path / "main.merge"), stopped(repository)
    state = state.resolved(["d"], "delete").resolved(["e"], "file", files=entries_table([entry("e", 9)]))
    file.begin(state)
    found = file.read()
    assert found is not None
    assert (found.branch, found.head, found.job) == (state.branch, state.head, state.job)
    for name in ("conflicts", "ours", "theirs", "choices", "files"):
        assert getattr(found, name).to_pylist() == getattr(state, name).to_pylist(), name


def test_only_one_merge_is_under_way(repository: Repository, tmp_path: Path) -> None:
    file, state = MergeFile(tmp_path / "main.merge"), stopped(repository)
    file.begin(state)
    with pytest.raises(MergeStateError, match=r"a merge of .* into main is under way"):
        file.begin(state)
    file.clear()
    with pytest.raises(MergeStateError, match="no merge is under way"):
        file.update(lambda found: found)


@pytest.mark.parametrize("path", ["n", "d/3", "nothing", "d/"])
def test_what_is_not_in_conflict_cannot_be_settled(repository: Repository, path: str) -> None:
    state = stopped(repository)
    if path == "d/":
        assert left(state.resolved([path], "ours")) == ["a", "e"]
        return
    with pytest.raises(PathNotFoundError, match="ds conflicts"):
        state.resolved(["a", path], "ours")


def test_what_the_branch_changed_meanwhile_is_asked_again(repository: Repository) -> None:
    state = stopped(repository).resolved(["a", "d", "e"], "theirs")
    head = commit(repository, "main", ChangeSet.of([entry("a", 8), entry("fresh", 1)]))
    with pytest.raises(MergeConflictError) as raised:
        finish(repository, state)
    assert raised.value.conflicts["path"].to_pylist() == ["a"]
    state = state.moved(head, plan_job(repository, state.job, head))
    assert (left(state), sorted(state.how_of())) == (["a"], ["d/1", "d/2", "e"])
    assert finish(repository, state.resolved(["a"], "ours")) == {"a": 8, "d/1": 3, "e": 3, "fresh": 1, "n": 3}


@pytest.mark.parametrize("how", ["ours", "theirs", "delete"])
def test_everything_can_be_settled_at_once(repository: Repository, how: str) -> None:
    state = stopped(repository)
    found = finish(repository, state.resolved(left(state), how))  # type: ignore[arg-type]
    assert (
        found
        == {
            "ours": {"a": 2, "d/1": 2, "d/2": 2, "n": 3},
            "theirs": {"a": 3, "d/1": 3, "e": 3, "n": 3},
            "delete": {"n": 3},
        }[how]
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_state_gives_only_our_error(repository: Repository, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "main.merge"
    path.unlink(missing_ok=True)
    file = MergeFile(path)
    if not tmp_path.joinpath("whole").exists():
        file.begin(stopped(repository))
        tmp_path.joinpath("whole").write_bytes(path.read_bytes())
    whole = bytearray(tmp_path.joinpath("whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    with suppress(MergeStateError):
        file.read()


def test_nothing_is_read_as_a_state_that_is_another_table(tmp_path: Path) -> None:
    path = tmp_path / "main.merge"
    pyarrow.parquet.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(MergeStateError):
        MergeFile(path).read()
