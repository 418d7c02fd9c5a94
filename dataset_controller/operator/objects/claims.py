"""The volume of a dataset that pods claim by its name: a PersistentVolume of the CSI driver, and the claim of it."""

from __future__ import annotations

from typing import Any

from dataset_controller.crds import GROUP
from dataset_controller.operator.naming import labels_of

_SHOWN = "1Gi"
"""A capacity is required, and means nothing: a version is as large as it is."""
_MODES = ["ReadOnlyMany"]


def claim_objects(owner: dict[str, Any], secret: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return volume and claim.

    The volume is of the whole cluster, and named by the dataset's id: the one of a dataset that is deleted may stay for
    a while, until the last pod that uses it has ended. No other claim than the dataset's can have it.

    Args:
        owner: The Dataset as the API server says it.
        secret: Handed to the driver by the kubelet, of the dataset's namespace; None for none.
    """
    metadata = owner["metadata"]
    name, namespace, volume = metadata["name"], metadata["namespace"], f"forebay-{metadata['uid']}"
    labels = labels_of("claim")
    driver: dict[str, Any] = {
        "driver": GROUP,
        "volumeHandle": volume,
        "readOnly": True,
        "volumeAttributes": {"dataset": name},
    }
    if secret is not None:
        driver["nodePublishSecretRef"] = {"name": secret, "namespace": namespace}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume, "labels": labels},
        "spec": {
            "accessModes": _MODES,
            "capacity": {"storage": _SHOWN},
            "claimRef": claim,
            "persistentVolumeReclaimPolicy": "Retain",
            "csi": driver,
        },
    }, {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "accessModes": _MODES,
            "resources": {"requests": {"storage": _SHOWN}},
            "storageClassName": "",
            "volumeName": volume,
        },
    }
