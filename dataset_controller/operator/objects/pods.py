"""What all pods of the operator share: where they find manifests, secrets and tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dataset_controller.model import Dataset

MANIFESTS = "/etc/forebay/manifests"
"""Directory of the manifests, see `MountedCatalog`; `WORKERS_FILE` is in it."""
WORKERS_FILE = "workers.txt"
TOKEN_FILE = "/etc/forebay/token/token"
HOME = "/var/lib/forebay"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
NON_ROOT = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""With `RESTRICTED`, what the restricted profile of pod security asks for."""


def secrets_of(datasets: Iterable[Dataset]) -> list[str]:
    """Return the names of the secrets that datasets name, sorted."""
    places = [place for dataset in datasets for place in (*dataset.spec.mounts, dataset.spec.repo)]
    return sorted({place.secret_ref.name for place in places if place.secret_ref is not None})


def environment(**further: str) -> list[dict[str, Any]]:
    """Return the variables of a container: those of `ds`, its pod's own, and further ones."""
    own = {"POD_NAME": "metadata.name", "POD_IP": "status.podIP", "NODE_NAME": "spec.nodeName"}
    fields = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in own.items()]
    texts = {"FOREBAY_HOME": HOME, "FOREBAY_MANIFESTS": MANIFESTS, **further}
    return [*fields, *({"name": name, "value": value} for name, value in texts.items())]


def home_volumes(secrets: Iterable[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts of a pod's home, and of secrets in it.

    A secret that is not there (yet) does not keep the pod from starting: its dataset tells.
    """
    volumes: list[dict[str, Any]] = [{"name": "home", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "home", "mountPath": HOME}, {"name": "tmp", "mountPath": "/tmp"}]
    for number, secret in enumerate(secrets):
        volumes.append({"name": f"secret-{number}", "secret": {"secretName": secret, "optional": True}})
        mounts.append({"name": f"secret-{number}", "mountPath": f"{HOME}/secrets/{secret}", "readOnly": True})
    return volumes, mounts
