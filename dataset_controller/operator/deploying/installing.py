"""The objects that run `ds controller` in a cluster: its account, its rights, its pods, and what scrapes it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dataset_controller.crds import GROUP, KINDS, definitions
from dataset_controller.operator.objects.pods import NON_ROOT, RESTRICTED
from dataset_controller.operator.rbac import claim_rules, lease_rules, operator_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAME = "forebay-controller"
NAMESPACE = "forebay-system"
PORT, WEBHOOK_PORT = 8080, 9443
_RBAC = "rbac.authorization.k8s.io"
_READ, _WRITE = ["get", "list", "watch"], ["create", "delete", "deletecollection", "patch", "update"]
_END_SECONDS = 30
LABELS = {"app.kubernetes.io/name": "forebay", "app.kubernetes.io/component": "controller"}
"""Not those of what the operator makes: it deletes such as nobody declares."""
RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


@dataclass(frozen=True)
class Installation:
    """One operator in a cluster.

    Attributes:
        name: Of its objects.
        namespace: Where it runs.
        image: Of its pods, and of those that it makes.
        served: Namespaces that it looks after; none for all of the cluster. Its rights end there.
        replicas: Of its pods; one of them acts.
        webhook: Whether the API server asks it about our objects, and about pods that name a dataset.
        claims: Whether each dataset has a volume that pods can claim; not if namespaces are named.
    """

    name: str = NAME
    namespace: str = NAMESPACE
    image: str = ""
    served: Sequence[str] = ()
    replicas: int = 1
    webhook: bool = True
    claims: bool = False

    @property
    def webhook_name(self) -> str:
        """Of the Service, the Secret and the configurations of the webhooks."""
        return f"{self.name}-webhook"

    @property
    def pod_image(self) -> str:
        """The image, by default that of this version."""
        return self.image or f"forebay:{version('forebay')}"

    @property
    def account(self) -> dict[str, Any]:
        """Whom rights are given to."""
        return {"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}

    def metadata(self, name: str | None = None, *, namespace: str | None = None) -> dict[str, Any]:
        """Return the metadata of one of its objects; without a namespace, of one of the whole cluster."""
        place = {} if namespace is None else {"namespace": namespace}
        return {"name": name or self.name, **place, "labels": dict(LABELS)}


def installed_objects(installation: Installation) -> list[dict[str, Any]]:
    """Return the objects of an installation, in the order in which they can be made; definitions are not among them."""
    from dataset_controller.operator.deploying.webhooks import webhook_objects

    return [
        namespace_object(installation),
        service_account(installation),
        *rights(installation),
        *(claim_rights(installation) if installation.claims else ()),
        *lease_rights(installation),
        *people_roles(installation),
        deployment(installation),
        metrics_service(installation),
        *(webhook_objects(installation) if installation.webhook else ()),
    ]


def namespace_object(installation: Installation) -> dict[str, Any]:
    """Return the operator's own namespace, in which no pod may have more than the restricted profile allows."""
    metadata = {"name": installation.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def service_account(installation: Installation) -> dict[str, Any]:
    """Return who the operator is."""
    metadata = installation.metadata(namespace=installation.namespace)
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def rights(installation: Installation) -> list[dict[str, Any]]:
    """Return what lets the operator do its work: in all of the cluster, or only in the namespaces that it serves."""
    if not installation.served:
        return role_and_binding(installation, installation.name, operator_rules(), None)
    return [
        each
        for namespace in installation.served
        for each in role_and_binding(installation, installation.name, operator_rules(), namespace)
    ]


def claim_rights(installation: Installation) -> list[dict[str, Any]]:
    """Return what lets the operator make volumes: who may can show any directory of a node to a pod."""
    return role_and_binding(installation, f"{installation.name}-claims", claim_rules(), None)


def lease_rights(installation: Installation) -> list[dict[str, Any]]:
    """Return what lets the operator hold its lease."""
    return role_and_binding(installation, f"{installation.name}-lease", lease_rules(), installation.namespace)


def people_roles(installation: Installation) -> list[dict[str, Any]]:
    """Return what lets those see and change our objects who may see and change those of Kubernetes in a namespace."""
    plurals = sorted(kind.plural for kind in KINDS)
    scaled = sorted(f"{kind.plural}/scale" for kind in KINDS if kind.scales)
    view = [{"apiGroups": [GROUP], "resources": plurals, "verbs": _READ}]
    edit = [
        {"apiGroups": [GROUP], "resources": plurals, "verbs": _WRITE},
        {"apiGroups": [GROUP], "resources": scaled, "verbs": ["get", "patch", "update"]},
    ]
    roles = []
    for suffix, rules, whose in (("view", view, ("view",)), ("edit", edit, ("edit", "admin"))):
        metadata = installation.metadata(f"{installation.name}-{suffix}")
        metadata["labels"] |= {f"{_RBAC}/aggregate-to-{name}": "true" for name in whose}
        roles.append({"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules})
    return roles


def deployment(installation: Installation) -> dict[str, Any]:
    """Return the operator's pods, which the restricted profile of pod security allows."""
    labels = dict(LABELS)
    pod = {
        "serviceAccountName": installation.name,
        "terminationGracePeriodSeconds": _END_SECONDS,
        "securityContext": NON_ROOT,
        "containers": [_container(installation)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": installation.metadata(namespace=installation.namespace),
        "spec": {
            "replicas": installation.replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def metrics_service(installation: Installation) -> dict[str, Any]:
    """Return what Prometheus scrapes."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": installation.metadata(f"{installation.name}-metrics", namespace=installation.namespace),
        "spec": {
            "selector": dict(LABELS),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def manifests_text(documents: Iterable[dict[str, Any]]) -> str:
    """Return documents as a YAML stream."""
    import yaml

    return "".join(
        f"---\n{yaml.dump(each, Dumper=_plain(), sort_keys=False, allow_unicode=True, width=120)}" for each in documents
    )


def all_documents(installation: Installation, *, with_rules: bool = True) -> list[dict[str, Any]]:
    """Return definitions and objects: all that `kubectl apply` needs."""
    return [*definitions(with_rules=with_rules), *installed_objects(installation)]


def _plain() -> Any:
    """Return a dumper that writes a thing twice rather than by reference."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Plain


def role_and_binding(
    installation: Installation, name: str, rules: list[dict[str, Any]], namespace: str | None
) -> list[dict[str, Any]]:
    """Return rights in a namespace, None for all of the cluster, and who has them."""
    kind = "ClusterRole" if namespace is None else "Role"
    head = {"apiVersion": f"{_RBAC}/v1", "metadata": installation.metadata(name, namespace=namespace)}
    role = {"apiGroup": _RBAC, "kind": kind, "name": name}
    return [
        {"apiVersion": head["apiVersion"], "kind": kind, "metadata": head["metadata"], "rules": rules},
        {
            "apiVersion": head["apiVersion"],
            "kind": f"{kind}Binding",
            "metadata": head["metadata"],
            "roleRef": role,
            "subjects": [installation.account],
        },
    ]


def _container(installation: Installation) -> dict[str, Any]:
    served = [word for namespace in installation.served for word in ("--namespace", namespace)]
    words = ["ds", "controller", "--listen", f"$(POD_IP):{PORT}", "--log", "json"]
    image = installation.pod_image
    return {
        "name": "controller",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*words, *served, *(["--claims"] if installation.claims else []), *_webhook(installation)],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "FOREBAY_IMAGE", "value": image},  # of the pods that it makes, too
            {"name": "FOREBAY_HOME", "value": "/tmp/forebay"},
        ],
        "ports": [
            {"name": "http", "containerPort": PORT, "protocol": "TCP"},
            {"name": "webhook", "containerPort": WEBHOOK_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "resources": RESOURCES,
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _webhook(installation: Installation) -> list[str]:
    if not installation.webhook:
        return []
    return ["--webhook-port", str(WEBHOOK_PORT), "--webhook-name", installation.webhook_name]
