"""The webhook for pods behind a real API server: it stores what the patch says, and starts pods without us too."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from dataset_controller.operator.api import ClusterApi
from tests.dataset_controller.operator.acting import API, Admin, eventually, operator
from tests.services.kube import missing
from tests.services.kube.cluster import cluster
from tests.services.processes import free_port
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("kubernetes")
pytestmark = pytest.mark.kube
_CACHE: dict[str, Any] = {
    "replicas": 1,
    "tiers": [{"path": "/var/cache/forebay", "capacity": "64Mi"}],
    "pods": {"nodeSelector": {"no": "where"}},
}
_STATUS = {
    "sizeBytes": 1000, "cachedPercent": 10,
    "cachedOn": [{"node": "n1", "bytes": 700}, {"node": "n2", "bytes": 20}],
}  # fmt: skip


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    require(missing())
    with cluster(tmp_path / "kube") as running, running.client() as client:
        found = Admin(running, client)
        found.install()
        yield found


def _certificate(directory: Path) -> bytes:
    names = ("-subj", "/CN=webhook", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "tls.key", "-out", "tls.crt")
    subprocess.run(
        ["openssl", "req", "-x509", *key, *names], cwd=directory, check=True, capture_output=True, timeout=60
    )
    return (directory / "tls.crt").read_bytes()


def _configuration(url: str, authority: bytes) -> dict[str, Any]:
    """Return the configuration of the guide, for an operator outside of the cluster."""
    return {
        "metadata": {"name": "forebay-pods"},
        "webhooks": [
            {
                "name": "pods.forebay.dev",
                "clientConfig": {"url": url, "caBundle": base64.b64encode(authority).decode()},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "objectSelector": {"matchExpressions": [{"key": "forebay.dev/dataset", "operator": "Exists"}]},
                "failurePolicy": "Ignore",
                "timeoutSeconds": 5,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }


def _made(admin: Admin, namespace: str, name: str, dataset: str, at: str) -> dict[str, Any]:
    """Make a pod, and return its affinity."""
    metadata = {"name": name, "labels": {"forebay.dev/dataset": dataset}, "annotations": {"forebay.dev/start-at": at}}
    spec = {"containers": [{"name": "train", "image": "train"}], "automountServiceAccountToken": False}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    found = admin.api.ask("POST", f"/api/v1/namespaces/{namespace}/pods", body)
    return dict(found["spec"].get("affinity") or {})


def test_pods_prefer_the_nodes_that_have_most_and_are_made_whatever_happens(admin: Admin, tmp_path: Path) -> None:
    ns, port = admin.new_namespace("pods"), free_port()
    admin.apply("CacheRuntime", ns, "nvme", _CACHE)
    admin.apply("Dataset", ns, "scenes", {"repo": {"uri": "s3://bucket/r"}, "cache": {"runtimeRef": {"name": "nvme"}}})
    path = f"/apis/{API}/namespaces/{ns}/datasets/scenes/status"
    assert admin.api.ask("PATCH", path, {"status": _STATUS}, merges=True)["status"]["cachedOn"] == _STATUS["cachedOn"]
    eventually(lambda: admin.api.ask("GET", f"/api/v1/namespaces/{ns}/serviceaccounts")["items"])
    configurations = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    configuration = _configuration(f"https://127.0.0.1:{port}/mutate", _certificate(tmp_path))
    admin.api.ask("POST", configurations, configuration)
    arguments = ("--webhook-port", str(port), "--webhook-certificates", str(tmp_path))
    with operator(admin, tmp_path, *arguments):
        numbers = iter(range(1000))
        preferred = "preferredDuringSchedulingIgnoredDuringExecution"
        # a server takes some time to see a new configuration
        affinity = eventually(lambda: _made(admin, ns, f"train-{next(numbers)}", "scenes", "80%"))
        terms = affinity["nodeAffinity"][preferred]
        assert [term["weight"] for term in terms] == [70, 2]
        assert [term["preference"]["matchExpressions"][0]["values"] for term in terms] == [["n1"], ["n2"]]
        assert _made(admin, ns, "broken", "scenes", "most") == {}
        assert _made(admin, ns, "unknown", "nothing", "80%") == {}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        with admin.cluster.client("forebay-controller", token=admin.token()) as client:
            asked = {"resource": "pods", "namespace": ns}
            for verb, is_allowed in (("patch", True), ("delete", False), ("create", False)):
                body: dict[str, Any] = {"spec": {"resourceAttributes": {**asked, "verb": verb}}}
                body.update(apiVersion="authorization.k8s.io/v1", kind="SelfSubjectAccessReview")
                answer = ClusterApi(client).ask("POST", path, body)
                assert answer["status"]["allowed"] is is_allowed, verb
    assert _made(admin, ns, "alone", "scenes", "80%") == {}  # nobody answers the webhook
