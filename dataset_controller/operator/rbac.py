"""What the operator may do: one source for manifests, the chart and the tests. It may not look at secrets."""

from __future__ import annotations

from typing import Any

from dataset_controller.crds import GROUP, KINDS
from dataset_controller.operator.objects.agent import agent_rules

_MADE = {
    "": ["configmaps", "serviceaccounts", "services"],
    "apps": ["deployments", "statefulsets"],
    "batch": ["jobs"],
    "policy": ["poddisruptionbudgets"],
    "rbac.authorization.k8s.io": ["rolebindings", "roles"],
}


def operator_rules() -> list[dict[str, Any]]:
    """Return the rights of the operator in the namespaces that it serves; it grants its agents some of them."""
    plurals = sorted(kind.plural for kind in KINDS)
    scaled = sorted(f"{kind.plural}/scale" for kind in KINDS if kind.scales)
    return [
        {"apiGroups": [GROUP], "resources": plurals, "verbs": ["get", "list", "watch"]},
        {"apiGroups": [GROUP], "resources": [f"{name}/status" for name in plurals], "verbs": ["get", "patch"]},
        {"apiGroups": [GROUP], "resources": scaled, "verbs": ["patch"]},
        # what blocks the deletion of its owner needs this right where OwnerReferencesPermissionEnforcement is on
        {"apiGroups": [GROUP], "resources": [f"{name}/finalizers" for name in plurals], "verbs": ["update"]},
        *(
            {
                "apiGroups": [group],
                "resources": resources,
                "verbs": ["create", "delete", "get", "list", "patch", "watch"],
            }
            for group, resources in _MADE.items()
        ),
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        # an event that an operator before this one wrote is counted on
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "get", "patch"]},
        *agent_rules(),
        # the scheduling gate of a pod that waits for its dataset is taken away: there is no smaller right for that
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]},
    ]


def lease_rules() -> list[dict[str, Any]]:
    """Return the rights of the operator in the namespace of its lease."""
    return [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]},
    ]


def claim_rules() -> list[dict[str, Any]]:
    """Return the rights, in the whole cluster, to make volumes of datasets that pods can claim."""
    kinds = ["persistentvolumeclaims", "persistentvolumes"]
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    return [{"apiGroups": [""], "resources": kinds, "verbs": verbs}]


def certificate_rules(name: str) -> list[dict[str, Any]]:
    """Return the rights to the one Secret that the certificate of the webhooks is in."""
    return [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get", "update"]}]


def configuration_rules(name: str) -> list[dict[str, Any]]:
    """Return the rights to have the API server trust that certificate."""
    kinds = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]
    group = "admissionregistration.k8s.io"
    return [{"apiGroups": [group], "resources": kinds, "resourceNames": [name], "verbs": ["get", "update"]}]
