"""Races and failures that no single interleaving of two processes shows."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sources import FileStore
from tests.versioning.maintenance.places import DAY, Clock, ClockedStore, make_repository, packed, reopened
from tests.versioning.maintenance.test_interleaving import Scene, commit, content
from tests.versioning.samples import AUTHOR, TINY
from versioning import ChangeSet, NodeFiles, Repository
from versioning.errors import CollectingError, HistoryCutError, ObjectsCollectedError
from versioning.maintenance import ExpirePolicy, GcPolicy, check_repository, collect_garbage, expire_history
from versioning.maintenance.leases import LeaseHolder, read_leases
from versioning.maintenance.state import Phase, StateObject
from versioning.maintenance.sweeping import SweepClaim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sources import ObjectStat, Version


def state_of(scene: Scene) -> StateObject:
    state = StateObject(scene.store, "repo/")
    state.fetch()
    return state


def collect_twice(scene: Scene) -> None:
    for _ in range(2):
        scene.clock.sleep(8 * DAY)
        collect_garbage(scene.fresh())


def test_a_sweep_that_was_broken_off_while_a_writer_wrote_again_is_noticed() -> None:
    """The state is back to what it was, but a delete came between: only its version tells."""
    scene = Scene(condemned=True)
    pack = scene.staged.upserts.column("key")[0].as_py()

    def sweep_and_give_back(number: int, method: str, key: str) -> None:
        if method == "put" and key == f"repo/{pack}":
            scene.store.quiet()
            state = state_of(scene)
            state.change(phase=Phase.SWEEPING, sweep="another")
            scene.store.delete(key)  # its time was looked at before the writer wrote it again
            state.change(phase=Phase.CONDEMNED, sweep="")

    scene.store.after = sweep_and_give_back
    with pytest.raises(ObjectsCollectedError):
        scene.commit_staged()
    scene.verify()


def test_a_delete_that_is_under_way_keeps_the_claim() -> None:
    """Ctrl-C twice: the pool is not waited for."""
    scene = Scene(condemned=True)
    with SweepClaim(state_of(scene)) as claim:
        claim.begin()
    with pytest.raises(CollectingError):
        claim.begin()
    assert state_of(scene).current.phase is Phase.SWEEPING
    scene.clock.sleep(900)
    scene.commit_staged()
    scene.verify()


def test_a_machine_that_slept_deletes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A monotonic clock stands still in sleep, and others have taken the claim for dead meanwhile."""
    scene = Scene(condemned=True)
    slept = 0.0
    real = time.time
    monkeypatch.setattr("versioning.maintenance.stopwatch.time.time", lambda: real() + slept)

    def sleep(number: int, method: str, key: str) -> None:
        nonlocal slept
        if method == "stat" and "/packs/" in key:
            slept = 3600.0

    scene.store.after = sleep
    with pytest.raises(CollectingError, match="took too long"):
        scene.collect()
    assert not [key for method, key in scene.store.calls if method == "delete" and "/packs/" in key]
    scene.verify()


class Rounding(ClockedStore):
    """Lists milliseconds and tells whole seconds, as S3 servers do whose header is an HTTP date."""

    def stat(self, key: str) -> ObjectStat:
        found = super().stat(key)
        assert found.mtime_ns is not None
        return replace(found, mtime_ns=found.mtime_ns // 10**9 * 10**9)


def test_a_store_that_tells_times_in_two_ways_is_collected() -> None:
    store = Rounding(Clock())
    repository = make_repository(store)
    head = commit(repository, "main", 0, None)
    repository.create_branch("side", head)
    lost = commit(repository, "side", 100, head)
    repository.delete_branch("side")
    store.clock.sleep(8 * DAY)
    condemned = collect_garbage(reopened(store)).condemned.total_objects
    reopened(store).create_branch("again", lost)  # writes all of it again
    store.clock.sleep(8 * DAY)
    assert collect_garbage(reopened(store)).kept == condemned
    reopened(store).delete_branch("again")
    for _ in range(2):
        store.clock.sleep(8 * DAY)
        report = collect_garbage(reopened(store))
    assert report.deleted.total_objects == condemned
    assert check_repository(reopened(store)).found == 0


def test_a_process_that_remembers_a_collected_commit_cannot_name_it() -> None:
    scene = Scene(condemned=True)
    lasting = scene.fresh()
    list(lasting.tree_of(scene.lost).entries())
    collect_twice(scene)
    scene.clock.sleep(3 * DAY)
    change = ChangeSet.of(packed(lasting, content(500)))
    with pytest.raises(ObjectsCollectedError, match="name another one"):
        lasting.create_branch("back", scene.lost)
    with pytest.raises(ObjectsCollectedError):
        lasting.create_tag("v1", scene.lost)
    with pytest.raises(ObjectsCollectedError):
        lasting.move_branch("main", scene.lost, force=True)
    with pytest.raises(ObjectsCollectedError):
        lasting.commit_changes("new", change, message="", author=AUTHOR, base=scene.lost)
    with pytest.raises(ObjectsCollectedError):
        lasting.merge(scene.lost, "main", author=AUTHOR)
    scene.verify()


@pytest.mark.parametrize("later", [0, 30 * DAY], ids=["at once", "a month later"])
def test_a_writer_that_sleeps_between_upload_and_ref_is_refused(later: float) -> None:
    """Its nodes and its commit were written, condemned and deleted while it slept."""
    scene = Scene(condemned=False)

    def sleep(number: int, method: str, key: str) -> None:
        if method == "put" and "/commits/" in key:
            scene.store.quiet()
            collect_twice(scene)
            scene.clock.sleep(later)

    scene.store.after = sleep
    with pytest.raises(ObjectsCollectedError):
        commit(scene.fresh(), "main", 300, scene.head)
    scene.verify()


def test_a_branch_that_is_renamed_while_the_refs_are_read_is_not_missed() -> None:
    def scene_with_branch() -> Scene:
        scene = Scene(condemned=False)
        made = commit(scene.fresh(), "old", 700, scene.head)
        scene.acknowledged = [scene.head]
        scene.clock.sleep(30 * DAY)
        assert scene.fresh().head("old") == made
        scene.store.quiet()
        return scene

    scene = scene_with_branch()
    collect_garbage(scene.fresh())
    reads = [n for n, (_, key) in enumerate(scene.store.calls, 1) if "/refs/" in key or "/logs/heads" in key]
    for number in reads:
        scene = scene_with_branch()
        scene.store.before = renaming(scene, number)
        collect_garbage(scene.fresh())
        at = scene.fresh().head("new")
        assert at is not None
        key = f"repo/commits/{at[:2]}/{at}.json"
        scene.clock.sleep(8 * DAY)
        collect_garbage(scene.fresh())
        assert key in scene.store.objects
        scene.verify()


def renaming(scene: Scene, number: int) -> Callable[[int, str, str], None]:
    def rename(at: int, method: str, key: str) -> None:
        if at == number:
            scene.store.before = None
            scene.fresh().rename_branch("old", "new")

    return rename


def test_a_node_that_the_local_cache_has_is_still_uploaded(tmp_path: Path) -> None:
    scene = Scene(condemned=False)
    writer = scene.fresh()
    writer.nodes.files = NodeFiles(tmp_path)
    made = commit(writer, "other", 900, scene.head)
    writer.delete_branch("other")
    for _ in range(3):
        scene.clock.sleep(9 * DAY)
        collect_garbage(scene.fresh())
    assert f"repo/commits/{made[:2]}/{made}.json" not in scene.store.objects
    again = scene.fresh()
    again.nodes.files = NodeFiles(tmp_path)
    scene.acknowledged.append(commit(again, "main", 900, scene.head))
    scene.verify()


def test_changes_against_an_expired_commit_are_refused_with_a_next_step() -> None:
    scene = Scene(condemned=False)
    for number in range(3):
        commit(scene.fresh(), "main", 200 + 20 * number, scene.fresh().head("main"))
    expire_history(scene.fresh(), ExpirePolicy(newest=1))
    change = ChangeSet.of(packed(scene.fresh(), content(800)))
    scene.fresh().commit_changes("main", change, message="", author=AUTHOR, base=scene.head)  # still there
    for _ in range(3):
        scene.clock.sleep(8 * DAY)
        collect_garbage(scene.fresh())
    later = ChangeSet.of(packed(scene.fresh(), content(850)))
    with pytest.raises(ObjectsCollectedError, match="ds reset, then ds add"):
        scene.fresh().commit_changes("main", later, message="", author=AUTHOR, base=scene.head)
    assert check_repository(scene.fresh()).found == 0


def test_an_expiry_is_seen_by_the_next_collection() -> None:
    scene = Scene(condemned=False)
    scene.make_again()
    for _ in range(3):
        scene.clock.sleep(8 * DAY)
        collect_garbage(scene.fresh())
    expire_history(scene.fresh(), ExpirePolicy(newest=1))
    report = collect_garbage(scene.fresh())
    assert not report.unchanged
    assert report.condemned.total_objects > 0


def test_a_merge_whose_base_was_cut_off_is_refused() -> None:
    """With nothing to compare with, a file that one side deleted would come back."""
    scene = Scene(condemned=False)
    repository = scene.fresh()
    repository.create_branch("topic", scene.head)
    commit(repository, "topic", 300, scene.head)
    gone = repository.commit_changes(
        "main", ChangeSet.of([], ["000"]), message="", author=AUTHOR, base=repository.head("main")
    )
    commit(repository, "main", 400, gone)
    expire_history(repository, ExpirePolicy(newest=1))
    topic = repository.resolve("topic")
    with pytest.raises(HistoryCutError, match="ds cherry-pick"):
        scene.fresh().merge(topic, "main", author=AUTHOR)
    assert scene.fresh().tree("main").get("000") is None


def test_a_process_learns_of_an_expiry_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(condemned=False)
    scene.make_again()
    lasting = scene.fresh()
    assert len(list(lasting.log("main"))) == 2
    expire_history(scene.fresh(), ExpirePolicy(newest=1))
    real = time.monotonic
    monkeypatch.setattr("versioning.commits.time.monotonic", lambda: real() + 600)
    assert len(list(lasting.log("main"))) == 1


def test_a_lease_that_lapsed_and_was_taken_away_is_made_again() -> None:
    scene = Scene(condemned=False)
    holder = LeaseHolder(scene.store, "repo/", "ds add", seconds=DAY)
    holder.renew()
    (before,) = read_leases(scene.store, "repo/")
    collect_twice(scene)
    assert read_leases(scene.store, "repo/") == []
    holder.renew()
    (again,) = read_leases(scene.store, "repo/")
    assert again.started_ns == before.started_ns
    holder.release()
    assert read_leases(scene.store, "repo/") == []


def test_a_directory_is_asked_past_the_memory_of_a_network_file_system(tmp_path: Path) -> None:
    """Opening a file asks the server, a stat alone does not; and garbage in a directory does go."""
    repository = Repository.init(FileStore(tmp_path), f"{tmp_path}/repo/"[1:], spec=TINY)
    head = commit(repository, "main", 0, None)
    repository.create_branch("side", head)
    commit(repository, "side", 100, head)
    repository.delete_branch("side")
    time.sleep(0.05)  # files are dated by a clock that ticks every 4 ms, the branch's log by one that does not
    opened: list[str] = []
    read = FileStore.read

    def noted(self: FileStore, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        opened.append(key)
        return read(self, key, start=start, length=length, version=version)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileStore, "read", noted)
        report = collect_garbage(repository, GcPolicy(grace_seconds=0))
    assert report.deleted.total_objects == len(set(opened) - {key for key in opened if "/gc/" in key}) > 0
    assert check_repository(repository).found == 0
