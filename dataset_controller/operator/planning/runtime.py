"""What a cache runtime takes: its workers, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dataset_controller.crds import KINDS
from dataset_controller.fields import API_VERSION
from dataset_controller.operator.naming import labels_of
from dataset_controller.operator.objects.workers import (
    disruption_budget,
    headless_service,
    manifests_map,
    stateful_set,
    token_name,
    workers_name,
)
from dataset_controller.operator.planning.actions import Action, CreateToken, PatchStatus, Ref, SetReplicas, Tell
from dataset_controller.operator.planning.comparing import tells
from dataset_controller.operator.planning.conditions import Finding, conditions
from dataset_controller.operator.planning.owning import applied, owned, surplus
from dataset_controller.operator.planning.refusing import applied_finding
from dataset_controller.operator.planning.scaling import Scaling, Use, decide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dataset_controller.model import Dataset
    from dataset_controller.runtime_model import CacheRuntime

_KIND = next(kind.name for kind in KINDS if kind.scales)
_FEWER = "FewerWorkersEnough"


@dataclass(frozen=True)
class ObservedRuntime:
    """A cache runtime in its cluster.

    Attributes:
        owner: The CacheRuntime as the API server says it.
        runtime: Its specification.
        datasets: Those of its namespace that use it, by name.
        objects: What the operator made for it.
        has_token: Whether the secret of its token is there.
        budget_version: See `disruption_budget`.
        default_image: See `stateful_set`.
        sizes: Bytes of the datasets, by name, as far as they are known.
        refusal: What the API server said to one of the last actions.
    """

    owner: dict[str, Any]
    runtime: CacheRuntime
    datasets: Sequence[Dataset]
    objects: Mapping[Ref, dict[str, Any]] = field(default_factory=dict)
    has_token: bool = False
    budget_version: str = "policy/v1"
    default_image: str = "forebay"
    sizes: Mapping[str, int] = field(default_factory=dict)
    refusal: str | None = None

    @property
    def namespace(self) -> str:
        """Its own."""
        return str(self.owner["metadata"]["namespace"])

    @property
    def ref(self) -> Ref:
        """Which object it is."""
        return Ref(API_VERSION, _KIND, self.namespace, self.runtime.metadata.name)


def plan_runtime(observed: ObservedRuntime, now: datetime) -> list[Action]:
    """Decide what a cache runtime takes. Applied in full, it plans nothing; each action may be done again."""
    actions: list[Action] = []
    if not observed.has_token:
        actions.append(CreateToken(owned(observed.owner, _token(observed))))
    scaling = scaling_of(observed, now)
    if scaling is not None and scaling.replicas != observed.runtime.spec.replicas:
        # what follows from it is planned when it is declared
        actions.append(SetReplicas(observed.ref, scaling.replicas))
        actions.append(Tell(observed.ref, "Scaled", _scaled_text(observed, scaling)))
    documents = _documents(observed)
    actions += applied(documents, observed.objects)
    actions += surplus(documents, observed.objects)
    status = runtime_status(observed, now, scaling)
    if not tells(observed.owner.get("status") or {}, status):
        actions += [*_story(observed, status), PatchStatus(observed.ref, status)]
    return actions


def scaling_of(observed: ObservedRuntime, now: datetime) -> Scaling | None:
    """Return how many workers there should be; None if nobody asked for it to be decided."""
    if observed.runtime.spec.autoscale is None:
        return None
    before = (observed.owner.get("status") or {}).get("conditions") or []
    fewer = next((each for each in before if each["type"] == _FEWER and each["status"] == "True"), None)
    since = datetime.fromisoformat(fewer["lastTransitionTime"]) if fewer else None
    return decide(observed.runtime, [_use(each, observed) for each in observed.datasets], since, now)


def runtime_status(observed: ObservedRuntime, now: datetime, scaling: Scaling | None) -> dict[str, Any]:
    """Return what the operator tells of a runtime; what its workers hold, its agent tells."""
    runtime, name = observed.runtime, workers_name(observed.runtime)
    made = observed.objects.get(Ref("apps/v1", "StatefulSet", observed.namespace, name), {}).get("status") or {}
    before = observed.owner.get("status") or {}
    findings = [_is_ready(runtime, int(made.get("readyReplicas") or 0)), _spec_applied(observed)]
    if scaling is not None:
        findings.append(_fewer_enough(scaling))
    generation = int(observed.owner["metadata"].get("generation") or 1)
    labels = labels_of("worker", runtime=runtime.metadata.name)
    return {
        "observedGeneration": generation,
        "replicas": int(made.get("replicas") or 0),
        "readyReplicas": int(made.get("readyReplicas") or 0),
        "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "conditions": conditions(before.get("conditions") or [], findings, generation=generation, now=now),
    }


def _is_ready(runtime: CacheRuntime, ready: int) -> Finding:
    wanted = runtime.spec.replicas
    if ready >= wanted:
        return Finding("Ready", True, "WorkersReady", f"{ready} of {wanted} workers are ready")
    message = (
        f"{ready} of {wanted} workers are ready; kubectl describe pods -l "
        f"forebay.dev/runtime={runtime.metadata.name} says what the others wait for"
    )
    return Finding("Ready", False, "WorkersNotReady", message)


def _spec_applied(observed: ObservedRuntime) -> Finding:
    without_effect = None
    if observed.runtime.spec.workers is not None:
        without_effect = (
            "spec.workers: in a cluster the operator knows the workers; this field has no effect here, remove it"
        )
    return applied_finding(observed.refusal, without_effect)


def _fewer_enough(scaling: Scaling) -> Finding:
    if scaling.until is None:
        return Finding(_FEWER, False, "AllNeeded", f"{scaling.enough} workers hold the datasets")
    return Finding(_FEWER, True, "Waiting", f"{scaling.enough} workers would hold the datasets")


def _scaled_text(observed: ObservedRuntime, scaling: Scaling) -> str:
    return f"from {observed.runtime.spec.replicas} to {scaling.replicas} workers: so many hold the datasets that use it"


def _use(dataset: Dataset, observed: ObservedRuntime) -> Use:
    cache = dataset.spec.cache
    assert cache is not None
    return Use(observed.sizes.get(dataset.metadata.name), cache.replicas, cache.quota)


def _story(observed: ObservedRuntime, status: dict[str, Any]) -> list[Tell]:
    """Return the events of what changes in a status."""
    before = {each["type"]: each["status"] for each in (observed.owner.get("status") or {}).get("conditions") or []}
    told = []
    for condition in status["conditions"]:
        kind, is_new = condition["type"], before.get(condition["type"]) != condition["status"]
        is_bad = condition["status"] == "False"
        if is_new and (kind == "Ready" or (kind == "SpecApplied" and is_bad)):
            told.append(Tell(observed.ref, condition["reason"], condition["message"], is_warning=is_bad))
    return told


def _documents(observed: ObservedRuntime) -> list[dict[str, Any]]:
    runtime, namespace = observed.runtime, observed.namespace
    made = [
        manifests_map(runtime, observed.datasets, namespace),
        headless_service(runtime, namespace),
        disruption_budget(runtime, namespace, observed.budget_version),
        stateful_set(runtime, observed.datasets, namespace, observed.default_image),
    ]
    return [owned(observed.owner, document) for document in made]


def _token(observed: ObservedRuntime) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": token_name(observed.runtime),
            "namespace": observed.namespace,
            "labels": labels_of("worker", runtime=observed.runtime.metadata.name),
        },
    }
