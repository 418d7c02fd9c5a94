from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cache_runtime import BlockStore, CacheOffError, Client, LoadProgress, plan_load, run_load
from sources import Location
from tests.cache_runtime.lake import MIB, whole

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

    from tests.cache_runtime.lake import Lake


def some_locations(lake: Lake) -> list[Location]:
    pack = lake.add("pack", 17 * MIB)
    inside = [Location(pack, start, 10_000) for start in (0, 20_000, 4 * MIB - 5, 13 * MIB)]
    return inside + [whole(lake.add(f"small{n}", 5000 + n)) for n in range(40)] * 2


def test_a_load_fetches_each_missing_byte_once_and_a_second_one_nothing(lake: Lake, client: Client) -> None:
    locations = some_locations(lake)
    plan = plan_load(client, iter(locations))
    small = sum(5000 + n for n in range(40))
    assert (plan.total_objects, plan.fetch_objects, plan.present_bytes, plan.fits) == (41, 41, 0, True)
    assert plan.total_bytes == plan.fetch_bytes == small + 12 * MIB
    assert lake.reads() == []
    seen: list[LoadProgress] = []
    report = run_load(client, plan, on_progress=seen.append)
    assert report.verified
    assert (report.fetched_objects, report.fetched_bytes, report.failures) == (41, plan.total_bytes, ())
    assert (seen[-1].bytes_done, seen[-1].objects_done) == (plan.total_bytes, 41)
    assert sum(int(line.split()[2]) for line in lake.reads()) == plan.total_bytes
    before = client.stats.snapshot()
    again = plan_load(client, locations)
    assert (again.fetch_objects, again.fetch_bytes) == (0, 0)
    assert run_load(client, again).verified
    client.read_many(locations)
    assert (client.stats.snapshot() - before).reads_origin == 0


def test_a_plan_counts_what_is_there(lake: Lake, client: Client) -> None:
    locations = some_locations(lake)
    client.read_many([locations[0], locations[-1]])
    plan = plan_load(client, locations)
    assert (plan.present_bytes, plan.present_objects) == (4 * MIB + 5039, 1)
    assert run_load(client, plan).verified


def test_failures_are_listed_and_the_rest_is_loaded(lake: Lake, client: Client) -> None:
    locations = some_locations(lake)
    broken = locations[7].object
    lake.store.broken.add(broken.key)
    report = run_load(client, plan_load(client, locations))
    assert not report.verified
    assert report.failed_objects == 1
    assert [failure.uri for failure in report.failures] == [broken.uri]
    assert "broken by the test" in report.failures[0].reason
    lake.store.broken.clear()
    count = len(lake.reads())
    report = run_load(client, plan_load(client, locations))
    assert report.verified
    assert len(lake.reads()) == count + 1


def test_a_plan_larger_than_the_capacity_loads_what_fits_and_evicts_none_of_it(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=40 * MIB))
    locations = [whole(lake.add(f"a{n}", 3 * MIB)) for n in range(20)]
    plan = plan_load(client, locations)
    assert not plan.fits
    report = run_load(client, plan)
    assert not report.verified
    assert report.failed_objects == 0
    assert 8 <= report.left_out_objects <= 10
    assert report.fetched_objects + report.left_out_objects == 20
    assert len(lake.reads()) == report.fetched_objects
    assert client.stats.snapshot().evicted_bytes == 0


def test_a_load_replaces_older_data_and_is_complete(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=40 * MIB))
    client.read_many([whole(lake.add(f"old{n}", 3 * MIB)) for n in range(11)])
    locations = [whole(lake.add(f"new{n}", 2 * MIB)) for n in range(10)]
    locations += [whole(lake.add(f"tiny{n}", 40_000)) for n in range(150)]
    plan = plan_load(client, locations)
    assert plan.fits
    report = run_load(client, plan)
    assert report.verified, report
    assert client.stats.snapshot().evicted_bytes > 0


def test_progress_is_told_at_most_ten_times_a_second(lake: Lake, client: Client) -> None:
    seen: list[LoadProgress] = []
    locations = [whole(lake.add(f"a{n}", 2000)) for n in range(300)]
    report = run_load(client, plan_load(client, locations), on_progress=seen.append)
    assert len(seen) <= report.seconds / 0.1 + 2
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    assert seen[-1].eta_seconds == 0


def test_ctrl_c_stops_a_load_which_can_be_resumed(lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    locations = [whole(lake.add(f"a{n}", 20_000)) for n in range(400)]
    plan = plan_load(client, locations)
    read = lake.store.read

    def read_slowly(*args: Any, **kwargs: Any) -> Buffer:
        time.sleep(0.005)
        return read(*args, **kwargs)

    monkeypatch.setattr(lake.store, "read", read_slowly)

    def interrupt(progress: LoadProgress) -> None:
        if progress.objects_done >= 40:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_load(client, plan, on_progress=interrupt, concurrency=4)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("forebay-load")]
    done = len(lake.reads())
    assert 40 <= done < 400
    report = run_load(client, plan_load(client, locations))
    assert report.verified
    assert len(lake.reads()) == 400


def test_a_failing_progress_callback_ends_the_load_and_its_threads(lake: Lake, client: Client) -> None:
    plan = plan_load(client, [whole(lake.add(f"a{n}", 20_000)) for n in range(50)])

    def fail(progress: LoadProgress) -> None:
        raise BrokenPipeError(progress.objects_done)

    with pytest.raises(BrokenPipeError):
        run_load(client, plan, on_progress=fail)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("forebay-load")]
    assert run_load(client, plan).verified


def test_what_is_evicted_between_plan_and_load_is_fetched_again(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=40 * MIB))
    locations = [whole(lake.add("a", 3 * MIB)), whole(lake.add("b", 5000))]
    client.read_many(locations)
    plan = plan_load(client, locations)
    assert plan.fetch_bytes == 0
    for n in range(40):
        client.read(whole(lake.add(f"other{n}", 5 * MIB)))
    report = run_load(client, plan)
    assert report.verified
    assert report.fetched_bytes >= 3 * MIB


def test_a_client_without_a_store_cannot_load(lake: Lake) -> None:
    with pytest.raises(CacheOffError):
        plan_load(Client(lake.origins, None), [])
