"""Asking workers about themselves."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from cache_runtime.errors import CacheError, PeerError
from cache_runtime.protocol import LOADS_PATH, METRICS_PATH, STATS_PATH, parse_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cache_runtime.peers import Member, Peers

_MAX_BYTES = 16 << 20
_SECONDS = 5.0
_AT_ONCE = 32


@dataclass(frozen=True)
class WorkerAnswer:
    """What a worker said.

    Attributes:
        document: Its JSON.
        skew_seconds: How far its clock is ahead of this machine's, to a second; None if it did not tell.
    """

    document: dict[str, Any]
    skew_seconds: float | None


@dataclass(frozen=True)
class WorkerSample:
    """A worker at one moment.

    Attributes:
        name, url: The member.
        stats: Its `/v1/stats`; None if it did not answer.
        loads: Its loads that are not over.
        metrics: Its counters and gauges, by name and labels as Prometheus writes them.
        error: Why it did not answer.
        status: HTTP status of the refusal; 0: no answer at all.
        skew_seconds: As in `WorkerAnswer`.
    """

    name: str
    url: str
    stats: dict[str, Any] | None
    loads: tuple[dict[str, Any], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    status: int = 0
    skew_seconds: float | None = None


def ask_worker(peers: Peers, member: Member, path: str, *, body: bytes = b"") -> WorkerAnswer:
    """Send a small request and return its answer; with a body it is a POST.

    Raises:
        PeerError: If the worker does not answer, or refuses; `status` tells.
        MembershipError: If the certificates cannot be used.
    """
    answer, skew = _ask(peers, member, path, body)
    try:
        document = json.loads(answer)
    except ValueError as error:
        raise PeerError(member.name, "answered with something else than JSON; is this a worker?") from error
    return WorkerAnswer(document if isinstance(document, dict) else {}, skew)


def parse_metrics(text: str) -> dict[str, float]:
    """Return the samples of Prometheus' text format; lines that are none are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            with suppress(ValueError):
                found[name] = float(value)
    return found


def _ask(peers: Peers, member: Member, path: str, body: bytes) -> tuple[bytes, float | None]:
    headers = {"Content-Type": "application/json"} if body else {}
    method = "POST" if body else "GET"
    with peers.connections.request(member, method, path, headers=headers, body=body, idle_seconds=_SECONDS) as exchange:
        exchange.begin()
        if exchange.status not in (200, 202):
            failure = parse_error(exchange.read_error())
            reason = f"answered {exchange.status} {failure.kind}: {failure.message}"
            raise PeerError(member.name, reason[:500], status=exchange.status, failure=failure.kind)
        skew = _skew(exchange.header("Date"))
        return bytes(exchange.read_rest(_MAX_BYTES)), skew


def sample_workers(peers: Peers) -> list[WorkerSample]:
    """Ask all workers for their statistics and loads, side by side; one that fails says why."""
    members: Sequence[Member] = list(peers.members())
    if not members:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(members)), thread_name_prefix="ds-workers") as pool:
        return list(pool.map(lambda member: _sample(peers, member), members))


def _sample(peers: Peers, member: Member) -> WorkerSample:
    try:
        found = ask_worker(peers, member, STATS_PATH)
    except CacheError as error:
        status = error.status if isinstance(error, PeerError) else 0
        return WorkerSample(member.name, member.url, None, error=str(error), status=status)
    loads: list[dict[str, Any]] = []
    metrics: dict[str, float] = {}
    with suppress(CacheError):  # it takes no loads
        loads = ask_worker(peers, member, LOADS_PATH).document.get("loads", [])
    with suppress(CacheError):
        metrics = parse_metrics(_ask(peers, member, METRICS_PATH, b"")[0].decode("utf-8", "replace"))
    running = tuple(load for load in loads if load.get("state") in ("waiting", "running"))
    skew = found.skew_seconds
    return WorkerSample(member.name, member.url, found.document, running, metrics, skew_seconds=skew)


def _skew(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
    except ValueError:
        return None
