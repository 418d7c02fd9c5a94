from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from sources import FileStore, SourceUnavailableError
from tests.versioning.samples import AUTHOR, TINY, entry, tiny_repository
from tests.versioning.stores import FailingStore, MemoryStore
from versioning import ChangeSet, CommitId, LostRaceError, Repository, RepositoryNotFoundError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources import RepositoryStore

QUICK = RetryPolicy(deadline_seconds=5, first_seconds=0.001, cap_seconds=0.001)


def _work(store: RepositoryStore, prefix: str, acknowledged: list[tuple[str, CommitId]]) -> None:
    """Use a repository, noting what was reported as done."""
    repository = Repository.init(store, prefix, spec=TINY)
    base: CommitId | None = None
    for number in range(3):
        change = ChangeSet.of([entry(f"{number}/{each:02d}", number) for each in range(12)])
        base = repository.commit_changes("main", change, message=f"{number}", author=AUTHOR, base=base)
        acknowledged.append(("main", base))
    assert base is not None
    repository.create_branch("side", base)
    side = repository.commit_changes("side", ChangeSet.of([entry("s")]), message="s", author=AUTHOR, base=base)
    acknowledged.append(("side", side))
    ours = repository.commit_changes("main", ChangeSet.of([entry("m")]), message="m", author=AUTHOR, base=base)
    acknowledged.append(("main", ours))
    acknowledged.append(("main", repository.merge(side, "main", author=AUTHOR).commit))
    repository.create_tag("v1", ours)


def _check_whole(repository: Repository, acknowledged: list[tuple[str, CommitId]]) -> None:
    for branch, identity in acknowledged:
        assert identity in {found for found, _ in repository.log(branch)}
    for branch in repository.branches():
        for identity, commit in repository.log(branch):
            tree = repository.tree_of(identity)
            assert sum(table.num_rows for table in tree.scan()) == commit.stats.files
        assert len(list(repository.branch_log(branch))) <= len(list(repository.log(branch))) + 1


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory that waits for no disk: losing what was not synced is not what is tested."""
    with TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_a_crash_at_any_write_loses_nothing_that_was_reported(memory: Path, kind: str, after_effect: bool) -> None:
    crashes = 0
    for write in range(1, 200):
        inner: RepositoryStore = MemoryStore() if kind == "memory" else FileStore(memory)
        prefix = f"{memory}/{write}/"[1:] if kind == "directory" else "repo/"
        store = FailingStore(inner, after_effect=after_effect)
        store.arm(write)
        acknowledged: list[tuple[str, CommitId]] = []
        try:
            _work(store, prefix, acknowledged)
        except SourceUnavailableError:
            crashes += 1
        else:
            break
        try:
            repository = Repository.open(inner, prefix)
        except RepositoryNotFoundError:
            assert not acknowledged
            repository = Repository.init(inner, prefix, spec=TINY)
        _check_whole(repository, acknowledged)
        head = repository.branches().get("main")
        change = ChangeSet.of([entry("after", write)])
        done = repository.commit_changes("main", change, message="", author=AUTHOR, base=head)
        assert repository.tree("main").get("after") == entry("after", write)
        _check_whole(repository, [*acknowledged, ("main", done)])
    assert crashes > 25


@pytest.mark.parametrize("after_effect", [False, True], ids=["before the swap", "after the swap"])
def test_one_lost_answer_neither_loses_nor_doubles_a_commit(after_effect: bool) -> None:
    for swap in range(1, 100):
        store = FailingStore(MemoryStore(), after_effect=after_effect, once=True)
        repository = Repository(store, "repo/", tiny_repository(store).spec, retry=QUICK)
        first = repository.commit_changes("main", ChangeSet.of([entry("a")]), message="", author=AUTHOR, base=None)
        store.arm(swap, only_swaps=True)
        second = repository.commit_changes("main", ChangeSet.of([entry("b")]), message="", author=AUTHOR, base=first)
        assert [identity for identity, _ in repository.log("main")] == [second, first]
        if store.writes < swap:
            assert swap > 2  # the branch and its log
            return


def test_a_store_that_never_swaps_is_reported_soon() -> None:
    class Stuck(FailingStore):
        def _count(self, *, swap: bool) -> bool:
            return swap and self.fail_at is not None

    store = Stuck(MemoryStore(), once=True)
    repository = Repository(store, "repo/", tiny_repository(store).spec, retry=QUICK)
    store.arm(1)
    with pytest.raises(SourceUnavailableError):
        repository.commit_changes("main", ChangeSet.of([entry("a")]), message="", author=AUTHOR, base=None)
    assert repository.branches() == {}


def test_a_writer_that_always_loses_gives_up_in_time() -> None:
    store = MemoryStore()
    rival = tiny_repository(store)

    class Rivalled(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.objects = store.objects
            self.count = 0

        def put(self, key: str, data: object) -> None:
            super().put(key, data)  # type: ignore[arg-type]
            if "commits/" in key:
                self.count += 1
                change = ChangeSet.of([entry(f"rival{self.count}")])
                head = rival.branches().get("main")
                rival.commit_changes("main", change, message="", author=AUTHOR, base=head)

    policy = RetryPolicy(deadline_seconds=0.3, first_seconds=0.001, cap_seconds=0.01)
    loser = Repository(Rivalled(), "repo/", rival.spec, retry=policy)
    with pytest.raises(LostRaceError, match=r"main moved: another writer was first \d+ times"):
        loser.commit_changes("main", ChangeSet.of([entry("a")]), message="", author=AUTHOR, base=None)
    assert rival.tree("main").get("a") is None
    with suppress(LostRaceError):
        loser.merge(rival.branches()["main"], "main", author=AUTHOR)
