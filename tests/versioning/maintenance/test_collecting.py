from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from sources import FileStore
from tests.versioning.maintenance.places import DAY, Clock, ClockedStore, make_repository, packed, reopened
from tests.versioning.samples import AUTHOR
from versioning import ChangeSet, CommitId, Repository
from versioning.errors import CollectingError, ObjectsCollectedError, StoreClockError
from versioning.maintenance import GcPolicy, check_repository, collect_garbage, list_live
from versioning.maintenance.leases import LeaseHolder, read_leases
from versioning.maintenance.operations import operations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOW = GcPolicy(grace_seconds=0)
WEEK = GcPolicy()


def files(start: int, count: int = 40) -> dict[str, bytes]:
    return {f"d{number % 5}/{number:03d}": b"content %d" % number for number in range(start, start + count)}


def commit(
    repository: Repository,
    branch: str,
    content: Mapping[str, bytes],
    base: CommitId | None,
    *,
    gone: tuple[str, ...] = (),
) -> CommitId:
    change = ChangeSet.of(packed(repository, dict(content)), gone) if content else ChangeSet.of([], gone)
    return repository.commit_changes(branch, change, message="", author=AUTHOR, base=base)


def blobs_of(store: ClockedStore) -> set[str]:
    return {key for key in store.objects if key.startswith(("repo/packs/", "repo/trees/", "repo/commits/"))}


def clean(repository: Repository) -> bool:
    report = check_repository(reopened(repository.store))  # type: ignore[arg-type]
    assert report.found == 0, report.findings
    return True


@pytest.fixture
def store() -> ClockedStore:
    return ClockedStore(Clock())


@pytest.fixture
def repository(store: ClockedStore) -> Repository:
    return make_repository(store)


def make_garbage(repository: Repository, store: ClockedStore) -> tuple[CommitId, set[str], set[str]]:
    """A branch that stays and one that is deleted and forgotten; returns the head, what it needs, and the garbage."""
    head = commit(repository, "main", files(0), None)
    needed = blobs_of(store)
    repository.create_branch("side", head)
    commit(repository, "side", files(100), head)
    repository.delete_branch("side")
    return head, needed, blobs_of(store) - needed


def test_nothing_is_deleted_before_it_was_condemned_for_the_grace_period(
    repository: Repository, store: ClockedStore
) -> None:
    _, needed, garbage = make_garbage(repository, store)
    assert garbage
    assert collect_garbage(repository).condemned.total_objects == 0  # all of it is young
    store.clock.sleep(8 * DAY)
    report = collect_garbage(repository)
    assert report.condemned.total_objects == len(garbage)
    assert report.condemned.total_bytes == sum(len(store.objects[key]) for key in garbage)
    assert report.deleted.total_objects == 0
    store.clock.sleep(6 * DAY)
    assert collect_garbage(repository).waits_seconds == pytest.approx(DAY, abs=5)
    assert garbage <= blobs_of(store)
    store.clock.sleep(2 * DAY)
    report = collect_garbage(repository)
    assert (report.deleted.total_objects, report.kept) == (len(garbage), 0)
    assert blobs_of(store) == needed
    assert clean(repository)
    assert [each.kind for each in operations(repository)] == ["sweep", "condemn"]


def test_a_run_right_after_another_asks_for_next_to_nothing(repository: Repository, store: ClockedStore) -> None:
    make_garbage(repository, store)
    store.clock.sleep(8 * DAY)
    collect_garbage(repository)
    store.quiet()
    collect_garbage(repository)
    assert store.requests <= 4  # the state, and the time
    store.clock.sleep(8 * DAY)
    collect_garbage(repository)
    store.quiet()
    assert collect_garbage(repository).unchanged
    assert store.requests <= 12  # refs twice: none may be missed that is renamed meanwhile


def test_a_deleted_branch_is_kept_for_the_grace_period(repository: Repository, store: ClockedStore) -> None:
    head, _, garbage = make_garbage(repository, store)
    store.clock.sleep(6 * DAY)
    commit(repository, "main", {}, head, gone=("d0/000",))
    repository.create_branch("again", head)
    repository.delete_branch("again")
    store.clock.sleep(2 * DAY)
    assert collect_garbage(repository).condemned.total_objects == len(garbage)
    lost = [key for key in garbage if "/commits/" in key]
    assert len(lost) == 1


def test_a_recent_line_of_a_log_keeps_what_it_names(repository: Repository, store: ClockedStore) -> None:
    head = commit(repository, "main", files(0), None)
    repository.create_branch("side", head)
    side = commit(repository, "side", files(100), head)
    store.clock.sleep(30 * DAY)
    repository.delete_branch("side")
    store.clock.sleep(5 * DAY)
    assert collect_garbage(repository).condemned.total_objects == 0
    repository.create_branch("rescued", side)
    store.clock.sleep(30 * DAY)
    assert collect_garbage(repository).condemned.total_objects == 0
    assert clean(repository)


def test_what_a_young_commit_names_is_kept_although_it_is_old(repository: Repository, store: ClockedStore) -> None:
    staged = ChangeSet.of(packed(repository, files(500)))
    store.clock.sleep(20 * DAY)
    store.before = None
    made: list[CommitId] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(repository.refs), "move_branch", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repository.commit_changes("main", staged, message="", author=AUTHOR, base=None)
    made = [CommitId(key[-69:-5]) for key in store.objects if "/commits/" in key]
    assert collect_garbage(repository).condemned.total_objects == 0
    repository.create_branch("main", made[0])
    assert clean(repository)


def test_a_condemned_object_that_is_needed_again_is_kept(repository: Repository, store: ClockedStore) -> None:
    head, needed, garbage = make_garbage(repository, store)
    store.clock.sleep(8 * DAY)
    collect_garbage(repository)
    again = commit(repository, "main", files(100), head)  # the same bytes as the garbage
    assert garbage & blobs_of(store) == garbage
    store.clock.sleep(8 * DAY)
    report = collect_garbage(repository)
    assert report.kept > 0
    assert {each.path for each in repository.tree_of(again).entries()} == {*files(0), *files(100)}
    assert clean(repository)
    assert needed < blobs_of(store)


def test_a_condemned_commit_can_be_made_a_branch_again(repository: Repository, store: ClockedStore) -> None:
    _, _, garbage = make_garbage(repository, store)
    (lost,) = (CommitId(key[-69:-5]) for key in garbage if "/commits/" in key)
    store.clock.sleep(8 * DAY)
    assert collect_garbage(repository).condemned.total_objects == len(garbage)
    before = dict(store.times)
    reopened(store).create_branch("back", lost)
    assert all(store.times[key] > before[key] for key in garbage)
    store.clock.sleep(8 * DAY)
    assert collect_garbage(repository).deleted.total_objects == 0
    assert clean(repository)
    assert garbage <= blobs_of(store)


def test_a_commit_of_what_was_deleted_is_refused(repository: Repository, store: ClockedStore) -> None:
    staged = ChangeSet.of(packed(repository, files(500)))
    store.clock.sleep(8 * DAY)
    collect_garbage(repository)
    store.clock.sleep(8 * DAY)
    collect_garbage(repository)
    store.clock.sleep(90 * DAY)
    with pytest.raises(ObjectsCollectedError, match="stage the files again"):
        reopened(store).commit_changes("main", staged, message="", author=AUTHOR, base=None)
    assert repository.branches() == {}


def test_a_lease_keeps_what_was_written_since_it_began(repository: Repository, store: ClockedStore) -> None:
    holder = LeaseHolder(store, "repo/", "ds add", seconds=60 * DAY)
    holder.renew()
    staged = ChangeSet.of(packed(repository, files(500)))
    store.clock.sleep(30 * DAY)
    assert collect_garbage(repository).condemned.total_objects == 0
    commit_id = repository.commit_changes("main", staged, message="", author=AUTHOR, base=None)
    assert repository.head("main") == commit_id
    holder.release()
    assert read_leases(store, "repo/") == []


def test_a_lapsed_lease_keeps_nothing_and_goes(repository: Repository, store: ClockedStore) -> None:
    LeaseHolder(store, "repo/", "ds add", seconds=DAY).renew()
    packed(repository, files(500))
    store.clock.sleep(10 * DAY)
    assert collect_garbage(repository).condemned.total_objects == 1
    assert read_leases(store, "repo/") == []


def test_a_lease_from_before_the_list_holds_the_sweep_back(repository: Repository, store: ClockedStore) -> None:
    _, _, garbage = make_garbage(repository, store)
    store.clock.sleep(8 * DAY)
    holder = LeaseHolder(store, "repo/", "a reader", seconds=60 * DAY)
    holder.renew()
    collect_garbage(repository)
    store.clock.sleep(8 * DAY)
    assert collect_garbage(repository).held_by == "a reader"
    assert garbage <= blobs_of(store)
    holder.release()
    assert collect_garbage(repository).deleted.total_objects == len(garbage)


def test_with_no_grace_period_all_is_done_at_once(repository: Repository, store: ClockedStore) -> None:
    _, needed, garbage = make_garbage(repository, store)
    assert collect_garbage(repository, NOW).deleted.total_objects == len(garbage)
    assert blobs_of(store) == needed
    assert clean(repository)


def test_a_dry_run_writes_nothing_and_says_what_would_go(repository: Repository, store: ClockedStore) -> None:
    _, needed, garbage = make_garbage(repository, store)
    store.clock.sleep(8 * DAY)
    store.quiet()
    report = collect_garbage(repository, dry_run=True)
    assert {method for method, _ in store.calls} <= {"list", "stat", "fetch", "read"}
    assert (report.condemned.total_objects, report.live_objects) == (len(garbage), len(needed))
    assert {f"repo/{key}" for key in list_live(repository)} == needed


def test_a_damaged_history_stops_it(repository: Repository, store: ClockedStore) -> None:
    make_garbage(repository, store)
    store.clock.sleep(8 * DAY)
    leaf = next(key for key in repository_nodes(store))
    store.objects[leaf] = b"nonsense"
    before = set(store.objects)
    with pytest.raises(Exception, match=r"tree node|not match"):
        collect_garbage(repository)
    assert {key for key in before if "/gc/" not in key} <= set(store.objects)


def repository_nodes(store: ClockedStore) -> list[str]:
    repository = reopened(store)
    return [f"repo/{key}" for key in list_live(repository) if key.startswith("trees/")]


def test_a_sweep_by_somebody_else_is_left_alone_until_it_is_dead(repository: Repository, store: ClockedStore) -> None:
    from versioning.maintenance.state import Phase, StateObject

    make_garbage(repository, store)
    store.clock.sleep(8 * DAY)
    collect_garbage(repository)
    store.clock.sleep(8 * DAY)
    state = StateObject(store, "repo/")
    state.fetch()
    state.change(phase=Phase.SWEEPING, sweep="another")
    with pytest.raises(CollectingError, match="run the command again"):
        collect_garbage(repository)
    store.clock.sleep(700)
    assert collect_garbage(repository).deleted.total_objects > 0


def test_a_store_without_times_cannot_be_collected(repository: Repository, store: ClockedStore) -> None:
    make_garbage(repository, store)
    store.times = dict.fromkeys(store.times, 0)

    class Timeless(ClockedStore):
        def _stat(self, key: str):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            return replace(super()._stat(key), mtime_ns=None)

    timeless = Timeless(store.clock)
    timeless.objects, timeless.times = store.objects, store.times
    before = dict(store.objects)
    with pytest.raises(StoreClockError):
        collect_garbage(reopened(timeless), NOW)
    assert store.objects == before


def test_what_killed_writers_left_in_a_directory_is_deleted_a_day_later(tmp_path: Path) -> None:
    repository = Repository.init(FileStore(tmp_path), f"{tmp_path}/repo/"[1:])
    commit(repository, "main", files(0), None)
    hours = {"0" * 16: 25, "1" * 16: 1, "lock": 25, "mine": 25}
    for name, age in hours.items():
        path = tmp_path / "repo" / "packs" / f".forebay-tmp-{name}"
        path.write_bytes(b"half")
        os.utime(path, times=(time.time() - age * 3600,) * 2)
    collect_garbage(repository, NOW)
    left = {path.name.removeprefix(".forebay-tmp-") for path in (tmp_path / "repo" / "packs").glob(".forebay-tmp-*")}
    assert left == {"1" * 16, "lock", "mine"}
    assert check_repository(repository).found == 0


def test_a_lease_keeps_the_unfinished_files_of_a_writer_that_waits(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    repository = Repository.init(store, f"{tmp_path}/repo/"[1:])
    commit(repository, "main", files(0), None)
    holder = LeaseHolder(store, repository.prefix, "ds add", seconds=60 * DAY)
    holder._started_ns = time.time_ns() - 3 * DAY * 10**9
    holder.renew()
    path = tmp_path / "repo" / "packs" / f".forebay-tmp-{'0' * 16}"
    path.write_bytes(b"half")
    os.utime(path, times=(time.time() - 2 * DAY,) * 2)
    collect_garbage(repository, NOW)
    assert path.exists()
    holder.release()
    commit(repository, "other", files(40), None)  # else nothing is new, and nobody looks
    collect_garbage(repository, NOW)
    assert not path.exists()
