"""Caches and workers over time: samples, and what happened between two of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cache_runtime.errors import CacheError
from dataset_controller.worker_calls import sample_workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache_runtime import StoreStatus
    from dataset_controller.worker_calls import WorkerSample
    from ds.runtimes import Runtime

_SERVED = "forebay_worker_served_bytes_total"
_LOOKUPS = "forebay_worker_lookups_total"
_READ_RATES = ("bytes_origin", "bytes_peer", "evicted_bytes", "fills")


@dataclass(frozen=True)
class CacheSample:
    """A cache runtime at one moment.

    Attributes:
        runtime: Its name.
        time: When, for people.
        clock: When, monotonic seconds.
        status: This node's cache; None if it cannot be looked at.
        error: Why not.
        workers: Those of the cluster, or the one of this node.
    """

    runtime: str
    time: datetime
    clock: float
    status: StoreStatus | None
    error: str | None
    workers: tuple[WorkerSample, ...]


def take_sample(runtime: Runtime) -> CacheSample:
    """Look at a cache and ask its workers, each within some seconds; nothing that fails is raised."""
    status, error = None, None
    workers: list[WorkerSample] = []
    try:
        status = runtime.store.status()
        if runtime.watched is not None:
            workers = sample_workers(runtime.watched)
    except CacheError as problem:
        error = str(problem)
    return CacheSample(runtime.name, datetime.now(UTC), time.monotonic(), status, error, tuple(workers))


def describe_sample(now: CacheSample, before: CacheSample | None) -> dict[str, Any]:
    """Return a sample as plain data, with rates per second since the one before; pure.

    Rates are None without one before, and for a worker that was started anew meanwhile.
    """
    status = now.status
    seconds = None if before is None else max(1e-6, now.clock - before.clock)
    old = before.status if before is not None else None
    known = {} if before is None else {worker.name: worker for worker in before.workers}
    return {
        "time": now.time.isoformat(timespec="milliseconds"),
        "runtime": now.runtime,
        "error": now.error,
        "used_bytes": None if status is None else status.used_bytes,
        "capacity_bytes": None if status is None else status.capacity_bytes,
        "objects": None if status is None else status.objects,
        "off_reason": None if status is None else status.off_reason,
        "grown_bytes_per_second": None
        if not (seconds and status and old)
        else (status.used_bytes - old.used_bytes) / seconds,
        "shares": {} if status is None else {row.share.name: row.used_bytes for row in status.shares},
        "workers": [_describe_worker(worker, known.get(worker.name), seconds) for worker in now.workers],
    }


def _describe_worker(now: WorkerSample, before: WorkerSample | None, seconds: float | None) -> dict[str, Any]:
    stats: Mapping[str, Any] = now.stats or {}
    store = stats.get("store", {})
    return {
        "name": now.name,
        "url": now.url,
        "state": state_of(now),
        "error": now.error,
        "used_bytes": store.get("used_bytes"),
        "capacity_bytes": store.get("capacity_bytes"),
        "inflight_bytes": stats.get("inflight_bytes"),
        "loads": [
            {name: load.get(name) for name in ("id", "state", "done_bytes", "total_bytes")} for load in now.loads
        ],
        **_rates(now, before, seconds),
    }


def state_of(worker: WorkerSample) -> str:
    """Say in a word how a worker is: ready, leaving, off, refused, silent."""
    if worker.stats is None:
        return "refused" if worker.status else "silent"
    if worker.stats.get("draining"):
        return "leaving"
    return "off" if worker.stats.get("store", {}).get("off_reason") else "ready"


def _rates(now: WorkerSample, before: WorkerSample | None, seconds: float | None) -> dict[str, float | None]:
    names = [f"{name}_per_second" for name in ("grown_bytes", "served_bytes", *_READ_RATES)]
    none: dict[str, float | None] = dict.fromkeys([*names, "hit_ratio"])
    if now.stats is None or before is None or before.stats is None or seconds is None:
        return none
    if now.stats.get("incarnation") != before.stats.get("incarnation"):
        return none
    new, old = now.stats.get("reads", {}), before.stats.get("reads", {})
    gained = {name: (new.get(name, 0) - old.get(name, 0)) / seconds for name in _READ_RATES}
    hits, misses = (_gain(now, before, f'{_LOOKUPS}{{result="{result}"}}') for result in ("hit", "miss"))
    grown = now.stats.get("store", {}).get("used_bytes", 0) - before.stats.get("store", {}).get("used_bytes", 0)
    return {
        "grown_bytes_per_second": grown / seconds,
        "served_bytes_per_second": _gain(now, before, _SERVED) / seconds,
        **{f"{name}_per_second": value for name, value in gained.items()},
        "hit_ratio": hits / (hits + misses) if hits + misses else None,
    }


def _gain(now: WorkerSample, before: WorkerSample, prefix: str) -> float:
    """Return by how much the metrics that begin with a text grew, all together."""
    total = sum(value for name, value in now.metrics.items() if name.startswith(prefix))
    return total - sum(value for name, value in before.metrics.items() if name.startswith(prefix))
