"""What the operator tells of a dataset; its agent looks at its sources, and tells the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.planning.actions import Action, PatchStatus, Ref
from dataset_controller.operator.planning.claims import plan_claim
from dataset_controller.operator.planning.comparing import tells
from dataset_controller.operator.planning.conditions import Finding, conditions
from dataset_controller.operator.planning.refusing import applied_finding

if TYPE_CHECKING:
    from datetime import datetime

    from dataset_controller.model import Dataset
    from dataset_controller.operator.planning.claims import ObservedClaim


@dataclass(frozen=True)
class ObservedDataset:
    """A dataset in its cluster.

    Attributes:
        owner: The Dataset as the API server says it.
        dataset: Its specification.
        has_runtime: Whether the CacheRuntime that it names is there.
        claim: Of its volume; None if there are to be none.
        refusal: What the API server said to what follows from it.
    """

    owner: dict[str, Any]
    dataset: Dataset
    has_runtime: bool
    claim: ObservedClaim | None = None
    refusal: str | None = None


def plan_dataset(observed: ObservedDataset, now: datetime) -> list[Action]:
    """Decide what to tell of a dataset, and what its claim takes. Applied in full, it plans nothing."""
    before = observed.owner.get("status") or {}
    generation = int(observed.owner["metadata"].get("generation") or 1)
    actions: list[Action] = []
    findings = [applied_finding(observed.refusal), _runtime_found(observed)]
    if observed.claim is not None:
        actions, found = plan_claim(observed.claim)
        findings.append(found)
    status = {
        "observedGeneration": generation,
        "conditions": conditions(before.get("conditions") or [], findings, generation=generation, now=now),
    }
    return actions if tells(before, status) else [*actions, PatchStatus(Ref.of(observed.owner), status)]


def _runtime_found(observed: ObservedDataset) -> Finding:
    cache = observed.dataset.spec.cache
    if cache is None:
        message = "spec.cache names no CacheRuntime: it is read from its sources"
        return Finding("RuntimeFound", None, "NoCache", message)
    name = cache.runtime_ref.name
    if observed.has_runtime:
        return Finding("RuntimeFound", True, "Found", f"CacheRuntime {name}")
    message = f"this namespace has no CacheRuntime {name}: apply one, or name another in spec.cache.runtimeRef"
    return Finding("RuntimeFound", False, "NoSuchRuntime", message)
