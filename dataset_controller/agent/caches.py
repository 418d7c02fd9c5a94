"""Asks the workers of each cache runtime how they are, and tells."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cache_runtime.errors import CacheError
from cache_runtime.peers import Member, Peers, PeerSecurity, StaticMembers
from dataset_controller.agent.counting import Count, count_cached
from dataset_controller.agent.hits import HitWindow, Lookups
from dataset_controller.agent.sampling import Sample, held_shares
from dataset_controller.operator.objects.workers import token_name, worker_host, worker_names
from dataset_controller.operator.queueing import Key, WorkQueue
from dataset_controller.worker_calls import sample_workers
from sources import SourceError
from versioning import VersioningError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dataset_controller.agent.telling import Teller
    from dataset_controller.runtime_model import CacheRuntime
    from dataset_controller.worker_calls import WorkerSample
    from sources import Location

    Versions = Callable[[Key], tuple[str, int, Iterable[Location]] | None]

_log = logging.getLogger(__name__)
_TAKE_SECONDS = 1.0
_POLL_SECONDS = 3.0
_IDLE_SECONDS = 15.0
"""While nothing changes."""
_BUSY_SECONDS = 60.0
_COUNTED_FIELDS = ("cachedBytes", "cachedPercent", "cachedOn")
_MOST_NODES = 10
_COUNT_SHARE = 0.05
"""Of a processor may go into counting."""
_LOOKUPS = 'forebay_worker_lookups_total{{result="{}"}}'


@dataclass(frozen=True)
class PodState:
    """The pod of a worker, as the cluster says."""

    node: str
    is_ready: bool


@dataclass
class _Cache:
    """What is known of one runtime.

    Attributes:
        runtime: As declared.
        generation: Of that.
        peers: Its workers.
        users: The datasets that use it.
        state: Tells whether its workers hold what they held: the commits of each one that answers, by name.
        changed_at: When that was another one than before.
    """

    runtime: CacheRuntime
    generation: int
    peers: Peers
    users: tuple[Key, ...] = ()
    hits: HitWindow = field(default_factory=HitWindow)
    state: tuple[tuple[str, int], ...] = ()
    changed_at: float = float("-inf")


@dataclass(frozen=True)
class _Counted:
    """A count that was made: of which version, of what the workers held then, and when the next one may be."""

    commit: str
    state: tuple[tuple[str, int], ...]
    next_at: float
    is_whole: bool


class Caches:
    """Any number of threads call `work`.

    Args:
        home: The tokens of workers are in it.
        teller: Told statuses.
        versions: Returns commit, size and locations of a dataset's version, None if there is none.
        pods: Returns the pod of a worker, by namespace and name; None if nobody knows.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        home: Path,
        teller: Teller,
        versions: Versions,
        pods: Callable[[str, str], PodState | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._teller = teller
        self._versions = versions
        self._pods = pods
        self._clock = clock
        self._queue = WorkQueue(clock)
        self._lock = threading.Lock()
        self._caches: dict[Key, _Cache] = {}
        self._users: dict[Key, str] = {}
        self._counted: dict[Key, _Counted] = {}

    def put(self, key: Key, runtime: CacheRuntime, generation: int) -> None:
        """Look after a runtime."""
        with self._lock:
            known = self._caches.get(key)
            if known is None or known.generation != generation:
                peers = self._peers(key, runtime)
                hits = known.hits if known is not None else HitWindow()
                users = self._users_of(key)
                self._caches[key] = _Cache(runtime, generation, peers, users, hits)
        self._queue.add(key)

    def drop(self, key: Key) -> None:
        """Look after a runtime no more."""
        with self._lock:
            self._caches.pop(key, None)

    def use(self, dataset: Key, runtime: str | None) -> None:
        """Note which runtime a dataset uses; None: it is gone, or uses none."""
        with self._lock:
            before = self._users.pop(dataset, None)
            self._counted.pop(dataset, None)
            if runtime is not None:
                self._users[dataset] = runtime
            for name in {before, runtime} - {None}:
                key = Key("CacheRuntime", dataset.namespace, str(name))
                if key in self._caches:
                    self._caches[key].users = self._users_of(key)
        if runtime is None and before is not None:
            self._teller.note(dataset, "cache", {})

    def look_soon(self, dataset: Key) -> None:
        """Count anew how much of a dataset is cached: it has another version."""
        with self._lock:
            name = self._users.get(dataset)
        if name is not None:
            self._queue.add(Key("CacheRuntime", dataset.namespace, name))

    def work(self) -> None:
        """Look at one runtime, if one is due within a second."""
        key = self._queue.take(_TAKE_SECONDS)
        if key is None:
            return
        with self._lock:
            cache = self._caches.get(key)
        if cache is None:
            self._queue.done(key)
            return
        try:
            self._poll(key, cache)
        except Exception:  # noqa: BLE001 - whatever one runtime does to us, the others go on
            _log.exception("internal error runtime=%s", key.name)
            self._queue.failed(key)
            return
        is_busy = self._clock() - cache.changed_at < _BUSY_SECONDS
        self._queue.done(key, again=_POLL_SECONDS if is_busy else _IDLE_SECONDS)

    def close(self) -> None:
        """Let nobody wait any more."""
        self._queue.close()

    def _users_of(self, key: Key) -> tuple[Key, ...]:
        return tuple(user for user, name in self._users.items() if (user.namespace, name) == (key.namespace, key.name))

    def _peers(self, key: Key, runtime: CacheRuntime) -> Peers:
        members = [
            Member(name, f"http://{worker_host(runtime, name, key.namespace)}:{runtime.spec.port}")
            for name in worker_names(runtime)
        ]
        token = self._home / "tokens" / token_name(runtime) / "token"
        return Peers(StaticMembers(members), security=PeerSecurity(token_file=str(token)))

    def _poll(self, key: Key, cache: _Cache) -> None:
        now = self._clock()
        samples = sample_workers(cache.peers)
        cache.hits.note(now, _lookups(samples))
        workers = [self._worker(key, sample) for sample in samples]
        state = tuple(_commits(sample) for sample in samples if sample.stats is not None)
        if state != cache.state:
            cache.state, cache.changed_at = state, now
        status = {
            "workers": workers,
            "usedBytes": sum(worker.get("usedBytes", 0) for worker in workers),
            "capacityBytes": sum(worker.get("capacityBytes", 0) for worker in workers),
        }
        percent = cache.hits.percent()
        if percent is not None:
            status["hitPercent"] = percent
        self._teller.note(key, "cache", status)
        for user in cache.users:
            self._tell_user(user, cache, percent)

    def _worker(self, key: Key, sample: WorkerSample) -> dict[str, Any]:
        pod = self._pods(key.namespace, sample.name)
        answers = sample.stats is not None and not sample.stats.get("draining")
        told: dict[str, Any] = {"name": sample.name, "ready": answers and (pod is None or pod.is_ready)}
        if pod is not None and pod.node:
            told["node"] = pod.node
        store = (sample.stats or {}).get("store") or {}
        for field_name, name in (("usedBytes", "used_bytes"), ("capacityBytes", "capacity_bytes")):
            if isinstance(store.get(name), int):
                told[field_name] = store[name]
        return told

    def _tell_user(self, user: Key, cache: _Cache, hit_percent: int | None) -> None:
        """Tell how much of a dataset's version is cached; count it anew where that may have changed."""
        before = self._teller.known(user)
        fields: dict[str, Any] = {name: before[name] for name in _COUNTED_FIELDS if name in before}
        try:
            found = self._versions(user) if cache.state else None
            if found is not None:
                count = self._count(user, cache, found)
                if count is not None:
                    counted, shares = count
                    cached = found[1] * counted.present_bytes // counted.total_bytes if counted.total_bytes else 0
                    fields = {"cachedBytes": cached, "cachedPercent": counted.percent}
                    nodes = self._nodes(user.namespace, shares, found[1])
                    if nodes:
                        fields["cachedOn"] = nodes
        except (CacheError, SourceError, VersioningError) as error:
            _log.warning("not counted dataset=%s reason=%s", user.name, error)
        if hit_percent is not None and len(cache.users) == 1:  # workers count for all datasets together
            fields["hitPercent"] = hit_percent
        self._teller.note(user, "cache", fields)

    def _count(
        self, user: Key, cache: _Cache, version: tuple[str, int, Iterable[Location]]
    ) -> tuple[Count, dict[str, float]] | None:
        """Count, unless nothing changed since the last time, or that was too short ago for what a count takes."""
        commit, _, wanted = version
        last, now = self._counted.get(user), self._clock()
        if last is not None and last.commit == commit:
            if last.state == cache.state and last.is_whole:
                return None
            if now < last.next_at:
                cache.changed_at = now  # it is counted soon
                return None
        sample, begun = Sample(commit), time.thread_time()
        counted = count_cached(cache.peers, sample.through(wanted))
        shares = held_shares(cache.peers, sample.pieces)
        # of the processor: by the clock most of it may be waiting for a worker that starts again
        wait = (time.thread_time() - begun) / _COUNT_SHARE
        self._counted[user] = _Counted(commit, cache.state, now + wait, counted.is_whole)
        return counted, shares

    def _nodes(self, namespace: str, shares: dict[str, float], size: int) -> list[dict[str, Any]]:
        """Return the nodes that have most of a version, most first."""
        held: dict[str, int] = {}
        for worker, share in shares.items():
            pod = self._pods(namespace, worker)
            if pod is not None and pod.node and share > 0:
                held[pod.node] = max(held.get(pod.node, 0), int(size * share))
        most = sorted(held.items(), key=lambda each: (-each[1], each[0]))[:_MOST_NODES]
        return [{"node": node, "bytes": count} for node, count in most if count > 0]


def _commits(sample: WorkerSample) -> tuple[str, int]:
    store = (sample.stats or {}).get("store") or {}
    return sample.name, int(store.get("commits") or 0)


def _lookups(samples: Iterable[WorkerSample]) -> dict[str, Lookups]:
    return {
        sample.name: Lookups(
            str(sample.stats.get("incarnation")),
            sample.metrics.get(_LOOKUPS.format("hit"), 0.0),
            sample.metrics.get(_LOOKUPS.format("miss"), 0.0),
        )
        for sample in samples
        if sample.stats is not None and sample.metrics
    }
