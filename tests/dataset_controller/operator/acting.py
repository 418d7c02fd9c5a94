"""Runs `ds controller` beside a real API server, and does what people do with kubectl."""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_controller.crds import GROUP, definitions, plural_of
from dataset_controller.operator.api import ClusterApi, path_of
from dataset_controller.operator.planning.actions import Ref
from dataset_controller.operator.rbac import claim_rules, lease_rules, operator_rules
from tests.services.processes import free_port, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.kube.cluster import Cluster
    from tests.services.processes import Process

API = f"{GROUP}/v1alpha1"
SECONDS = 60
_DS = str(Path(sys.executable).with_name("ds"))
_ACCOUNT, _HOME = "forebay-controller", "forebay-system"
_RIGHTS = "/apis/rbac.authorization.k8s.io/v1"
_LEFT = (
    "/api/v1/namespaces/{}/configmaps", "/api/v1/namespaces/{}/services", "/api/v1/namespaces/{}/secrets",
    "/api/v1/namespaces/{}/serviceaccounts", "/api/v1/namespaces/{}/pods", "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/apps/v1/namespaces/{}/statefulsets", "/apis/batch/v1/namespaces/{}/jobs",
    "/apis/policy/v1beta1/namespaces/{}/poddisruptionbudgets",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
)  # fmt: skip


def eventually(holds: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


class Admin:
    """What its administrator does with a cluster.

    Args:
        running: The cluster.
        client: Of the official package.
    """

    def __init__(self, running: Cluster, client: Any) -> None:
        self.cluster = running
        self.api = ClusterApi(client, manager="kubectl")

    def install(self) -> None:
        """Apply the definitions and the operator's account and rights, as the manifests do."""
        for document in definitions(with_rules=False):
            self.api.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)
        self.new_namespace(_HOME)
        self.api.ask("POST", f"/api/v1/namespaces/{_HOME}/serviceaccounts", {"metadata": {"name": _ACCOUNT}})
        subject = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": _HOME}
        for path, kind, name, rules in (
            (_RIGHTS, "ClusterRole", _ACCOUNT, operator_rules()),
            (_RIGHTS, "ClusterRole", f"{_ACCOUNT}-claims", claim_rules()),
            (f"{_RIGHTS}/namespaces/{_HOME}", "Role", _ACCOUNT, lease_rules()),
        ):
            plural = f"{kind.lower()}s"
            self.api.ask("POST", f"{path}/{plural}", {"metadata": {"name": name}, "rules": rules})
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
            binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
            self.api.ask("POST", f"{path}/{plural[:-1]}bindings", binding)
        eventually(self._is_served)

    def new_namespace(self, name: str) -> str:
        """Make a namespace."""
        self.api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def token(self) -> str:
        """Return a token of the operator's account."""
        path = f"/api/v1/namespaces/{_HOME}/serviceaccounts/{_ACCOUNT}/token"
        return str(self.api.ask("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])

    def apply(self, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> None:
        """Apply an object."""
        metadata = {"name": name, "namespace": namespace}
        self.api.apply({"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec})

    def get(self, kind: str, namespace: str, name: str, api_version: str = API) -> dict[str, Any]:
        """Return an object, an empty one if there is none."""
        return self.api.get(Ref(api_version, kind, namespace, name)) or {}

    def status(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """Return an object's status."""
        found: dict[str, Any] = self.get(kind, namespace, name).get("status") or {}
        return found

    def condition(self, kind: str, namespace: str, name: str, which: str) -> dict[str, Any]:
        """Return a condition of an object, an empty one if it is not told."""
        found = self.status(kind, namespace, name).get("conditions") or []
        return next((each for each in found if each["type"] == which), {})

    def edit(self, namespace: str, name: str, spec: dict[str, Any]) -> None:
        """Edit a cache, as `kubectl apply` and `kubectl patch` do: by what differs."""
        self.api.ask("PATCH", path_of(Ref(API, "CacheRuntime", namespace, name)), {"spec": spec}, merges=True)

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Scale a cache, as `kubectl scale` does."""
        path = f"{path_of(Ref(API, 'CacheRuntime', namespace, name))}/scale"
        self.api.ask("PATCH", path, {"spec": {"replicas": replicas}}, merges=True)

    def delete_all(self, namespace: str, *kinds: str) -> None:
        """Delete all objects of some kinds."""
        for kind in kinds:
            self.api.ask("DELETE", f"/apis/{API}/namespaces/{namespace}/{plural_of(kind)}")

    def left(self, namespace: str) -> list[str]:
        """Name what is in a namespace, but for what every one has."""
        found = []
        for path in _LEFT:
            for each in self.api.ask("GET", path.format(namespace))["items"]:
                name = each["metadata"]["name"]
                if name != "kube-root-ca.crt" and not name.startswith("default"):
                    found.append(f"{path.rpartition('/')[2]}/{name}")
        return found

    def pods(self, namespace: str) -> dict[str, str]:
        """Return the nodes of the pods that are ready, by name."""
        found = {}
        for each in self.api.ask("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]:
            conditions = {c["type"]: c["status"] for c in each["status"].get("conditions") or []}
            if conditions.get("Ready") == "True" and not each["metadata"].get("deletionTimestamp"):
                found[each["metadata"]["name"]] = each["spec"]["nodeName"]
        return found

    def events(self, namespace: str, name: str) -> dict[str, int]:
        """Return the reasons of an object's events, and how often each was told."""
        items = self.api.ask("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
        return {each["reason"]: each["count"] for each in items if each["involvedObject"]["name"] == name}

    def forget_lease(self) -> None:
        """Let the next operator begin at once, although the last one was killed."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{_HOME}/leases"
        for each in self.api.ask("GET", path)["items"]:
            self.api.ask("DELETE", f"{path}/{each['metadata']['name']}")

    def table(self, namespace: str, kind: str) -> dict[str, list[Any]]:
        """Return the columns of `kubectl get`, by the name of the object."""
        request = urllib.request.Request(
            f"{self.cluster.url}/apis/{API}/namespaces/{namespace}/{plural_of(kind)}",
            headers={
                "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
                "Authorization": f"Bearer {self.cluster.tokens['admin']}",
            },
        )
        context = ssl.create_default_context(cafile=str(self.cluster.ca_file))
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            table = json.load(answer)
        return {row["cells"][0]: row["cells"] for row in table["rows"]}

    def _is_served(self) -> bool:
        resources = self.api.ask("GET", f"/apis/{API}")["resources"]
        return {"datasets", "cacheruntimes", "dataloads", "datamigrates"} <= {each["name"] for each in resources}


@contextmanager
def operator(
    admin: Admin, directory: Path, *arguments: str, ready: str = " leads name="
) -> Iterator[tuple[Process, str]]:
    """Run `ds controller` with the rights of its manifests, until its log says `ready`; with its URL."""
    port = free_port()
    kubeconfig = admin.cluster.kubeconfig(_ACCOUNT, token=admin.token())
    command = [_DS, "controller", "--listen", f"127.0.0.1:{port}", "--lease-namespace", _HOME, *arguments]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    with started(
        command, log=directory / f"operator-{port}.log", ready=lambda process: process.says(ready),
        env=environment, grace_seconds=30,
    ) as process:  # fmt: skip
        yield process, f"http://127.0.0.1:{port}"


def metrics(url: str) -> dict[str, float]:
    """Return what an operator counts."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in found}


def requests(url: str) -> float:
    """Return how many requests an operator made."""
    return sum(
        count for name, count in metrics(url).items() if name.startswith("forebay_controller_api_requests_total")
    )


def resident_mib(pid: int) -> float:
    """Return the memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
