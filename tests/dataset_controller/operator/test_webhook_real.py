"""The webhooks as the manifests set them up, in front of a real API server."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("kubernetes")

from kubernetes.client import ApiException

from dataset_controller.operator.api import ClusterApi
from dataset_controller.operator.deploying import Installation
from dataset_controller.operator.deploying.webhooks import webhook_objects
from dataset_controller.operator.webhook.certificates import LIFETIME
from dataset_controller.operator.webhook.keeping import CertificateKeeper
from dataset_controller.operator.webhook.serving import admitting, server_context
from tests.dataset_controller.operator.acting import API, Admin, eventually, operator
from tests.services.kube import missing
from tests.services.kube.cluster import cluster
from tests.services.processes import free_port
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kube
HERE = Installation()
TWICE = [{"name": name, "uri": "s3://bucket/raw", "path": "a"} for name in ("one", "two")]


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    require(missing())
    with cluster(tmp_path / "kube") as running, running.client() as client:
        found = Admin(running, client)
        found.install()
        yield found


def install(admin: Admin, port: int) -> None:
    """Apply the objects of the manifests; their Service leads to this machine, where no proxy of a cluster is."""
    for document in webhook_objects(HERE):
        if document["kind"] == "Service":
            document["spec"] = {"type": "ExternalName", "externalName": "localhost"}
        for webhook in document.get("webhooks", ()):
            webhook["clientConfig"]["service"]["port"] = port
        admin.api.ask("POST", collection_of(document), document)


def collection_of(document: dict[str, Any]) -> str:
    version, namespace = document["apiVersion"], document["metadata"].get("namespace")
    base = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    return f"{base}{f'/namespaces/{namespace}' if namespace else ''}/{document['kind'].lower()}s"


def bundles(admin: Admin) -> set[bytes]:
    found = []
    for kind in ("validating", "mutating"):
        path = f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/{HERE.webhook_name}"
        webhooks = admin.api.ask("GET", path)["webhooks"]
        found += [base64.b64decode(each["clientConfig"].get("caBundle", "")) for each in webhooks]
    return set(found)


def refusal(admin: Admin, namespace: str, name: str) -> str:
    """Make a Dataset that is wrong, and return why it was refused; "" if it was stored."""
    metadata = {"name": name, "namespace": namespace}
    spec = {"repo": {"uri": "s3://bucket/r"}, "mounts": TWICE}
    body = {"apiVersion": API, "kind": "Dataset", "metadata": metadata, "spec": spec}
    try:
        admin.api.ask("POST", f"/apis/{API}/namespaces/{namespace}/datasets", body)
    except ApiException as error:
        return str(error.body)
    return ""


def test_the_operator_makes_the_certificate_and_is_asked(admin: Admin, tmp_path: Path) -> None:
    namespace, port, numbers = admin.new_namespace("hooks"), free_port(), iter(range(1000))
    install(admin, port)
    with operator(admin, tmp_path, "--webhook-port", str(port)):
        (first,) = eventually(lambda: next(iter(bundles(admin))) and bundles(admin))
        # a server takes some time to see a new configuration
        told = eventually(lambda: refusal(admin, namespace, f"wrong-{next(numbers)}"))
        assert "validate.forebay.dev" in told
        assert "mounts 'one' and 'two' overlap" in told
        admin.apply("Dataset", namespace, "scenes", {"repo": {"uri": "s3://bucket/r"}})
        volumes = eventually(lambda: volumes_of(admin, namespace, f"train-{next(numbers)}"))
        assert [each["csi"]["driver"] for each in volumes] == ["forebay.dev"]
        assert volumes[0]["csi"]["volumeAttributes"] == {"dataset": "scenes"}

        with admin.cluster.client("forebay-controller", token=admin.token()) as client:
            replace_later(ClusterApi(client))
        (both,) = bundles(admin)
        assert both.endswith(first)
        assert both != first
        for _ in range(20):  # the operator still serves the first one, or has seen the second: it is trusted
            assert refusal(admin, namespace, f"wrong-{next(numbers)}")


def volumes_of(admin: Admin, namespace: str, name: str) -> list[dict[str, Any]]:
    """Make a pod that asks for its dataset as a volume, and return the volumes that it got."""
    labels = {"forebay.dev/dataset": "scenes", "forebay.dev/inject": "true"}
    spec = {"containers": [{"name": "train", "image": "train"}], "automountServiceAccountToken": False}
    pod: dict[str, Any] = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    try:
        found = admin.api.ask("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    except ApiException as error:
        if error.status != 403:
            raise
        return []  # of a new namespace the server does not know the account of its pods yet
    return list(found["spec"].get("volumes") or ())


def test_a_new_certificate_is_served_without_a_restart(admin: Admin) -> None:
    install(admin, free_port())
    context, now = server_context(), datetime.now(UTC)
    with (
        admin.cluster.client("forebay-controller", token=admin.token()) as client,
        admitting("127.0.0.1", 0, context, {}) as (host, port),
    ):
        served = []
        for later in (timedelta(0), timedelta(days=30), LIFETIME - timedelta(days=2)):
            keeper_at(now + later, ClusterApi(client), context).look()
            served.append(ssl.get_server_certificate((host, port)).encode())
            assert bundles(admin).pop().startswith(served[-1].strip())
    assert served[0] == served[1] != served[2]


def replace_later(api: ClusterApi) -> None:
    """Be another replica, in the last third of the certificate's life, and with the same rights."""
    keeper_at(datetime.now(UTC) + LIFETIME - timedelta(days=2), api, server_context()).look()


def keeper_at(moment: datetime, api: ClusterApi, context: ssl.SSLContext) -> CertificateKeeper:
    return CertificateKeeper(api, HERE.namespace, HERE.webhook_name, context, lambda: moment)


def test_its_rights_end_at_its_own_objects(admin: Admin, tmp_path: Path) -> None:
    install(admin, free_port())
    other: dict[str, Any] = {"metadata": {"name": "other"}}
    admin.api.ask("POST", f"/api/v1/namespaces/{HERE.namespace}/secrets", other)
    with admin.cluster.client("forebay-controller", token=admin.token()) as client:
        api = ClusterApi(client)
        assert api.ask("GET", f"/api/v1/namespaces/{HERE.namespace}/secrets/{HERE.webhook_name}")["type"] == "Opaque"
        for path in (f"/api/v1/namespaces/{HERE.namespace}/secrets/other", "/api/v1/secrets"):
            with pytest.raises(ApiException) as refused:
                api.ask("GET", path)
            assert refused.value.status == 403
