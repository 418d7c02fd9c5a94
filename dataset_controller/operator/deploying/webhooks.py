"""The objects that lead the API server's questions to the operator: what it answers at `/validate` and `/mutate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.crds import GROUP, VERSION
from dataset_controller.operator.deploying.installing import LABELS, role_and_binding
from dataset_controller.operator.naming import DATASET
from dataset_controller.operator.rbac import certificate_rules, configuration_rules
from dataset_controller.operator.webhook.serving import MUTATE, VALIDATE

if TYPE_CHECKING:
    from dataset_controller.operator.deploying.installing import Installation

_ADMISSION = "admissionregistration.k8s.io/v1"
_PORT, _SECONDS = 443, 5
_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def webhook_objects(installation: Installation) -> list[dict[str, Any]]:
    """Return what the webhooks need: the operator fills in the certificate that it makes."""
    name = installation.webhook_name
    return [
        _service(installation),
        _secret(installation),
        *role_and_binding(installation, name, certificate_rules(name), installation.namespace),
        *role_and_binding(installation, name, configuration_rules(name), None),
        _configuration(installation, "ValidatingWebhookConfiguration", _validating(installation)),
        _configuration(installation, "MutatingWebhookConfiguration", _mutating(installation)),
    ]


def _service(installation: Installation) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": installation.metadata(installation.webhook_name, namespace=installation.namespace),
        "spec": {
            "selector": dict(LABELS),
            "ports": [{"name": "https", "port": _PORT, "targetPort": "webhook", "protocol": "TCP"}],
        },
    }


def _secret(installation: Installation) -> dict[str, Any]:
    """Return the Secret of the certificate; empty, so that the operator needs no right to make secrets here."""
    metadata = installation.metadata(installation.webhook_name, namespace=installation.namespace)
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}


def _configuration(installation: Installation, kind: str, webhook: dict[str, Any]) -> dict[str, Any]:
    metadata = installation.metadata(installation.webhook_name)
    return {"apiVersion": _ADMISSION, "kind": kind, "metadata": metadata, "webhooks": [webhook]}


def _validating(installation: Installation) -> dict[str, Any]:
    # without subresources such as `status`; a field that the definitions do not know is dropped before
    rule = {"apiGroups": [GROUP], "apiVersions": [VERSION], "operations": ["CREATE", "UPDATE"], "resources": ["*"]}
    return {"name": f"validate.{GROUP}", **_asked(installation, VALIDATE, rule)}


def _mutating(installation: Installation) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    ours = {"matchExpressions": [{"key": DATASET, "operator": "Exists"}]}  # other pods never come here
    return {"name": f"pods.{GROUP}", **_asked(installation, MUTATE, rule), "objectSelector": ours}


def _asked(installation: Installation, path: str, rule: dict[str, Any]) -> dict[str, Any]:
    service = {"namespace": installation.namespace, "name": installation.webhook_name, "path": path, "port": _PORT}
    served: dict[str, Any] = {}
    if installation.served:
        chosen = {"key": _NAMESPACE_NAME, "operator": "In", "values": list(installation.served)}
        served = {"namespaceSelector": {"matchExpressions": [chosen]}}
    return {
        "clientConfig": {"service": service},
        "rules": [rule],
        **served,
        "failurePolicy": "Ignore",  # without the operator all goes on as if there were no webhook
        "timeoutSeconds": _SECONDS,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
