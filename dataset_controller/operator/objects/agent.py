"""The agent of a namespace: it has the secrets of the namespace's datasets, looks at their sources, and tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.crds import GROUP, KINDS
from dataset_controller.operator.naming import labels_of
from dataset_controller.operator.objects.pods import HOME, NON_ROOT, RESTRICTED, home_volumes, secrets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dataset_controller.model import Dataset

AGENT = "forebay-agent"
PORT = 7071
_GRACE_SECONDS = 60
"""For a commit that is being made."""


def agent_rules() -> list[dict[str, Any]]:
    """Return what an agent may do, in its own namespace."""
    plurals = sorted(kind.plural for kind in KINDS)
    return [
        {"apiGroups": [GROUP], "resources": plurals, "verbs": ["get", "list", "watch"]},
        {"apiGroups": [GROUP], "resources": [f"{name}/status" for name in plurals], "verbs": ["get", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update", "patch"]},
    ]


def agent_objects(
    namespace: str, datasets: Sequence[Dataset], image: str, tokens: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the agent of a namespace, with the rights that it needs.

    Args:
        namespace: Where.
        datasets: Of it.
        image: The operator's own.
        tokens: Names of the secrets of the workers' tokens.
    """
    metadata = {"name": AGENT, "namespace": namespace, "labels": labels_of("agent")}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": AGENT}
    account = {"kind": "ServiceAccount", "name": AGENT, "namespace": namespace}
    rights = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {**rights, "kind": "Role", "rules": agent_rules()},
        {**rights, "kind": "RoleBinding", "roleRef": role, "subjects": [account]},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels_of("agent")},
                "template": {
                    "metadata": {"labels": labels_of("agent")},
                    "spec": _pod(namespace, datasets, image, tokens),
                },
            },
        },
    ]


def _pod(namespace: str, datasets: Sequence[Dataset], image: str, tokens: Sequence[str]) -> dict[str, Any]:
    volumes, mounts = home_volumes(secrets_of(datasets))
    for number, token in enumerate(sorted(tokens)):
        volumes.append({"name": f"token-{number}", "secret": {"secretName": token, "optional": True}})
        mounts.append({"name": f"token-{number}", "mountPath": f"{HOME}/tokens/{token}", "readOnly": True})
    fields = {"POD_NAME": "metadata.name", "POD_IP": "status.podIP"}
    names = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    container = {
        "name": "agent",
        "image": image,
        "command": ["ds", "agent", "--namespace", namespace, "--listen", f"$(POD_IP):{PORT}", "--log", "json"],
        "env": [*names, {"name": "FOREBAY_HOME", "value": HOME}],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }
    return {
        "serviceAccountName": AGENT,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": NON_ROOT,
        "containers": [container],
        "volumes": volumes,
    }
