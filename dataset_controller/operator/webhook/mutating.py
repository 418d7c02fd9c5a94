"""Decides what a pod that names a dataset gets: a gate until enough is cached, nodes to prefer, a volume. Pure."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.naming import CACHED, DATASET
from dataset_controller.operator.planning.gates import is_gated, opening, wish_of
from dataset_controller.operator.webhook.injecting import volume_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dataset_controller.operator.planning.gates import DatasetFacts

    Facts = Callable[[str, str], DatasetFacts | None]
    Patch = list[dict[str, Any]]


_PREFERRED = ("affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution")
_MOST_NODES = 10


def mutate(document: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """Answer an AdmissionReview of `admission.k8s.io/v1` about a pod; every pod is allowed.

    Args:
        document: What the API server sent.
        facts: Returns what is known of a dataset, by namespace and name; None if there is none.

    Returns:
        What it is to be sent: a patch if the pod gets something, warnings if it does not get what it asks for.

    Raises:
        KeyError: If it is no AdmissionReview; TypeError and AttributeError likewise.
        ClusterError: If nothing is known yet.
    """
    request = document["request"]
    response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    if _is_new_pod(request):
        pod, name = request["object"], (request["object"]["metadata"].get("labels") or {}).get(DATASET)
        known = facts(request["namespace"], name) if name else None
        patch, warnings = patch_of(pod, name, known) if name else ([], [])
        if patch:
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
        if warnings:
            response["warnings"] = warnings
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def patch_of(pod: dict[str, Any], name: str, facts: DatasetFacts | None) -> tuple[Patch, list[str]]:
    """Return what changes a new pod, and warnings for whoever makes it.

    Args:
        pod: As it is to be stored.
        name: Of its dataset.
        facts: Of that; None if there is none.
    """
    if facts is None:
        return [], [f"label {DATASET}: this namespace has no Dataset {name}; the pod stays as it is"]
    try:
        wish = wish_of(pod["metadata"].get("annotations") or {})
    except ValueError as error:
        return [], [f"annotation {error}; the pod stays as it is"]
    patch = _appended(pod["spec"], _PREFERRED, _new_terms(pod["spec"], facts))
    warnings: list[str] = []
    found = opening(wish, name, facts) if wish else None
    if found is not None and found.is_warning:
        warnings.append(f"{found.message}; the pod does not wait")
    elif wish is not None and found is None and pod["spec"].get("nodeName"):
        warnings.append("spec.nodeName is set: the pod does not wait, its node was chosen already")
    elif wish is not None and found is None and not is_gated(pod):
        patch += _appended(pod["spec"], ("schedulingGates",), [{"name": CACHED}])
    volume, more_warnings = volume_of(pod, name, facts)
    return patch + volume, warnings + more_warnings


def _is_new_pod(request: dict[str, Any]) -> bool:
    kind = request["kind"]
    is_pod = (kind["group"], kind["kind"]) == ("", "Pod") and not request.get("subResource")
    return bool(is_pod and request["operation"] == "CREATE")


def _new_terms(spec: Mapping[str, Any], facts: DatasetFacts) -> list[dict[str, Any]]:
    """Return preferences for the nodes that have most of a dataset, without those that a pod has already."""
    there: Any = spec
    for key in _PREFERRED:
        there = there.get(key) or {}
    known = [each.get("preference") for each in there]
    most = sorted(facts.nodes.items(), key=lambda each: (-each[1], each[0]))[:_MOST_NODES]
    terms = [
        {"weight": _weight(held, facts.size_bytes), "preference": _on(node)}
        for node, held in most
        if held > 0 and facts.size_bytes > 0
    ]
    return [term for term in terms if term["preference"] not in known]


def _weight(held: int, size: int) -> int:
    """Return the percentage, as far as it is a weight: 1 to 100."""
    return min(100, max(1, 100 * held // size))


def _on(node: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}


def _appended(spec: Mapping[str, Any], path: Sequence[str], items: Sequence[Any]) -> Patch:
    """Return what appends items to a list of a specification, which may not be there, nor what it is in."""
    pointer, here = "/spec", spec
    for depth, key in enumerate(path):
        pointer = f"{pointer}/{key}"
        found = here.get(key)
        if not found:
            value: Any = list(items)
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return [{"op": "add", "path": pointer, "value": value}] if items else []
        here = found
    return [{"op": "add", "path": f"{pointer}/-", "value": item} for item in items]
