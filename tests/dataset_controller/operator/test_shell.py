"""The operator's loop on a server in memory: killed before and after any request, refused, failing now and then."""

from __future__ import annotations

import copy
import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_controller.operator.metrics import Metrics
from dataset_controller.operator.mirror import Mirror
from dataset_controller.operator.observing import Observer, Surroundings
from dataset_controller.operator.planning.actions import Apply, CreateToken, Delete, PatchStatus, Ref
from dataset_controller.operator.queueing import WorkQueue
from dataset_controller.operator.routing import keys_of
from dataset_controller.operator.shell import Reconciler
from tests.dataset_controller.operator.models import merged

pytest.importorskip("kubernetes")
API = "forebay.dev/v1alpha1"
DEEP = os.environ.get("FOREBAY_DEEP") == "1"


class Killed(BaseException):
    """The process is gone."""


class Server:
    """An API server: what it is told is there, with ids and versions; controllers make workers ready at once."""

    def __init__(self) -> None:
        self.objects: dict[Ref, dict[str, Any]] = {}
        self.version = 0
        self.calls = 0
        self.dies_at: tuple[int, bool] | None = None
        self.fails: set[int] = set()
        self.refuses = ""

    def declare(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        metadata = {"name": name, "namespace": "ml", "labels": {}, "generation": 1}
        self.put({"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec})

    def watched(self) -> dict[Ref, dict[str, Any]]:
        """Return what an operator may look at."""
        return {ref: document for ref, document in self.objects.items() if ref.kind != "Secret"}

    def put(self, document: dict[str, Any]) -> dict[str, Any]:
        ref = Ref.of(document)
        self.version += 1
        found = merged(self.objects.get(ref, {}), document)
        found["metadata"].setdefault("uid", f"{ref.kind}-{ref.name}")
        found["metadata"]["resourceVersion"] = str(self.version)
        if ref.kind == "StatefulSet":
            count = found["spec"]["replicas"]
            found["status"] = {"replicas": count, "readyReplicas": count}
        self.objects[ref] = found
        return copy.deepcopy(found)

    def get(self, ref: Ref) -> dict[str, Any] | None:
        return copy.deepcopy(self.objects.get(ref))

    def do(self, action: Any, uid: str = "") -> dict[str, Any] | None:
        from kubernetes.client import ApiException

        self.calls += 1
        if self.dies_at == (self.calls, False):
            raise Killed
        if self.calls in self.fails:
            raise ApiException(status=500, reason="now and then")
        if isinstance(action, Apply) and action.document["kind"] == self.refuses:
            error = ApiException(status=403, reason="Forbidden")
            error.body = json.dumps({"message": "quota exceeded"})
            raise error
        found = self._done(action)
        if self.dies_at == (self.calls, True):
            raise Killed
        return found

    def _done(self, action: Any) -> dict[str, Any] | None:
        if isinstance(action, Apply | CreateToken):
            found = self.put(action.document)
            return found if isinstance(action, Apply) else None
        if isinstance(action, PatchStatus):
            told = {key: value for key, value in action.status.items() if value is not None}
            document = self.objects[action.ref]
            return self.put({**{key: document[key] for key in ("apiVersion", "kind", "metadata")}, "status": told})
        if isinstance(action, Delete):
            self.objects.pop(action.ref, None)
        return None


def operate(server: Server, *, most: int = 400) -> None:
    """Run an operator until it has nothing to do."""
    mirror, queue = Mirror(), WorkQueue(clock=lambda: clock[0], jitter=lambda: 1.0)
    clock = [0.0]
    observer = Observer(mirror, Surroundings())
    reconciler = Reconciler(server, mirror, observer, queue, Metrics(), lambda: True)  # type: ignore[arg-type]
    for document in server.watched().values():
        mirror.put(copy.deepcopy(document))
    for document in server.watched().values():
        queue.add_all(keys_of(mirror, None, document))
    for _ in range(most):
        before = server.watched()
        if len(queue):
            reconciler.work()
        else:
            clock[0] += 20.0
            if clock[0] > 300:
                return
        for ref, document in server.watched().items():
            if before.get(ref) is not document:
                known = mirror.put(copy.deepcopy(document))
                reconciler.changed(known, mirror.get(ref))
        for ref in before.keys() - server.objects.keys():
            reconciler.changed(mirror.drop(ref, before[ref]["metadata"]["uid"]), None)
    raise AssertionError("it finds no rest")


def declared(*, with_invalid: bool = False) -> Server:
    server = Server()
    tiers = [{"path": "/disk", "capacity": "1Gi"}]
    server.declare("CacheRuntime", "nvme", {"tiers": tiers, "replicas": 2})
    cache = {"cache": {"runtimeRef": {"name": "nvme"}}}
    server.declare("Dataset", "digits", {"repo": {"uri": "s3://bucket/r"}, **cache})
    server.declare("DataLoad", "warm", {"dataset": {"name": "digits"}})
    if with_invalid:
        server.declare("CacheRuntime", "bad", {"tiers": [*tiers, {"path": "/disk/inner", "capacity": "1Gi"}]})
    return server


def shape(server: Server) -> dict[Ref, Any]:
    """Return what matters of what is there."""
    found = {}
    for ref, document in server.objects.items():
        status = document.get("status") or {}
        told = {each["type"]: each["status"] for each in status.get("conditions", ())}
        found[ref] = (document.get("spec"), document.get("data"), status.get("phase"), status.get("run"), told)
    return found


def test_killed_before_or_after_any_request_the_next_one_ends_in_the_same_state() -> None:
    whole = declared()
    operate(whole)
    assert {ref.kind for ref in whole.objects} >= {"StatefulSet", "ConfigMap", "Service", "Secret", "Deployment", "Job"}
    for number in range(1, whole.calls + 1):
        for is_after in (False, True):
            server = declared()
            server.dies_at = (number, is_after)
            with pytest.raises(Killed):
                operate(server)
            server.dies_at = None
            operate(server)
            assert shape(server) == shape(whole), (number, is_after)


@settings(max_examples=200 if DEEP else 15, deadline=None)
@given(st.sets(st.integers(1, 30), max_size=8))
def test_requests_that_fail_are_made_again(fails: set[int]) -> None:
    whole = declared()
    operate(whole)
    server = declared()
    server.fails = fails
    operate(server)
    assert shape(server) == shape(whole)


def test_what_is_refused_is_told_and_keeps_nothing_else_waiting() -> None:
    server = declared(with_invalid=True)
    server.refuses = "StatefulSet"
    operate(server)
    (applied,) = (
        each
        for each in server.objects[Ref(API, "CacheRuntime", "ml", "nvme")]["status"]["conditions"]
        if each["type"] == "SpecApplied"
    )
    assert (applied["status"], applied["reason"]) == ("False", "Refused")
    assert applied["message"] == "the server refused StatefulSet ml/nvme-workers: quota exceeded"
    (invalid,) = server.objects[Ref(API, "CacheRuntime", "ml", "bad")]["status"]["conditions"]
    assert invalid["reason"] == "Invalid"
    assert Ref("apps/v1", "Deployment", "ml", "forebay-agent") in server.objects
    server.refuses = ""
    operate(server)
    conditions = server.objects[Ref(API, "CacheRuntime", "ml", "nvme")]["status"]["conditions"]
    assert {each["type"]: each["status"] for each in conditions} == {"Ready": "True", "SpecApplied": "True"}


def test_in_rest_it_asks_nothing() -> None:
    server = declared()
    operate(server)
    calls = server.calls
    operate(server)  # a new one makes sure of the token, which it may not look at
    assert server.calls == calls + 1
