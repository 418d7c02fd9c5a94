"""What a pod asks for with a volume. Pure: the kubelet's request in, what is to be mounted out."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ds.csi.errors import VolumeRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER = "forebay.dev"
"""What volumes name."""
_NAMESPACE = "csi.storage.k8s.io/pod.namespace"
_EPHEMERAL = "csi.storage.k8s.io/ephemeral"
_OF_KUBERNETES = ("csi.storage.k8s.io/", "storage.kubernetes.io/")
_ATTRIBUTES = ("dataset", "follow", "path", "revision")
_READER_ONLY = (2, 3)
"""SINGLE_NODE_READER_ONLY and MULTI_NODE_READER_ONLY of CSI: the access mode ReadOnlyMany."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Wish:
    """A dataset that a pod wants to see.

    Attributes:
        target: Where the kubelet wants it.
        namespace: The pod's, and therefore the dataset's.
        dataset: Its name.
        revision: As in `ds mount`; None is the branch that changes are committed to.
        path: What of it; "" is all.
        follow: Whether the mount follows the branch.
        secrets: What the volume's `nodePublishSecretRef` holds.
    """

    target: str
    namespace: str
    dataset: str
    revision: str | None = None
    path: str = ""
    follow: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def source(self) -> str:
        """What `ds mount` is told."""
        revision = f"@{quote(self.revision, safe='~^')}" if self.revision else ""
        return f"{self.dataset}{revision}{'/' if self.path else ''}{self.path}"


def wish_of(request: Any, *, kubelet_dir: str) -> Wish:
    """Read a NodePublishVolumeRequest.

    The dataset is one of the pod's own namespace, which the kubelet says and no pod can: so nobody sees another one's.

    Raises:
        VolumeRequestError: If it asks for what is not there: something to write to, a device, an unknown attribute.
    """
    context, capability = request.volume_context, request.volume_capability
    if not request.volume_id:
        raise VolumeRequestError("the request names no volume_id")
    if capability.HasField("block"):
        raise VolumeRequestError("a dataset is files, not a device: leave volumeMode: Block out")
    if context.get(_EPHEMERAL) != "true" and capability.access_mode.mode not in _READER_ONLY:
        raise VolumeRequestError("a dataset is read-only: accessModes of the PersistentVolume must be [ReadOnlyMany]")
    known = {name: context[name] for name in context if not name.startswith(_OF_KUBERNETES)}
    unknown = sorted(set(known) - set(_ATTRIBUTES))
    if unknown:
        raise VolumeRequestError(f"unknown volumeAttributes {', '.join(unknown)}; there are {', '.join(_ATTRIBUTES)}")
    namespace = context.get(_NAMESPACE, "")
    if not _NAME.fullmatch(namespace):
        raise VolumeRequestError(
            "the kubelet does not say the pod's namespace: the CSIDriver needs podInfoOnMount: true"
        )
    if not _NAME.fullmatch(known.get("dataset", "")):
        raise VolumeRequestError("volumeAttributes must name the Dataset of the pod's namespace: dataset: NAME")
    return Wish(
        target=checked_target(request.target_path, kubelet_dir=kubelet_dir),
        namespace=namespace,
        dataset=known["dataset"],
        revision=known.get("revision") or None,
        path=known.get("path", "").strip("/"),
        follow=_flag(known.get("follow", "false")),
        secrets=dict(request.secrets),
    )


def checked_target(target: str, *, kubelet_dir: str) -> str:
    """Return where the kubelet wants a volume, or wants it gone.

    Raises:
        VolumeRequestError: If that is not in the directory of a pod: whatever else is mounted on the node stays.
    """
    pods = os.path.join(kubelet_dir, "pods") + "/"
    if not target.startswith(pods) or os.path.normpath(target) != target:
        raise VolumeRequestError(f"target_path {target!r} is not below {pods}: is --kubelet-dir the kubelet's root?")
    return target


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise VolumeRequestError(f'volumeAttributes.follow: expected "true" or "false", found {text!r}')
    return text == "true"
