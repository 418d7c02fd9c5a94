from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from sources import FileStore
from tests.versioning.samples import AUTHOR, TINY, entry
from versioning import ChangeSet, CommitId, Repository, Stage

if TYPE_CHECKING:
    from pathlib import Path

WRITERS, COMMITS = 4, 5


def _commit_some(root: str, writer: int) -> list[CommitId]:
    repository = Repository.open(FileStore(root), f"{root}/repo/"[1:])
    made: list[CommitId] = []
    for number in range(COMMITS):
        change = ChangeSet.of([entry(f"{writer}/{number}", number)])
        base = repository.branches().get("main")
        made.append(repository.commit_changes("main", change, message=f"{writer}.{number}", author=AUTHOR, base=base))
    return made


def _stage_some(file: Path, writer: int) -> None:
    for number in range(COMMITS):
        Stage(file).update(ChangeSet.of([entry(f"{writer}/{number}")]), base=None)


def _processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(WRITERS, multiprocessing.get_context("spawn"))


def test_commits_of_racing_processes_all_get_in(tmp_path: Path) -> None:
    repository = Repository.init(FileStore(tmp_path), f"{tmp_path}/repo/"[1:], spec=TINY)
    with _processes() as pool:
        running = [pool.submit(_commit_some, str(tmp_path), writer) for writer in range(WRITERS)]
        made = [identity for future in running for identity in future.result(90)]
    history = list(repository.log("main"))
    assert {identity for identity, _ in history} == set(made)
    assert [len(commit.parents) for _, commit in history] == [1] * (WRITERS * COMMITS - 1) + [0]
    assert repository.tree("main").rows == WRITERS * COMMITS
    assert [update.sequence for update in repository.branch_log("main")] == list(range(WRITERS * COMMITS, 0, -1))


def test_stages_of_racing_processes_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "stage"
    with _processes() as pool:
        running = [pool.submit(_stage_some, file, writer) for writer in range(WRITERS)]
        for future in running:
            future.result(90)
    assert len(Stage(file).read().changes) == WRITERS * COMMITS
