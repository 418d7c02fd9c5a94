"""How datasets and caches of one machine are, told as a cluster tells it: by the functions of operator and agent."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cache_runtime import loading
from cache_runtime.errors import CacheError
from dataset_controller.agent.counting import Count, VersionLocations
from dataset_controller.agent.statuses import Subject, dataset_status
from dataset_controller.agent.syncing import DatasetLook
from dataset_controller.errors import DatasetNotFoundError
from dataset_controller.fields import API_VERSION
from dataset_controller.model import CacheRuntime, Dataset
from dataset_controller.opening import OpenDataset, open_node_store
from dataset_controller.operator.objects.workers import workers_name
from dataset_controller.operator.planning.actions import PatchStatus, Ref
from dataset_controller.operator.planning.conditions import timestamp
from dataset_controller.operator.planning.dataset import ObservedDataset, plan_dataset
from dataset_controller.operator.planning.runtime import ObservedRuntime, runtime_status
from sources import SourceError
from versioning import VersioningError

if TYPE_CHECKING:
    from dataset_controller.agent.syncing import Version
    from dataset_controller.catalog import Catalog, Record

_log = logging.getLogger(__name__)
NAMESPACE = "default"


def object_names(catalog: Catalog, kind: str) -> list[str]:
    """List the objects of a kind, sorted."""
    return catalog.names(kind)


def object_of(catalog: Catalog, kind: str, name: str) -> dict[str, Any]:
    """Return a dataset or cache runtime as an API server would, looked at now.

    Raises:
        DatasetNotFoundError: If there is none.
    """
    record = catalog.find(kind, name)
    if record is None:
        raise DatasetNotFoundError(name, catalog.names(kind), what=kind)
    now = datetime.now(UTC)
    key = f"{kind}/{name}"
    known = catalog.read_document(key) or {"created": timestamp(now), "status": {}}
    metadata = {
        "name": name,
        "namespace": record.resource.metadata.namespace or NAMESPACE,
        "uid": f"{kind}-{name}",
        "generation": record.generation,
        "creationTimestamp": known["created"],
    }
    spec = record.resource.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    owner = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec, "status": known["status"]}
    status = _dataset(catalog, record, owner, now) if kind == "Dataset" else _runtime(record, owner, now)
    catalog.change_document(key, lambda before: {**known, "status": status})
    return {**owner, "status": status}


def _dataset(catalog: Catalog, record: Record, owner: dict[str, Any], now: datetime) -> dict[str, Any]:
    dataset, before = record.resource, owner["status"]
    assert isinstance(dataset, Dataset)
    shown = dataset.model_copy(update={"spec": dataset.spec.model_copy(update={"sync": None})})  # nobody syncs here
    report = DatasetLook(shown, catalog.secrets.parent).look()
    told = dataset_status(Subject(shown, record.generation, before), report, now)
    observed = ObservedDataset(owner, dataset, catalog.runtime_of(dataset) is not None)
    actions = plan_dataset(observed, now)
    own = next((action.status for action in actions if isinstance(action, PatchStatus)), before)
    types = {each["type"] for each in told["conditions"]}
    others = [each for each in own.get("conditions", ()) if each["type"] not in types]
    cached = _cached(catalog, dataset, report.version) if report.version is not None else {}
    return {
        **told,
        **cached,
        "observedGeneration": record.generation,
        "conditions": sorted([*told["conditions"], *others], key=lambda each: str(each["type"])),
    }


def _cached(catalog: Catalog, dataset: Dataset, version: Version) -> dict[str, Any]:
    """Tell how much of a version this node's cache holds: counted, as an agent counts what workers hold."""
    runtime = catalog.runtime_of(dataset)
    if runtime is None:
        return {}
    opened = OpenDataset(dataset, runtime, secrets=catalog.secrets)
    try:
        wanted = VersionLocations(opened.repository, version.commit)
        plan = loading.plan_load(opened.client_for(version.size_bytes), wanted)
    except (CacheError, SourceError, VersioningError) as error:
        _log.warning("not counted dataset=%s reason=%s", dataset.metadata.name, error)
        return {}
    counted = Count(plan.total_bytes, plan.present_bytes)
    cached = version.size_bytes * counted.present_bytes // counted.total_bytes if counted.total_bytes else 0
    return {"cachedBytes": cached, "cachedPercent": counted.percent}


def _runtime(record: Record, owner: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Tell of a cache: this node is its one worker."""
    runtime = record.resource
    assert isinstance(runtime, CacheRuntime)
    one = runtime.model_copy(update={"spec": runtime.spec.model_copy(update={"replicas": 1, "workers": None})})
    told: dict[str, Any] = {"capacityBytes": sum(tier.capacity for tier in runtime.spec.tiers)}
    ready = 1
    try:
        told["usedBytes"] = open_node_store(runtime).status().used_bytes
    except CacheError:  # condition Ready says so
        ready = 0
    made = {"status": {"replicas": 1, "readyReplicas": ready}}
    ref = Ref("apps/v1", "StatefulSet", owner["metadata"]["namespace"], workers_name(runtime))
    observed = ObservedRuntime(owner, one, [], objects={ref: made})
    return {**told, **runtime_status(observed, now, None)}
