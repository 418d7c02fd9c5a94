"""Decides about an AdmissionReview: the models of the laptop, in front of the API server. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dataset_controller.crds import GROUP
from dataset_controller.manifests import fault_of
from dataset_controller.model import KINDS
from dataset_controller.operations import OPERATIONS

_MODELS: dict[str, Any] = {**KINDS, **OPERATIONS}
_KEPT_REPOSITORY = "a dataset keeps its repository; delete the dataset and declare it anew to move it"
_INVALID = 422


def review(document: dict[str, Any]) -> dict[str, Any]:
    """Answer an AdmissionReview of `admission.k8s.io/v1`.

    Args:
        document: What the API server sent.

    Returns:
        What it is to be sent: the request's uid, whether it is allowed, and why not.

    Raises:
        KeyError: If it is no AdmissionReview; TypeError and AttributeError likewise.
    """
    request = document["request"]
    refusal = _refusal(request)
    response: dict[str, Any] = {"uid": request["uid"], "allowed": refusal is None}
    if refusal is not None:
        response["status"] = {"code": _INVALID, "reason": "Invalid", "message": refusal}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _refusal(request: dict[str, Any]) -> str | None:
    """Say what is wrong with an object; None if nothing is, or if it is none of ours."""
    model = _MODELS.get(request["kind"]["kind"])
    if request["kind"]["group"] != GROUP or model is None or request["operation"] not in ("CREATE", "UPDATE"):
        return None
    new, old = request["object"], request.get("oldObject") or {}
    if new["metadata"].get("deletionTimestamp") or (old and new.get("spec") == old.get("spec")):
        return None  # or the finalizers and labels of what was stored before us could never change
    try:
        model.model_validate(_plain(new))
    except ValidationError as error:
        field, reason = fault_of(error, model)
        return f"{field}: {reason}" if field else reason
    if model.__name__ == "Dataset" and old and _repository(new) != _repository(old):
        return f"spec.repo.uri: {_KEPT_REPOSITORY}"
    return None


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Return what people declare of an object, without what the server added to it."""
    metadata = document["metadata"]
    name = metadata.get("name") or f"{metadata.get('generateName', '')}x"
    declared = {key: value for key, value in document.items() if key != "status"}
    return {**declared, "metadata": {"name": name}}


def _repository(document: dict[str, Any]) -> Any:
    return ((document.get("spec") or {}).get("repo") or {}).get("uri")
