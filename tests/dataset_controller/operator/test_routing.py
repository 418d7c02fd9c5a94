"""What is looked at when something changes: what concerns it, and nothing else."""

from __future__ import annotations

from typing import Any

from dataset_controller.operator.mirror import Mirror
from dataset_controller.operator.queueing import Key
from dataset_controller.operator.routing import keys_of

API = "forebay.dev/v1alpha1"


def _object(kind: str, name: str, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ml", "uid": f"{kind}-{name}", "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec or {}, "status": status}


def _later(document: dict[str, Any], generation: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {**document["metadata"], "generation": generation, "resourceVersion": "2"}
    return {**document, "metadata": metadata, "status": {**document["status"], **status}}


def _mirror() -> tuple[Mirror, dict[str, dict[str, Any]]]:
    there = {
        "runtime": _object("CacheRuntime", "nvme", replicas=1),
        "dataset": _object("Dataset", "digits", {"cache": {"runtimeRef": {"name": "nvme"}}}),
        "load": _object("DataLoad", "warm", {"dataset": {"name": "digits"}}),
        "after": _object(
            "DataLoad",
            "after",
            {"dataset": {"name": "other"}, "runAfter": [{"kind": "DataLoad", "name": "warm"}]},
        ),
    }
    mirror = Mirror()
    for document in there.values():
        mirror.put(document)
    return mirror, there


RUNTIME, DATASET = Key("CacheRuntime", "ml", "nvme"), Key("Dataset", "ml", "digits")
WARM, AFTER, NAMESPACE = Key("DataLoad", "ml", "warm"), Key("DataLoad", "ml", "after"), Key("Namespace", "", "ml")


def test_a_declared_dataset_concerns_its_cache_its_loads_and_its_namespace() -> None:
    mirror, there = _mirror()
    dataset = there["dataset"]
    assert keys_of(mirror, dataset, _later(dataset, 2)) == {DATASET, RUNTIME, WARM, NAMESPACE}
    assert keys_of(mirror, dataset, None) == {RUNTIME, WARM, NAMESPACE}


def test_the_numbers_that_an_agent_tells_concern_the_dataset_alone() -> None:
    mirror, there = _mirror()
    dataset = there["dataset"]
    assert keys_of(mirror, dataset, _later(dataset, cachedBytes=7, hitPercent=99)) == {DATASET}
    assert keys_of(mirror, dataset, _later(dataset, revision="c2")) == {DATASET, WARM}
    assert keys_of(mirror, dataset, _later(dataset, sizeBytes=7)) == {DATASET, RUNTIME}


def test_a_cache_that_comes_or_begins_to_serve_concerns_its_users() -> None:
    mirror, there = _mirror()
    runtime = there["runtime"]
    assert keys_of(mirror, None, runtime) == {RUNTIME, DATASET, WARM, NAMESPACE}
    assert keys_of(mirror, runtime, _later(runtime, readyReplicas=1)) == {RUNTIME, WARM}
    assert keys_of(mirror, runtime, _later(runtime, usedBytes=1)) == {RUNTIME}


def test_an_operation_that_ends_concerns_what_runs_after_it() -> None:
    mirror, there = _mirror()
    assert keys_of(mirror, there["load"], _later(there["load"], phase="Succeeded")) == {WARM, AFTER}
    assert keys_of(mirror, there["load"], _later(there["load"], bytesDone=1)) == {WARM}


def test_what_was_made_concerns_its_owner_and_an_agent_its_namespace() -> None:
    mirror, _ = _mirror()
    made = _object("StatefulSet", "nvme-workers")
    made["apiVersion"] = "apps/v1"
    made["metadata"]["labels"] = {"forebay.dev/owner-uid": "CacheRuntime-nvme"}
    assert keys_of(mirror, None, made) == keys_of(mirror, made, None) == {RUNTIME}
    made["metadata"]["labels"] = {"app.kubernetes.io/component": "agent"}
    assert keys_of(mirror, made, None) == {NAMESPACE}
    made["metadata"]["labels"] = {"forebay.dev/owner-uid": "nobody's any more"}
    assert keys_of(mirror, made, None) == set()
