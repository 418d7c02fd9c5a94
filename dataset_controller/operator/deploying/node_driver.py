"""The objects that run `ds csi` on every node: apart from the operator's, as its pods are privileged and root's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from dataset_controller.crds import GROUP

NAME = "forebay-csi"
CACHE = "/var/cache/forebay"
KUBELET = "/var/lib/kubelet"
_STATE, _TREES = "/run/forebay", "/var/lib/forebay/nodes"
_RBAC = "rbac.authorization.k8s.io"
_LABELS = {"app.kubernetes.io/name": "forebay", "app.kubernetes.io/component": "csi"}
_GRACE_SECONDS = 30


@dataclass(frozen=True)
class NodeDriver:
    """The drivers of a cluster's nodes.

    Attributes:
        namespace: Where they run.
        image: Of their pods.
        cache: Directory of each node that the tiers of caches lie below.
        kubelet_dir: The kubelet's root.
    """

    namespace: str = NAME
    image: str = ""
    cache: str = CACHE
    kubelet_dir: str = KUBELET

    @property
    def pod_image(self) -> str:
        """The image, by default that of this version."""
        return self.image or f"forebay:{version('forebay')}"

    def metadata(self, *, in_namespace: bool = True) -> dict[str, Any]:
        """Return the metadata of one of its objects."""
        place = {"namespace": self.namespace} if in_namespace else {}
        return {"name": NAME, **place, "labels": dict(_LABELS)}


def node_driver_objects(driver: NodeDriver) -> list[dict[str, Any]]:
    """Return all objects, the namespace too, in the order in which they can be made."""
    return [driver_namespace(driver), *driver_parts(driver)]


def driver_namespace(driver: NodeDriver) -> dict[str, Any]:
    """Return a namespace whose pods may be privileged; nothing else belongs there."""
    metadata = {"name": driver.namespace, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def driver_parts(driver: NodeDriver) -> list[dict[str, Any]]:
    """Return what lies in the namespace, and what the whole cluster knows."""
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": driver.namespace}
    role = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": NAME}
    everywhere = driver.metadata(in_namespace=False)
    return [
        csi_driver(),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": driver.metadata()},
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": everywhere, "rules": driver_rules()},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": everywhere,
            "roleRef": role,
            "subjects": [account],
        },
        daemon_set(driver),
    ]


def driver_rules() -> list[dict[str, Any]]:
    """Return all that a driver may do: read two kinds. A volume's Secret comes from the kubelet."""
    return [{"apiGroups": [GROUP], "resources": ["cacheruntimes", "datasets"], "verbs": ["get"]}]


def csi_driver() -> dict[str, Any]:
    """Return what the cluster knows of the driver: pods may name it themselves, and it is told of which pod it is."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": GROUP, "labels": dict(_LABELS)},
        "spec": {
            "attachRequired": False,
            "podInfoOnMount": True,  # a pod sees the datasets of its own namespace
            "volumeLifecycleModes": ["Ephemeral", "Persistent"],
        },
    }


def daemon_set(driver: NodeDriver) -> dict[str, Any]:
    """Return the pods, one on each node. They are replaced when they are deleted only: their mounts die with them."""
    pod = {
        "serviceAccountName": NAME,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "shareProcessNamespace": True,  # its first process takes leave of supervisors of mounts that ended
        "tolerations": [{"operator": "Exists"}],
        "containers": [_container(driver)],
        "volumes": [
            {"name": "kubelet", "hostPath": {"path": driver.kubelet_dir, "type": "Directory"}},
            {"name": "cache", "hostPath": {"path": driver.cache, "type": "DirectoryOrCreate"}},
            {"name": "state", "emptyDir": {"medium": "Memory"}},  # secrets touch no disk
            {"name": "trees", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": driver.metadata(),
        "spec": {
            "selector": {"matchLabels": dict(_LABELS)},
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": dict(_LABELS)}, "spec": pod},
        },
    }


def _container(driver: NodeDriver) -> dict[str, Any]:
    return {
        "name": "csi",
        "image": driver.pod_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "ds", "csi", "--kubelet-dir", driver.kubelet_dir, "--state", _STATE, "--trees", _TREES,
            "--cache", driver.cache, "--log", "json",
        ],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        # to mount for others (mountPropagation) a container has to be privileged
        "securityContext": {"privileged": True, "runAsUser": 0, "runAsGroup": 0, "readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "kubelet", "mountPath": driver.kubelet_dir, "mountPropagation": "Bidirectional"},
            {"name": "cache", "mountPath": driver.cache},
            {"name": "state", "mountPath": _STATE},
            {"name": "trees", "mountPath": _TREES},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }  # fmt: skip
