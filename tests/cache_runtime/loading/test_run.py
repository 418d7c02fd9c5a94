from __future__ import annotations

import multiprocessing
import threading
import time
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cache_runtime import BlockStore, Client, LoadProgress, LoadStop, plan_load, run_load
from cache_runtime.loading.idset import IdSet
from cache_runtime.loading.pieces import group_pieces
from cache_runtime.loading.survey import Survey, cut_runs
from cache_runtime.store.layout import BlockRun
from cache_runtime.store.shares import Share
from sources import Location, ObjectRef, SourceUnavailableError, StoreId, Version
from tests.cache_runtime.lake import MIB, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pytest
    from typing_extensions import Buffer

    from tests.cache_runtime.lake import Lake


class Again:
    """Locations that can be gone through again, and are never all in memory."""

    def __init__(self, locations: Sequence[Location]) -> None:
        self._locations = locations
        self.passes = 0

    def __iter__(self) -> Iterator[Location]:
        self.passes += 1
        yield from self._locations


def slow(lake: Lake, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    read = lake.store.read

    def read_slowly(*args: Any, **kwargs: Any) -> Buffer:
        time.sleep(seconds)
        return read(*args, **kwargs)

    monkeypatch.setattr(lake.store, "read", read_slowly)


def test_locations_are_streamed_and_not_kept(lake: Lake, client: Client) -> None:
    locations = Again([whole(lake.add(f"a{n}", 2000)) for n in range(100)])
    plan = plan_load(client, locations)
    assert plan.locations is locations
    assert run_load(client, plan).verified
    assert locations.passes == 3  # plan, fetch, verify


def test_an_object_of_many_pieces_counts_once_and_what_is_there_takes_no_time(lake: Lake, client: Client) -> None:
    locations = [whole(lake.add("large", 50 * MIB)), whole(lake.add("small", 5))]
    report = run_load(client, plan_load(client, locations), concurrency=1)
    assert (report.fetched_objects, report.total_objects, report.verified) == (2, 2, True)
    seen: list[LoadProgress] = []
    plan = plan_load(client, locations)
    assert run_load(client, plan, on_progress=seen.append).verified
    assert (plan.estimated_seconds, seen[-1].eta_seconds) == (0, 0)


def test_a_load_of_nothing_or_of_empty_objects_is_done(lake: Lake, client: Client) -> None:
    empty = ObjectRef(StoreId("file://"), "objects/empty", Version("v"), 0)
    for locations in ([], [Location(empty, 0, 0)]):
        report = run_load(client, plan_load(client, locations))
        assert (report.verified, report.total_objects) == (True, 0)
    assert client.read_many([Location(empty, 0, 0)] * 2) == [b"", b""]
    assert lake.reads() == []


def test_a_deadline_ends_a_load_and_names_what_is_not_there(
    lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(lake, monkeypatch, 0.02)
    locations = [whole(lake.add(f"a{n}", 2000)) for n in range(300)]
    plan = plan_load(client, locations)
    report = run_load(client, plan, concurrency=4, deadline_seconds=0.5)
    assert (report.stopped, report.verified) == (LoadStop.DEADLINE, False)
    assert 0 < report.fetched_objects < 300
    assert report.failed_objects == len(report.failures) == 300 - report.fetched_objects
    assert {failure.kind for failure in report.failures} == {LoadStop.DEADLINE}
    assert plan_load(client, locations).present_objects == report.fetched_objects


def test_a_cancelled_load_keeps_what_it_fetched(lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(lake, monkeypatch, 0.01)
    locations = [whole(lake.add(f"a{n}", 2000)) for n in range(400)]
    cancel = threading.Event()
    report = run_load(
        client, plan_load(client, locations), concurrency=4, cancel=cancel, on_progress=lambda _: cancel.set()
    )
    assert report.stopped == LoadStop.CANCELLED
    assert report.fetched_objects == len(lake.reads()) < 400
    assert run_load(client, plan_load(client, locations)).verified
    assert len(lake.reads()) == 400


def test_an_origin_that_is_down_ends_a_load_after_some_tries(
    lake: Lake, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = [whole(lake.add(f"a{n}", 2000)) for n in range(2000)]
    tries: list[str] = []

    def fail(key: str, **_: Any) -> Buffer:
        tries.append(key)
        raise SourceUnavailableError("connection refused")

    run_load(client, plan_load(client, locations[:100]))
    monkeypatch.setattr(lake.store, "read", fail)
    report = run_load(client, plan_load(client, locations))
    assert len(tries) <= 8 + 16
    assert (report.failed_objects, len(report.failures)) == (1900, 1900)
    assert {failure.kind for failure in report.failures} == {"source_unavailable"}
    assert plan_load(client, locations).present_objects == 100


def test_loads_give_way_to_reads_and_still_get_on(lake: Lake, client: Client) -> None:
    locations = [whole(lake.add(f"a{n}", 2000)) for n in range(200)]
    started = time.monotonic()
    report = run_load(client, plan_load(client, locations), concurrency=2, busy=lambda: True)
    assert report.verified
    assert time.monotonic() - started > 0.2


def test_a_load_fills_its_share_within_its_quota(lake: Lake, client: Client) -> None:
    share = Share("images", priority=3, quota_bytes=20 * MIB)
    locations = [whole(lake.add(f"a{n}", 4 * MIB)) for n in range(10)]
    plan = plan_load(client, locations, share=share)
    assert not plan.fits
    report = run_load(client, plan, share=share)
    assert report.fetched_objects == 4
    assert report.failed_objects == 0
    assert report.fetched_objects + report.left_out_objects == 10
    assert client.store is not None
    (row,) = [row for row in client.store.status().shares if row.share.name == "images"]
    assert 16 * MIB <= row.used_bytes <= 20 * MIB


def test_a_plan_tells_what_will_be_evicted_and_how_long_it_takes(lake: Lake, cache_path: Path) -> None:
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=40 * MIB))
    run_load(client, plan_load(client, [whole(lake.add(f"old{n}", 3 * MIB)) for n in range(12)]))
    plan = plan_load(client, [whole(lake.add("new", 10 * MIB))], bytes_per_second=float(MIB))
    assert 5 * MIB <= plan.evict_bytes <= 12 * MIB
    assert plan.estimated_seconds == 10.0


def load_in_child(client: Client, locations: list[Location], barrier: Any) -> None:
    barrier.wait(30)
    assert run_load(client, plan_load(client, locations)).verified


def test_two_processes_that_load_the_same_ask_the_origin_once(lake: Lake, client: Client) -> None:
    locations = [whole(lake.add(f"a{n}", 20_000)) for n in range(300)] + [whole(lake.add("large", 30 * MIB))]
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    children = [context.Process(target=load_in_child, args=(client, locations, barrier)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert sum(int(line.split()[2]) for line in lake.reads()) == 300 * 20_000 + 30 * MIB


@given(st.lists(st.lists(st.binary(min_size=16, max_size=16) | st.sampled_from([bytes(16), bytes(15) + b"\1"]))))
def test_an_id_set_is_a_set(batches: list[list[bytes]]) -> None:
    model: set[bytes] = set()
    found = IdSet()
    for batch in batches:
        new = found.add(batch)
        for one, is_new in zip(batch, new, strict=True):
            assert is_new == (one not in model)
            model.add(one)
    assert len(found) == len(model)
    assert all(one in found for one in model)
    assert bytes(14) + b"\7\7" not in found or bytes(14) + b"\7\7" in model


@given(st.sets(st.integers(0, 80)).map(sorted))
def test_runs_cover_the_blocks_and_cross_no_border_of_placement(blocks: list[int]) -> None:
    runs = list(cut_runs(blocks))
    assert [block for run in runs for block in range(run.first, run.last + 1)] == blocks
    assert all(run.first // 16 == run.last // 16 and run.last - run.first < 4 for run in runs)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9 * MIB)), max_size=30), st.integers(1, 5))
def test_a_survey_counts_each_byte_once_and_groups_lose_nothing(rows: list[tuple[int, int]], limit: int) -> None:
    refs = [ObjectRef(StoreId("s3://b"), f"k{key}-{size}", Version("etag:x"), size) for key, size in rows]
    survey = Survey(lambda wanted: [list(blocks) for _, blocks in wanted])
    pieces = list(survey.missing([Location(ref, 0, ref.size) for ref in refs] * 2))
    assert survey.objects == len({ref.id for ref in refs})
    assert survey.bytes == sum({ref.id: ref.size for ref in refs}.values())
    grouped = [
        piece for group in group_pieces(((piece, ()) for piece in pieces), limit=limit) for piece in group.pieces
    ]
    assert sorted((ref.key, run) for ref, run in grouped) == sorted((ref.key, run) for ref, run in pieces)
    assert len(set(pieces)) == len(pieces)
    assert all(run == BlockRun(0, 0) for ref, run in pieces if ref.size <= MIB)
