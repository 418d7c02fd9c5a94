"""What a worker counts, in Prometheus' format; a registry of its own, so that two workers fit into one process."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cache_runtime.errors import CacheOffError
from cache_runtime.protocol import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from cache_runtime.worker.node import Node

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one worker; those of its store and client are read as they are asked for."""

    def __init__(self, node: Node) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "forebay_worker_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "forebay_worker_request_seconds",
            "Time to answer a request, its body included.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._served = Counter(
            "forebay_worker_served_bytes", "Bytes of objects sent.", ["source"], registry=self._registry
        )
        self._lookups = Counter(
            "forebay_worker_lookups",
            "Ranges asked for: hit (all of it was here), miss, error.",
            ["result"],
            registry=self._registry,
        )
        self._handed = Counter(
            "forebay_worker_handed_over_bytes", "Bytes that the next worker took.", registry=self._registry
        )
        inflight = Gauge("forebay_worker_inflight_bytes", "Memory promised to answers.", registry=self._registry)
        inflight.set_function(lambda: node.budget.used_bytes)
        draining = Gauge("forebay_worker_draining", "1 while it is leaving.", registry=self._registry)
        draining.set_function(lambda: node.draining)
        self._registry.register(_StoreCollector(node))
        # finding a labelled counter costs more than counting
        self._lookups_of = {result: self._lookups.labels(result) for result in ("hit", "miss", "error")}
        self._served_from = {source: self._served.labels(source.value) for source in Source}
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        children = self._children.get((route, status))
        if children is None:
            children = self._requests.labels(route, status), self._seconds.labels(route)
            self._children[route, status] = children
        children[0].inc()
        children[1].observe(seconds)

    def count_served(self, source: Source, size: int) -> None:
        """Count bytes of objects that were sent."""
        self._served_from[source].inc(size)

    def count_lookups(self, result: str, number: int = 1) -> None:
        """Count ranges that were asked for: `hit`, `miss` or `error`."""
        self._lookups_of[result].inc(number)

    def count_handed_over(self, size: int) -> None:
        """Count bytes that the next worker took."""
        self._handed.inc(size)

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it; looks into the store, so for a thread."""
        return generate_latest(self._registry)


class _StoreCollector(Collector):
    """The store's state and the client's counters, under the names of `StoreStatus` and `ReadSnapshot`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        for name, value in asdict(self._node.client.stats.snapshot()).items():
            if isinstance(value, int):
                yield CounterMetricFamily(f"forebay_{name}", "See ReadSnapshot.", value=value)
        try:
            status = self._node.store.status()
        except CacheOffError:
            yield GaugeMetricFamily("forebay_store_up", "1 while the store is filled.", value=0)
            return
        yield GaugeMetricFamily(
            "forebay_store_up", "1 while the store is filled.", value=float(status.off_reason is None)
        )
        for name, text in _STATUS.items():
            yield GaugeMetricFamily(f"forebay_store_{name}", text, value=getattr(status, name))

    def describe(self) -> Iterator[Metric]:
        """Say nothing in advance: else registering would look into the store."""
        return iter(())


_STATUS = {
    "capacity_bytes": "What the cache may use.",
    "used_bytes": "What it uses or has promised to fills.",
    "objects": "Objects of which anything is cached.",
    "blocks": "Cached blocks of large objects and records of small ones.",
}
