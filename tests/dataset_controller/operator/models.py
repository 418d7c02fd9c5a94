"""A plain model of a cluster: does what a plan says, and adds what a server and its controllers add."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.planning.actions import Action, Apply, CreateToken, Delete, PatchStatus, Ref

if TYPE_CHECKING:
    from dataset_controller.operator.planning.runtime import ObservedRuntime


@dataclass
class FakeCluster:
    """What is in the cluster."""

    objects: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    statuses: dict[Ref, dict[str, Any]] = field(default_factory=dict)

    def do(self, action: Action) -> None:
        """Do one action."""
        if isinstance(action, Apply):
            ref = Ref.of(action.document)
            before = self.objects.get(ref, {})
            self.objects[ref] = merged(before, action.document)
            self.objects[ref].setdefault("status", {})
            self.objects[ref]["spec"] = {**self.objects[ref].get("spec", {}), "setByTheServer": True}
        elif isinstance(action, CreateToken):
            self.tokens.add(action.document["metadata"]["name"])
        elif isinstance(action, Delete):
            self.objects.pop(action.ref, None)
        elif isinstance(action, PatchStatus):
            # what a manager does not tell again is forgotten
            self.statuses[action.ref] = {key: value for key, value in action.status.items() if value is not None}

    def start_pods(self) -> None:
        """Let the controllers of the server do their part."""
        for ref, found in self.objects.items():
            if ref.kind == "StatefulSet":
                count = found["spec"]["replicas"]
                found["status"] = {"replicas": count, "readyReplicas": count}

    def seen(self, observed: ObservedRuntime, status_of: Ref) -> ObservedRuntime:
        """Return what an observer sees now."""
        owner = {**observed.owner, "status": copy.deepcopy(self.statuses.get(status_of, {}))}
        has_token = bool(self.tokens)
        return replace(observed, owner=owner, objects=copy.deepcopy(self.objects), has_token=has_token)


def merged(before: Any, applied: Any) -> Any:
    """Apply as a server does: what is not said stays, lists are replaced."""
    if isinstance(before, dict) and isinstance(applied, dict):
        return {**before, **{key: merged(before.get(key), value) for key, value in applied.items()}}
    return copy.deepcopy(applied)
