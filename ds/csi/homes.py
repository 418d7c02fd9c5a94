"""What the process of a mount is given: the manifests of its dataset and cache, and its secrets. Pure."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dataset_controller.operator.objects.pods import secrets_of
from ds.csi.errors import VolumeRefusedError, VolumeRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dataset_controller.model import CacheRuntime, Dataset, Resource

_REMOTE = ("abfs", "az", "gs", "hdfs", "http", "https", "nfs", "s3")
"""Schemes that read nothing of this node. `dvc` does: a project may lie in a directory."""


@dataclass(frozen=True)
class Allowed:
    """What of the node its administrator lets datasets use. A namespace's user writes the objects; the driver is root.

    Attributes:
        caches: Directories that the tiers of caches may lie below.
        files: Directories that `file:` URIs may lie below.
    """

    caches: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def check_allowed(dataset: Dataset, runtime: CacheRuntime | None, allowed: Allowed) -> None:
    """See that a mount would read and write nothing of the node that it may not.

    Raises:
        VolumeRefusedError: If it would.
    """
    for place in (*dataset.spec.mounts, dataset.spec.repo):
        parts = urlsplit(place.uri)
        is_local = parts.scheme == "file" and _is_below(unquote(parts.path), allowed.files)
        if parts.scheme not in _REMOTE and not is_local:
            raise VolumeRefusedError(
                f"Dataset {dataset.metadata.name}: {place.uri} is read from the node, which ds csi allows with "
                f"--files DIRECTORY only (file:); from elsewhere it reads {', '.join(_REMOTE)}"
            )
    for tier in runtime.spec.tiers if runtime is not None else ():
        if not _is_below(tier.path, allowed.caches):
            name = runtime.metadata.name if runtime is not None else ""
            raise VolumeRefusedError(
                f"CacheRuntime {name}: its tier {tier.path} is not below a directory that ds csi has by --cache; "
                f"found {', '.join(allowed.caches) or 'none'}"
            )


def home_files(dataset: Dataset, runtime: CacheRuntime | None, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a mount's home, by their paths in it.

    The cache is that of the node alone: the workers' token is not the pod's to have.

    Args:
        dataset: As declared.
        runtime: Its cache, if it names one.
        secrets: What came with the volume.

    Raises:
        VolumeRefusedError: If the dataset needs a secret and none came.
        VolumeRequestError: If it needs several, and an entry says not of which it is.
    """
    files = {f"manifests/dataset-{dataset.metadata.name}.json": _manifest(dataset)}
    if runtime is not None:
        alone = runtime.model_copy(update={"spec": runtime.spec.model_copy(update={"workers": None})})
        files[f"manifests/cacheruntime-{runtime.metadata.name}.json"] = _manifest(alone)
    needed = secrets_of([dataset])
    if needed and not secrets:
        raise VolumeRefusedError(
            f"Dataset {dataset.metadata.name} needs Secret {' and '.join(needed)}, and the volume brings none: "
            f"set nodePublishSecretRef: {{name: {needed[0]}}} beside its driver"
        )
    for key, value in secrets.items() if needed else ():
        name, option = _owner(key, needed)
        files[f"secrets/{name}/{option}"] = value
    return files


def _owner(key: str, needed: list[str]) -> tuple[str, str]:
    """Say which secret an entry belongs to, and the option that it is."""
    if "/" in key or key.startswith("."):
        raise VolumeRequestError("an entry of the volume's Secret has a name that no option has")
    if len(needed) == 1:
        return needed[0], key
    name, _, option = key.partition(".")
    if name in needed and option and not option.startswith("."):
        return name, option
    raise VolumeRequestError(
        f"the dataset needs the Secrets {', '.join(needed)}, and a volume can bring one: name its entries "
        f"SECRET.OPTION, such as {needed[0]}.key"
    )


def _is_below(path: str, directories: tuple[str, ...]) -> bool:
    normal = os.path.normpath(path)
    return any(normal == each or normal.startswith(each.rstrip("/") + "/") for each in directories)


def _manifest(resource: Resource) -> str:
    return json.dumps(resource.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=True)
