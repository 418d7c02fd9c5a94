"""What the operator counts, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


class Metrics:
    """Counters of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciled = Counter(
            "forebay_controller_reconciles",
            "Objects looked at, by kind and by how it ended: done, refused, failed.",
            ["kind", "result"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "forebay_controller_reconcile_seconds",
            "Time to look at one object and to do what follows.",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.actions = Counter(
            "forebay_controller_actions", "Actions done, by name.", ["action"], registry=self.registry
        )
        self.requests = Counter(
            "forebay_controller_api_requests",
            "Answers of the API server, by method and status.",
            ["method", "status"],
            registry=self.registry,
        )
        self.leads = Gauge("forebay_controller_leads", "1 while this one acts.", registry=self.registry)

    def follow(self, *, waiting: Callable[[], int], mirrored: Callable[[], int]) -> None:
        """Show what is counted elsewhere."""
        for name, text, read in (
            ("forebay_controller_queue_objects", "Objects that are to be looked at now.", waiting),
            ("forebay_controller_mirror_objects", "Objects of the cluster that are kept in memory.", mirrored),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def answered(self, method: str, status: int) -> None:
        """Count an answer of the API server."""
        self.requests.labels(method, str(status)).inc()
