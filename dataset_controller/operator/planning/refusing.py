"""What keeps a specification from being applied, and how it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.operations import OPERATIONS
from dataset_controller.operator.planning.actions import Action, PatchStatus, Ref, Tell
from dataset_controller.operator.planning.comparing import tells
from dataset_controller.operator.planning.conditions import Finding, conditions

if TYPE_CHECKING:
    from datetime import datetime

SPEC_APPLIED = "SpecApplied"
_KEPT = {
    "CacheRuntime": ("replicas", "readyReplicas", "selector"),
    **dict.fromkeys(OPERATIONS, ("phase", "run", "specDigest", "startTime", "completionTime", "nextTime")),
}
"""Fields of a status that the operator tells, by kind: what it does not tell again is forgotten."""
_OWN_CONDITIONS = {
    "CacheRuntime": ("FewerWorkersEnough", "Ready"),
    **dict.fromkeys(OPERATIONS, ("Complete",)),
    "Dataset": ("ClaimReady", "RuntimeFound"),
}


def applied_finding(refusal: str | None, without_effect: str | None = None) -> Finding:
    """Tell whether all that is declared has an effect.

    Args:
        refusal: What the API server said to what follows from it.
        without_effect: Fields that have none, and what to do.
    """
    if refusal is not None:
        return Finding(SPEC_APPLIED, False, "Refused", refusal)
    if without_effect is not None:
        return Finding(SPEC_APPLIED, False, "FieldsWithoutEffect", without_effect)
    return Finding(SPEC_APPLIED, True, "Applied")


def plan_invalid(owner: dict[str, Any], reason: str, message: str, now: datetime) -> list[Action]:
    """Say that a specification cannot be applied; what was made for the one before it stays as it is.

    Args:
        owner: The object, as the API server says it.
        reason: One word.
        message: What is wrong with it, and what to do.
        now: With a time zone.
    """
    kind, before = owner["kind"], owner.get("status") or {}
    generation = int(owner["metadata"].get("generation") or 1)
    known = before.get("conditions") or []
    kept = [each for each in known if each["type"] in _OWN_CONDITIONS.get(kind, ())]
    told = conditions(known, [Finding(SPEC_APPLIED, False, reason, message)], generation=generation, now=now)
    status = {key: before[key] for key in _KEPT.get(kind, ()) if key in before}
    status.update(observedGeneration=generation, conditions=[*kept, *told])
    if tells(before, status):
        return []
    ref = Ref.of(owner)
    return [Tell(ref, reason, message, is_warning=True), PatchStatus(ref, status)]
