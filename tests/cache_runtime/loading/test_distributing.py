from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from cache_runtime.errors import MembershipError
from cache_runtime.loading import LoadProgress, LoadStop, plan_distributed, run_distributed
from cache_runtime.peers import Members, Peers, StaticMembers, group_of, rank
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.loading.loaders import crowd

if TYPE_CHECKING:
    from pathlib import Path

    from sources import Location
    from tests.cache_runtime.lake import Lake


def some_locations(lake: Lake, *, small: int = 300, large: int = 3) -> list[Location]:
    found = [whole(lake.add(f"small{n}", 3000 + n)) for n in range(small)]
    return found + [whole(lake.add(f"large{n}", 9 * MIB + n)) for n in range(large)]


def read_bytes(lake: Lake) -> int:
    return sum(int(line.split()[2]) for line in lake.reads())


def test_four_workers_fetch_each_byte_once_and_each_has_its_own(lake: Lake, tmp_path: Path) -> None:
    locations = some_locations(lake)
    total = sum(location.length for location in locations)
    with crowd(lake, tmp_path, "a", "b", "c", "d") as workers:
        plan = plan_distributed(workers.peers, iter(locations))
        assert (plan.total_objects, plan.total_bytes, plan.origin_bytes, plan.fits) == (303, total, total, True)
        assert lake.reads() == []
        seen: list[LoadProgress] = []
        report = run_distributed(workers.peers, plan, on_progress=seen.append)
        assert report.verified, report
        assert (report.fetched_bytes, report.origin_bytes) == (total, total)
        assert seen[-1].bytes_done == total
        assert read_bytes(lake) == total
        again = plan_distributed(workers.peers, locations)
        assert again.fetch_bytes == 0
        assert run_distributed(workers.peers, again).verified
    assert read_bytes(lake) == total
    members = Members(workers.members)
    for location in locations:
        ref = location.object
        owner = rank(members, ref.id, group_of(ref, 0), 1)[0]
        found = workers.store(owner.name).find(ref, 0, ref.size)
        assert found is not None
        assert bytes(found) == lake.expected(location)


def test_replicas_come_from_the_owner_not_from_the_origin(lake: Lake, tmp_path: Path) -> None:
    locations = some_locations(lake, small=60, large=2)
    total = sum(location.length for location in locations)
    with crowd(lake, tmp_path, "a", "b", "c", replicas=2) as workers:
        plan = plan_distributed(workers.peers, locations, replicas=2)
        assert (plan.total_bytes, plan.origin_bytes, plan.copies_bytes) == (2 * total, total, total)
        report = run_distributed(workers.peers, plan)
        assert report.verified, report
        assert (report.origin_bytes, report.peer_bytes) == (total, total)
    assert read_bytes(lake) == total


def test_what_a_killed_worker_had_to_do_is_done_by_the_next_candidates(lake: Lake, tmp_path: Path) -> None:
    locations = some_locations(lake, small=600, large=0)
    with crowd(lake, tmp_path, "a", "b", "c", origin_seconds=0.05) as workers:
        plan = plan_distributed(workers.peers, locations)
        killed = threading.Event()

        def kill(now: LoadProgress) -> None:
            if now.bytes_done > plan.total_bytes // 5 and not killed.is_set():
                killed.set()
                workers.processes["b"].kill()

        report = run_distributed(workers.peers, plan, on_progress=kill)
        assert killed.is_set()
        assert report.verified, report
        missing = {name for name in ("a", "c") for location in locations if not _has(workers.store(name), location)}
        assert missing == {"a", "c"}  # each has its part
        assert all(any(_has(workers.store(name), location) for name in ("a", "c")) for location in locations)


def _has(store: object, location: Location) -> bool:
    return store.find(location.object, 0, location.length) is not None  # type: ignore[attr-defined]


def test_a_cancelled_load_stops_at_the_workers_and_can_be_resumed(lake: Lake, tmp_path: Path) -> None:
    locations = some_locations(lake, small=600, large=0)
    cancel = threading.Event()

    def cancel_when_begun(progress: LoadProgress) -> None:
        if progress.objects_done:
            cancel.set()

    with crowd(lake, tmp_path, "a", "b", origin_seconds=0.05) as workers:
        plan = plan_distributed(workers.peers, locations)
        report = run_distributed(workers.peers, plan, cancel=cancel, on_progress=cancel_when_begun)
        assert report.stopped == LoadStop.CANCELLED
        assert not report.verified
        assert report.failures[0].kind == LoadStop.CANCELLED
        again = plan_distributed(workers.peers, locations)
        assert 0 < again.fetch_objects < 600
        assert run_distributed(workers.peers, again).verified
    assert len(lake.reads()) == 600


def test_failing_objects_are_named_and_the_rest_is_loaded(lake: Lake, tmp_path: Path) -> None:
    locations = some_locations(lake, small=50, large=1)
    broken = locations[7].object
    (lake.root / "broken-keys").write_text(broken.key)
    with crowd(lake, tmp_path, "a", "b") as workers:
        report = run_distributed(workers.peers, plan_distributed(workers.peers, locations))
        assert report.failed_objects == 1
        assert [(one.uri, one.kind) for one in report.failures] == [(broken.uri, "source_unavailable")]
        assert plan_distributed(workers.peers, locations).fetch_objects == 1


def test_what_workers_have_no_room_for_is_left_out_and_nothing_is_evicted_for_it(lake: Lake, tmp_path: Path) -> None:
    locations = [whole(lake.add(f"large{n}", 4 * MIB)) for n in range(30)]
    with crowd(lake, tmp_path, "a", "b", capacity_bytes=40 * MIB) as workers:
        plan = plan_distributed(workers.peers, locations)
        assert not plan.fits
        report = run_distributed(workers.peers, plan)
        assert not report.verified
        assert 8 <= report.left_out_objects <= 16
        assert (report.failed_objects, report.fetched_objects) == (0, 30 - report.left_out_objects)
    assert read_bytes(lake) == report.fetched_bytes


def test_a_load_into_no_workers_is_refused() -> None:
    with pytest.raises(MembershipError):
        plan_distributed(Peers(StaticMembers([])), [])
