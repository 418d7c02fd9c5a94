"""Runs the agent of a namespace: what is declared comes by watches, what is found goes into statuses and events."""

from __future__ import annotations

import logging
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from dataset_controller.agent.caches import Caches, PodState
from dataset_controller.agent.engine import Engine
from dataset_controller.agent.statuses import CACHE_FIELDS, CONDITIONS, Subject
from dataset_controller.agent.telling import Teller
from dataset_controller.crds import GROUP, VERSION, plural_of
from dataset_controller.errors import ClusterError
from dataset_controller.fields import API_VERSION
from dataset_controller.model import Dataset
from dataset_controller.operator.mirror import Mirror
from dataset_controller.operator.observing import InvalidSpecError, Models
from dataset_controller.operator.planning.actions import Ref, Tell
from dataset_controller.operator.queueing import Key
from dataset_controller.operator.watching import Watched, Watcher
from dataset_controller.runtime_model import CacheRuntime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import BaseModel

    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.mirror import Document

    Changed = Callable[[Document | None, Document | None], None]

_log = logging.getLogger(__name__)
MANAGER = "forebay-agent"
_WORKERS = "app.kubernetes.io/component=worker"
_LOOK_THREADS, _CACHE_THREADS, _TELL_THREADS = 8, 2, 2
_END_SECONDS = 30.0
_RUNTIME_FIELDS = ("capacityBytes", "usedBytes", "hitPercent", "workers")


@dataclass(frozen=True)
class AgentConfig:
    """How an agent runs.

    Attributes:
        namespace: The one that it looks after.
        home: Secrets and tokens are in it, and room for what it needs.
        host: Where it answers probes; "" for every address.
        port: 0 for any that is free.
    """

    namespace: str
    home: Path
    host: str = ""
    port: int = 7071


def run_agent(config: AgentConfig) -> None:
    """Be the agent of a namespace until SIGTERM or SIGINT; in the main thread.

    Then it begins nothing new, and ends what is under way. Killed instead, it loses nothing.

    Raises:
        ClusterError: If there is no cluster to ask, or it cannot listen.
    """
    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.connecting import cluster_client
    from dataset_controller.operator.listening import listening

    counters = _Counters()
    api = ClusterApi(cluster_client(), MANAGER, on_answer=counters.answered)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    agent = Agent(api, config, counters)
    try:
        with listening(config.host, config.port, counters.registry, agent.trouble) as (host, port):
            _log.info("agent ready namespace=%s host=%s port=%s", config.namespace, host, port)
            agent.run(stopping)
    except OSError as error:
        if isinstance(error, ClusterError):
            raise
        raise ClusterError(f"cannot listen on {config.host or '*'}:{config.port}: {error}; see --listen") from error


class _Counters:
    """What the agent counts, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "forebay_agent_api_requests", "Answers of the API server.", ["method", "status"], registry=self.registry
        )

    def follow(self, engine: Engine) -> None:
        """Show what is counted elsewhere."""
        for name, text, read in (
            ("forebay_agent_looks", "Datasets looked at.", lambda: engine.looks),
            ("forebay_agent_commits", "Commits made.", lambda: engine.commits),
            ("forebay_agent_failures", "Looks that found something wrong.", lambda: engine.failures),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)

    def answered(self, method: str, status: int) -> None:
        """Count an answer of the API server."""
        self._requests.labels(method, str(status)).inc()


class _Cluster:
    """Tells statuses and events to the API server."""

    def __init__(self, api: ClusterApi, mirror: Mirror) -> None:
        self._api = api
        self._mirror = mirror

    def tell(self, key: Key, status: dict[str, Any]) -> None:
        """Tell our part of an object's status."""
        self._api.apply_status(_ref(key), status)

    def event(self, key: Key, reason: str, message: str, *, is_warning: bool = False) -> None:
        """Write an event; it is no great loss if that fails."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        document = self._mirror.get(_ref(key))
        if document is None:
            return
        try:
            self._api.do(Tell(_ref(key), reason, message, is_warning), document["metadata"]["uid"])
        except (ApiException, HTTPError, OSError) as error:
            _log.warning("event not written object=%s reason=%s", key.name, getattr(error, "reason", None) or error)


class _Look(NamedTuple):
    """How objects of one kind are looked after.

    Attributes:
        put: Called with one that was declared, or declared anew.
        drop: Called with one that is gone.
    """

    put: Callable[[Key, Any, Document], None]
    drop: Callable[[Key], None]


class Agent:
    """All parts of the agent.

    Args:
        api: The cluster, under the agent's own field manager.
        config: How it runs.
        counters: Counts.
    """

    def __init__(self, api: ClusterApi, config: AgentConfig, counters: _Counters | None = None) -> None:
        self._mirror = Mirror()
        self._models = Models()
        cluster = _Cluster(api, self._mirror)
        self._teller = Teller(cluster)
        self._engine = Engine(config.home, self._teller, cluster)
        self._caches = Caches(config.home, self._teller, self._engine.version, self._pod)
        self._engine.on_version = self._caches.look_soon
        self._looks: dict[type[BaseModel], _Look] = {
            Dataset: _Look(self._put_dataset, self._drop_dataset),
            CacheRuntime: _Look(self._put_runtime, self._caches.drop),
        }
        watched: list[tuple[Watched, Changed]] = [
            *(
                (Watched(f"{GROUP}/{VERSION}", kind.__name__, plural_of(kind.__name__)), partial(self._changed, kind))
                for kind in self._looks
            ),
            (Watched("v1", "Pod", "pods", _WORKERS), lambda before, after: None),
        ]
        self._watchers = [Watcher(api, self._mirror, each, config.namespace, on_change) for each, on_change in watched]
        if counters is not None:
            counters.follow(self._engine)

    def trouble(self) -> str | None:
        """Say what keeps it from being ready."""
        lacking = [watcher for watcher in self._watchers if not watcher.listed.is_set()]
        return next((watcher.trouble or "the namespace is being listed" for watcher in lacking), None)

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop."""
        for watcher in self._watchers:
            watcher.start(stopping)
        works: list[tuple[Callable[[], None], int]] = [
            (self._engine.work, _LOOK_THREADS),
            (self._caches.work, _CACHE_THREADS),
            (self._teller.work, _TELL_THREADS),
        ]
        threads = [
            threading.Thread(target=_repeat, args=(work, stopping), name=f"{work.__qualname__}-{n}", daemon=True)
            for work, count in works
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        stopping.wait()
        for part in (self._engine, self._caches, self._teller):
            part.close()
        deadline = time.monotonic() + _END_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        _log.info("agent ended")

    def _changed(self, kind: type[BaseModel], before: Document | None, after: Document | None) -> None:
        """Note that an object of a kind that is looked after changed: called by watches."""
        document = after or before
        if document is None:
            return
        key, look = _key(document), self._looks[kind]
        if after is None or after["metadata"].get("deletionTimestamp"):
            look.drop(key)
            self._teller.forget(key)
            self._models.forget(document["metadata"]["uid"])
            return
        if before is not None and _generation(before) == _generation(after) and _same(before, after):
            return
        try:
            declared = self._models.get(kind, after)
        except InvalidSpecError as error:
            # the operator's condition says it
            _log.warning("it is wrong object=%s/%s reason=%s", key.kind, key.name, error)
            return
        look.put(key, declared, after)

    def _put_dataset(self, key: Key, dataset: Dataset, document: Document) -> None:
        status = document.get("status") or {}
        self._teller.begin(key, {"version": _version_part(status), "cache": _fields(CACHE_FIELDS, status)})
        self._caches.use(key, dataset.spec.cache.runtime_ref.name if dataset.spec.cache else None)
        self._engine.put(key, Subject(dataset, _generation(document), status))

    def _drop_dataset(self, key: Key) -> None:
        self._engine.drop(key)
        self._caches.use(key, None)

    def _put_runtime(self, key: Key, runtime: CacheRuntime, document: Document) -> None:
        self._teller.begin(key, {"cache": _fields(_RUNTIME_FIELDS, document.get("status") or {})})
        self._caches.put(key, runtime, _generation(document))

    def _pod(self, namespace: str, name: str) -> PodState | None:
        document = self._mirror.get(Ref("v1", "Pod", namespace, name))
        if document is None:
            return None
        told = (document.get("status") or {}).get("conditions") or []
        is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in told)
        return PodState(str(document["spec"].get("nodeName") or ""), is_ready)


def _repeat(work: Callable[[], None], stopping: threading.Event) -> None:
    while not stopping.is_set():
        work()


def _same(before: Document, after: Document) -> bool:
    return bool(before["metadata"]["uid"] == after["metadata"]["uid"])


def _key(document: Document) -> Key:
    metadata = document["metadata"]
    return Key(document["kind"], metadata["namespace"], metadata["name"])


def _ref(key: Key) -> Ref:
    return Ref(API_VERSION, key.kind, key.namespace, key.name)


def _generation(document: Document) -> int:
    return int(document["metadata"].get("generation") or 1)


def _fields(names: tuple[str, ...], status: dict[str, Any]) -> dict[str, Any]:
    return {name: status[name] for name in names if name in status}


def _version_part(status: dict[str, Any]) -> dict[str, Any]:
    """Return what an agent before this one told of a dataset's version."""
    part = _fields(("revision", "files", "sizeBytes", "lastSyncTime", "lastCommitTime"), status)
    told = [each for each in status.get("conditions") or [] if each["type"] in CONDITIONS]
    return {**part, "conditions": told} if told else part
