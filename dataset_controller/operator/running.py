"""Runs the operator: from the first list of the cluster to the lease that is given back."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING
from uuid import uuid4

from dataset_controller.crds import GROUP, KINDS, VERSION
from dataset_controller.errors import ClusterError
from dataset_controller.operator.connecting import OWN_NAMESPACE, cluster_client
from dataset_controller.operator.metrics import Metrics
from dataset_controller.operator.mirror import Mirror
from dataset_controller.operator.naming import DATASET, MANAGER, WEBHOOK_NAME
from dataset_controller.operator.observing import Observer, Surroundings
from dataset_controller.operator.queueing import WorkQueue
from dataset_controller.operator.routing import keys_of
from dataset_controller.operator.shell import Reconciler
from dataset_controller.operator.watching import Watched, Watcher

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.leading import Lease
    from dataset_controller.operator.planning.gates import DatasetFacts
    from dataset_controller.operator.webhook.serving import Review

_log = logging.getLogger(__name__)
_THREADS = 4
_END_SECONDS = 20.0
_SYNC_POLL_SECONDS = 0.05
_SELECTOR = f"app.kubernetes.io/managed-by={MANAGER}"
_MADE = (
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "Service", "services"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("batch/v1", "Job", "jobs"),
    ("rbac.authorization.k8s.io/v1", "Role", "roles"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
)


_CLAIMED = (("v1", "PersistentVolume", "persistentvolumes"), ("v1", "PersistentVolumeClaim", "persistentvolumeclaims"))


@dataclass(frozen=True)
class OperatorConfig:
    """How the operator runs.

    Attributes:
        namespaces: Those that it serves; none for all.
        image: Of the pods that it makes, where nothing names another one.
        host: Where it answers probes; "" for every address.
        port: 0 for any that is free.
        lease_namespace: Where its lease is; None for its own, as its pod says.
        webhook_port: Where it answers the API server's AdmissionReviews; None for nowhere.
        certificates: The directory of `tls.crt` and `tls.key` for it; None: it makes its own.
        webhook_name: Of the Service, the Secret and the configurations that it makes its certificate for.
        claims: Whether each dataset has a volume that pods can claim; not if `namespaces` are named.
    """

    namespaces: Sequence[str] = ()
    image: str = "forebay"
    host: str = ""
    port: int = 8080
    lease_namespace: str | None = None
    webhook_port: int | None = None
    certificates: Path | None = None
    webhook_name: str = WEBHOOK_NAME
    claims: bool = False


def missing_package() -> str | None:
    """Return what the operator needs and is not installed: one of the extra `k8s`."""
    return next((name for name in ("cronsim", "cryptography", "kubernetes") if find_spec(name) is None), None)


def run_operator(config: OperatorConfig) -> None:
    """Be the operator until SIGTERM or SIGINT; in the main thread.

    Then it begins nothing new, ends what is under way, and gives its lease back. Killed instead, it loses nothing:
    the next one sees from the cluster what is left to do.

    Raises:
        ClusterError: If there is no cluster to ask, or it cannot listen.
    """
    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.leading import Lease
    from dataset_controller.operator.listening import listening

    metrics = Metrics()
    api = ClusterApi(cluster_client(), on_answer=metrics.answered)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    surroundings = Surroundings(config.image, _budget_version(api, stopping), config.claims)
    holder = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    lease = Lease(api, _lease_namespace(config), _lease_name(config), holder)
    operator = Operator(api, lease, metrics, surroundings, config.namespaces)
    with ExitStack() as stack:
        answering = listening(config.host, config.port, metrics.registry, operator.trouble)
        try:
            host, port = stack.enter_context(answering)
        except OSError as error:
            raise ClusterError(f"cannot listen on {config.host or '*'}:{config.port}: {error}; see --listen") from error
        _log.info("listens host=%s port=%s", host, port)
        _admit(config, operator, api, stopping, stack)
        operator.run(stopping)


def _admit(
    config: OperatorConfig, operator: Operator, api: ClusterApi, stopping: threading.Event, stack: ExitStack
) -> None:
    """Answer AdmissionReviews until the end of the stack, if that is asked for."""
    from dataset_controller.operator.webhook.mutating import mutate
    from dataset_controller.operator.webhook.reviewing import review
    from dataset_controller.operator.webhook.serving import MUTATE, VALIDATE, admitting

    if config.webhook_port is None:
        return
    reviews: dict[str, Review] = {VALIDATE: review, MUTATE: partial(mutate, facts=operator.facts)}
    context = _webhook_context(config, api, stopping)
    try:
        _, port = stack.enter_context(admitting(config.host, config.webhook_port, context, reviews))
    except OSError as error:
        place = f"{config.host or '*'}:{config.webhook_port}"
        raise ClusterError(f"cannot answer the webhook on {place}: {error}; see --webhook-port") from error
    _log.info("admits port=%s", port)


def _webhook_context(config: OperatorConfig, api: ClusterApi, stopping: threading.Event) -> ssl.SSLContext:
    """Return what has the certificate that was given, or is to have the one that is made."""
    from dataset_controller.operator.webhook.keeping import CertificateKeeper
    from dataset_controller.operator.webhook.serving import server_context

    if config.certificates is None:
        context = server_context()
        keeper = CertificateKeeper(api, _own_namespace(config), config.webhook_name, context)
        threading.Thread(target=keeper.keep, args=(stopping,), name="certificate", daemon=True).start()
        return context
    certificate, key = config.certificates / "tls.crt", config.certificates / "tls.key"
    try:
        return server_context(certificate, key)
    except OSError as error:
        raise ClusterError(f"cannot use {certificate} and {key}: {error}; see --webhook-certificates") from error


class Operator:
    """All parts of the operator.

    Args:
        api: The cluster.
        lease: Held by the one that acts.
        metrics: Counts.
        surroundings: See there.
        namespaces: Those that it serves; none for all.
    """

    def __init__(
        self,
        api: ClusterApi,
        lease: Lease,
        metrics: Metrics,
        surroundings: Surroundings,
        namespaces: Sequence[str] = (),
    ) -> None:
        self._lease = lease
        self._metrics = metrics
        self._mirror = Mirror()
        self._queue = WorkQueue()
        self._is_synced = False
        self._observer = Observer(self._mirror, surroundings)
        self._reconciler = Reconciler(api, self._mirror, self._observer, self._queue, metrics, self._may_act)
        self._watchers = [
            Watcher(api, self._mirror, watched, namespace, self._reconciler.changed)
            for watched in _watched(surroundings)
            for namespace in (namespaces or (None,))
        ]
        metrics.follow(waiting=lambda: len(self._queue), mirrored=lambda: len(self._mirror))

    def trouble(self) -> str | None:
        """Say what keeps it from working; None if nothing does. One that does not lead is ready to."""
        lacking = [watcher for watcher in self._watchers if not watcher.listed.is_set()]
        return next((watcher.trouble or "the cluster is being listed" for watcher in lacking), None)

    def facts(self, namespace: str, dataset: str) -> DatasetFacts | None:
        """Return what is known of a dataset; None if there is none. Also one that does not lead knows.

        Raises:
            ClusterError: If not all has been seen yet.
        """
        trouble = self.trouble()
        if trouble is not None:
            raise ClusterError(trouble)
        return self._observer.facts(namespace, dataset)

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop."""
        for watcher in self._watchers:
            watcher.start(stopping)
        while self.trouble() is not None and not stopping.wait(_SYNC_POLL_SECONDS):
            pass
        _log.info("synced objects=%s", len(self._mirror))
        gc.freeze()  # what was listed stays
        leading = threading.Thread(target=self._lease.keep, args=(stopping, self._leads), name="lease")
        workers = [
            threading.Thread(target=self._work, args=(stopping,), name=f"work-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        self._is_synced = True
        for worker in workers:
            worker.start()
        leading.start()
        stopping.wait()
        self._queue.close()
        deadline = time.monotonic() + _END_SECONDS
        for thread in (*workers, leading):
            thread.join(max(0.0, deadline - time.monotonic()))
        _log.info("ended")

    def _may_act(self) -> bool:
        """Say whether it acts: never before it has seen everything, or what it has not seen would look deleted."""
        return self._is_synced and self._lease.is_held

    def _leads(self, leads: bool) -> None:
        self._metrics.leads.set(leads)
        if not leads:
            self._queue.clear()
            return
        for watcher in self._watchers:
            for ref in self._mirror.all_of(watcher.kind):
                found = self._mirror.get(ref)
                self._queue.add_all(keys_of(self._mirror, None, found))

    def _work(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self._reconciler.work()


def _watched(surroundings: Surroundings) -> list[Watched]:
    claimed = _CLAIMED if surroundings.claims else ()
    ours = [Watched(f"{GROUP}/{VERSION}", kind.name, kind.plural) for kind in KINDS]
    made = [Watched(version, kind, plural, _SELECTOR) for version, kind, plural in (*_MADE, *claimed)]
    pods = Watched("v1", "Pod", "pods", DATASET)  # people's, that name a dataset
    budgets = Watched(surroundings.budget_version, "PodDisruptionBudget", "poddisruptionbudgets", _SELECTOR)
    return [*ours, *made, pods, budgets]


def _budget_version(api: ClusterApi, stopping: threading.Event) -> str:
    """Ask which version of disruption budgets there is; waits for the server."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    while not stopping.is_set():
        try:
            versions = [each["version"] for each in api.ask("GET", "/apis/policy")["versions"]]
            return "policy/v1" if "v1" in versions else "policy/v1beta1"
        except (HTTPError, OSError) as error:
            _log.warning("the API server does not answer: %s", error)
        except ApiException as error:
            if error.status in (401, 403):
                raise ClusterError(f"the API server refuses us: {error.reason}; see the rights in the guide") from error
            _log.warning("the API server does not answer: %s", error.reason)
        stopping.wait(2.0)
    return "policy/v1"


def _lease_namespace(config: OperatorConfig) -> str:
    return config.lease_namespace or _own_namespace(config)


def _own_namespace(config: OperatorConfig) -> str:
    if OWN_NAMESPACE.is_file():
        return OWN_NAMESPACE.read_text().strip()
    return config.lease_namespace or (config.namespaces[0] if config.namespaces else "default")


def _lease_name(config: OperatorConfig) -> str:
    """Return one name for all that serve the same namespaces."""
    from dataset_controller.operator.naming import fitting

    return fitting("-".join(("forebay-controller", *sorted(config.namespaces))))
