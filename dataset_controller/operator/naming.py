"""Names and labels of what the operator makes."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from dataset_controller.crds import GROUP

MANAGER = "forebay"
"""Whose fields they are, in server-side apply, and what `app.kubernetes.io/managed-by` says."""
MOST_CHARACTERS = 63
_HASH_DIGITS = 8
_NO_LABEL = re.compile(r"[^A-Za-z0-9_.-]")
OWNER_UID = f"{GROUP}/owner-uid"
RUNTIME = f"{GROUP}/runtime"
OPERATION = f"{GROUP}/operation"
RUN = f"{GROUP}/run"
SPEC_DIGEST = f"{GROUP}/spec-digest"
SLOT = f"{GROUP}/scheduled-for"
DATASET = f"{GROUP}/dataset"
"""Label of people's pods: the dataset that they read."""
START_AT = f"{GROUP}/start-at"
START_WITHIN = f"{GROUP}/start-within"
INJECT = f"{GROUP}/inject"
"""Label of people's pods: "true" to see their dataset as files."""
MOUNT_PATH = f"{GROUP}/mount-path"
REVISION = f"{GROUP}/revision"
SECRET = f"{GROUP}/secret"
CACHED = f"{GROUP}/cached"
"""The scheduling gate of pods that wait for their dataset."""
WEBHOOK_NAME = "forebay-controller-webhook"
"""Of the Service, the Secret and the configurations of the webhooks, where nobody chose another name."""


def fitting(name: str, *, most: int = MOST_CHARACTERS) -> str:
    """Return a name of at most so many characters; a longer one keeps its beginning and ends in a hash of the whole.

    Names that differ stay different, and a name that is short enough stays as it is.
    """
    if len(name) <= most:
        return name
    digest = sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{name[: most - _HASH_DIGITS - 1].rstrip('-.')}-{digest}"


def label_value(text: str) -> str:
    """Return a text as the value of a label."""
    return fitting(_NO_LABEL.sub("-", text)).strip("-_.")


def labels_of(component: str, *, runtime: str | None = None, operation: str | None = None) -> dict[str, str]:
    """Return the labels of what is made, without its owner.

    Args:
        component: "worker", "agent" or "job".
        runtime: Name of the CacheRuntime that it belongs to.
        operation: Kind and name of the operation that it belongs to.
    """
    labels = {
        "app.kubernetes.io/name": "forebay",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGER,
    }
    if runtime is not None:
        labels[RUNTIME] = label_value(runtime)
    if operation is not None:
        labels[OPERATION] = label_value(operation)
    return labels


def owner_reference(owner: dict[str, Any]) -> dict[str, Any]:
    """Return what makes an object go with its owner.

    Args:
        owner: As the API server says it.
    """
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
