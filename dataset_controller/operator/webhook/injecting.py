"""Gives a pod that asks for it its dataset as a volume of the CSI driver, in all of its containers. Pure."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

from dataset_controller.crds import GROUP
from dataset_controller.operator.naming import INJECT, MOUNT_PATH, REVISION, SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dataset_controller.operator.planning.gates import DatasetFacts

    Patch = list[dict[str, Any]]

VOLUME = "forebay-dataset"
_SAFE_PATH = re.compile(r"(/[^/:\0]+)+")
_MOST_SHOWN = 80


def volume_of(pod: Mapping[str, Any], name: str, facts: DatasetFacts) -> tuple[Patch, list[str]]:
    """Return what adds a volume and its mounts to a new pod, and warnings for whoever makes it.

    Args:
        pod: As it is to be stored.
        name: Of its dataset.
        facts: Of that.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    if (metadata.get("labels") or {}).get(INJECT) != "true" or _has_volume(spec):
        return [], []
    told = metadata.get("annotations") or {}
    path = told.get(MOUNT_PATH) or f"/datasets/{name}"
    if not _SAFE_PATH.fullmatch(path) or posixpath.normpath(path) != path:
        shown = path[:_MOST_SHOWN]
        return [], [
            f"annotation {MOUNT_PATH}: expected an absolute path such as /data, found {shown!r}; no volume is added"
        ]
    secret = told.get(SECRET) or next(iter(facts.secrets), "")
    if len(facts.secrets) > 1 and not told.get(SECRET):
        several = f"dataset {name} names {len(facts.secrets)} secrets: put them into one, with entries SECRET.OPTION"
        return [], [f"{several}, and name that in annotation {SECRET}; no volume is added"]
    attributes = {"dataset": name} | ({"revision": told[REVISION]} if told.get(REVISION) else {})
    driver: dict[str, Any] = {"driver": GROUP, "readOnly": True, "volumeAttributes": attributes}
    if secret:
        driver["nodePublishSecretRef"] = {"name": secret}
    return [*_added("/spec", spec, "volumes", {"name": VOLUME, "csi": driver}), *_mounts(spec, path)], []


def _has_volume(spec: Mapping[str, Any]) -> bool:
    return any(volume.get("name") == VOLUME for volume in spec.get("volumes") or ())


def _mounts(spec: Mapping[str, Any], path: str) -> Patch:
    """Return what shows the volume to the containers that have nothing of their own at its path."""
    mount = {"name": VOLUME, "mountPath": path, "readOnly": True}
    patch: Patch = []
    for kind in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(kind) or ()):
            taken = {each.get("mountPath") for each in container.get("volumeMounts") or ()}
            if path not in taken:
                patch += _added(f"/spec/{kind}/{number}", container, "volumeMounts", mount)
    return patch


def _added(pointer: str, holder: Mapping[str, Any], name: str, item: Mapping[str, Any]) -> Patch:
    if holder.get(name):
        return [{"op": "add", "path": f"{pointer}/{name}/-", "value": item}]
    return [{"op": "add", "path": f"{pointer}/{name}", "value": [item]}]
