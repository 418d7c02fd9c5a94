from __future__ import annotations

from datetime import UTC, datetime

from cache_runtime import StoreStatus
from dataset_controller.worker_calls import WorkerSample, parse_metrics
from ds.watching import CacheSample, describe_sample

LOOKUPS = "forebay_worker_lookups_total"
SERVED = "forebay_worker_served_bytes_total"


def worker(*, hits: int, misses: int, served: int, origin: int, incarnation: str = "1") -> WorkerSample:
    text = f"""
# TYPE {LOOKUPS} counter
{LOOKUPS}{{result="hit"}} {hits}.0
{LOOKUPS}{{result="miss"}} {misses}.0
{SERVED}{{source="local"}} {served}.0
{SERVED}{{source="origin"}} 0.0
not a sample
"""
    stats = {"incarnation": incarnation, "reads": {"bytes_origin": origin}, "store": {"used_bytes": origin}}
    return WorkerSample("w", "http://w", stats, metrics=parse_metrics(text))


def sample(clock: float, used: int, *workers: WorkerSample) -> CacheSample:
    status = StoreStatus("/cache", 1000, used, 1, 1, None)
    return CacheSample("local", datetime(2026, 1, 1, tzinfo=UTC), clock, status, None, workers)


def test_rates_are_what_happened_between_two_looks() -> None:
    before = sample(10.0, 100, worker(hits=10, misses=10, served=1000, origin=500))
    now = sample(12.0, 300, worker(hits=40, misses=20, served=5000, origin=700))
    found = describe_sample(now, before)
    assert found["grown_bytes_per_second"] == 100.0
    (row,) = found["workers"]
    assert (row["hit_ratio"], row["served_bytes_per_second"], row["bytes_origin_per_second"]) == (0.75, 2000.0, 100.0)
    assert row["grown_bytes_per_second"] == 100.0


def test_a_worker_that_was_started_anew_has_no_rates_yet() -> None:
    before = sample(10.0, 100, worker(hits=10, misses=10, served=1000, origin=500))
    now = sample(12.0, 100, worker(hits=0, misses=0, served=0, origin=0, incarnation="2"))
    (row,) = describe_sample(now, before)["workers"]
    assert row["served_bytes_per_second"] is None
    assert row["state"] == "ready"


def test_the_first_look_and_a_silent_worker_have_no_rates() -> None:
    silent = WorkerSample("w", "http://w", None, error="gone")
    found = describe_sample(sample(1.0, 5, silent), None)
    assert found["grown_bytes_per_second"] is None
    assert (found["workers"][0]["state"], found["workers"][0]["hit_ratio"]) == ("silent", None)
