from __future__ import annotations

import multiprocessing
import secrets
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest

from sources import open_store
from tests.conftest import BUCKET
from tests.versioning.samples import AUTHOR, TINY, entry
from versioning import (
    ChangeSet,
    CommitId,
    Repository,
    RepositoryExistsError,
    RevisionNotFoundError,
    Stage,
    add_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sources import RepositoryStore
    from tests.services.weed import S3Server

WRITERS, COMMITS = 4, 5


class Place(NamedTuple):
    """Where a repository lies, in words that another process can open."""

    uri: str
    options: dict[str, object]
    prefix: str

    def open(self) -> RepositoryStore:
        return cast("RepositoryStore", open_store(self.uri, self.options))


@pytest.fixture(name="place", params=["directory", "s3"])
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        return Place(f"file://{tmp_path}", {}, f"{tmp_path}/repo/"[1:])
    server: S3Server = request.getfixturevalue("s3")
    return Place(f"s3://{BUCKET}", server.options, f"versioning/{secrets.token_hex(4)}/")


def _commit_some(place: Place, writer: int) -> list[CommitId]:
    repository = Repository.open(place.open(), place.prefix)
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


def test_commits_of_racing_processes_all_get_in(place: Place) -> None:
    repository = Repository.init(place.open(), place.prefix, spec=TINY)
    with _processes() as pool:
        running = [pool.submit(_commit_some, place, writer) for writer in range(WRITERS)]
        made = [identity for future in running for identity in future.result(90)]
    history = list(repository.log("main"))
    assert {identity for identity, _ in history} == set(made)
    assert [len(commit.parents) for _, commit in history] == [1] * (WRITERS * COMMITS - 1) + [0]
    assert repository.tree("main").rows == WRITERS * COMMITS
    assert [update.sequence for update in repository.branch_log("main")] == list(range(WRITERS * COMMITS, 0, -1))


def test_a_repository_does_its_work_in_every_store(place: Place, tmp_path: Path) -> None:
    repository = Repository.init(place.open(), place.prefix)
    assert repository.branches() == repository.tags() == {}
    with pytest.raises(RepositoryExistsError):
        Repository.init(place.open(), place.prefix)
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 1000)
    files = [("d/large", tmp_path / "large"), ("d/small", tmp_path / "small")]
    first = repository.commit_changes(
        "main", add_files(repository, files, blob_size=1000), message="one", author=AUTHOR, base=None
    )
    repository.create_branch("side", first)
    side = repository.commit_changes("side", ChangeSet.of([entry("s")]), message="s", author=AUTHOR, base=first)
    repository.commit_changes("main", ChangeSet.of([entry("m")]), message="m", author=AUTHOR, base=first)
    repository.create_tag("v1", first)
    assert repository.merge(side, "main", author=AUTHOR).kind == "merged"
    repository.delete_branch("side")
    again = Repository.open(place.open(), place.prefix)
    assert (again.resolve("main^2"), again.resolve(first[:8]), again.tags()) == (side, first, {"v1": first})
    assert again.diff(first, again.resolve("main")).table["path"].to_pylist() == ["m", "s"]
    with pytest.raises(RevisionNotFoundError):
        again.resolve("side")
    with pytest.raises(RevisionNotFoundError):
        again.resolve("0123456")
    for path, file in files:
        found = again.tree("main").get(path)
        assert found is not None
        where = found.location(again.root)
        version = where.object.version
        assert file.read_bytes() == bytes(
            again.store.read(where.object.key, start=where.offset, length=where.length, version=version)
        )


def test_stages_of_racing_processes_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "stage"
    with _processes() as pool:
        running = [pool.submit(_stage_some, file, writer) for writer in range(WRITERS)]
        for future in running:
            future.result(90)
    assert len(Stage(file).read().changes) == WRITERS * COMMITS
