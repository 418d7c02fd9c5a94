"""What people have before they begin: a cluster with the operator, a bucket, kubectl."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dataset_controller.operator.deploying import Installation, all_documents, manifests_text
from tests.services.kube.cluster import cluster
from tests.services.kube.kubelet import node
from tests.services.weed import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.services.kube.cluster import Cluster

EXAMPLES = Path(__file__).parents[3] / "examples" / "kubernetes"
NAMESPACE = "ml"
SECONDS = 90
_KUBECTL_SECONDS = 60
_MADE = (
    "pods,statefulsets,deployments,replicasets,jobs,services,endpoints,configmaps,secrets,serviceaccounts,"
    "roles,rolebindings,poddisruptionbudgets,persistentvolumeclaims"
)


def eventually(holds: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.2)
    return found


@dataclass(frozen=True)
class People:
    """A platform engineer with the administrator's rights, and a user of the namespace `ml`.

    Attributes:
        s3: The bucket `raw` with their data, and `versions`.
        running: The cluster.
        kubeconfig: Of the administrator.
    """

    s3: S3Server
    running: Cluster
    kubeconfig: Path

    @property
    def directory(self) -> Path:
        """Of the cluster: its logs, and the disks of its nodes."""
        return self.running.directory

    def kubectl(
        self, *arguments: str, given: str | None = None, namespace: str = NAMESPACE, may_fail: bool = False
    ) -> str:
        """Run kubectl and return what it prints."""
        done = subprocess.run(
            ["kubectl", "--namespace", namespace, *arguments],
            input=given,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=_KUBECTL_SECONDS,
            check=False,
        )
        assert may_fail or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def may(self, verb: str, what: str, *, who: str) -> bool:
        """Say whether somebody else may do something in the namespace."""
        resource, _, part = what.partition("/")
        asked = ["auth", "can-i", verb, resource, "--as", who, *([f"--subresource={part}"] if part else [])]
        answer = self.kubectl(*asked, may_fail=True).strip()
        assert answer in ("yes", "no"), answer
        return answer == "yes"

    def apply(self, file: str) -> None:
        """Apply a file of examples/kubernetes, with this bucket's address and keys, and disks as small as a test's."""
        text = (EXAMPLES / file).read_text()
        for example, own in (
            ("https://s3.example.org", self.s3.endpoint),
            ("ACCESS-KEY", self.s3.key),
            ("SECRET-KEY", self.s3.secret),
            ("200Gi", "256Mi"),
            ("10Gi", "1Mi"),
            ("interval: 10s", "interval: 2s"),
        ):
            text = text.replace(example, own)
        self.kubectl("apply", "-f", "-", given=text)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """Return the status of an object."""
        found: dict[str, Any] = self.get(kind, name).get("status") or {}
        return found

    def condition(self, kind: str, name: str, which: str) -> str:
        """Return how a condition of an object stands: "True", "False", or "" if it is not told."""
        found = self.status(kind, name).get("conditions") or []
        return next((str(each["status"]) for each in found if each["type"] == which), "")

    def pods(self, labels: str, *, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        """Return the pods with these labels."""
        text = self.kubectl("get", "pods", "-l", labels, "-o", "json", namespace=namespace)
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def process_of(self, pod: dict[str, Any]) -> int | None:
        """Return the process of the first container of a pod, None while none runs."""
        name = pod["spec"]["containers"][0]["name"]
        for file in self.directory.glob(f"nodes/*/pods/{pod['metadata']['uid']}/{name}.pid"):
            pid = int(file.read_text() or 0)
            with suppress(OSError):
                if b"\0worker\0" in (words := _words(pid)) or b"\0controller\0" in words or b"\0agent\0" in words:
                    return pid
        return None

    def row(self, kind: str, name: str) -> dict[str, str]:
        """Return what `kubectl get` shows of an object, by the heads of its columns."""
        head, line = self.kubectl("get", kind, name).splitlines()
        starts = [head.index(word) for word in head.split()]
        ends = [*starts[1:], None]
        return {head[start:end].strip(): line[start:end].strip() for start, end in zip(starts, ends, strict=True)}

    def left(self) -> list[str]:
        """Return what there is in the namespace that a fresh one does not have."""
        listed = self.kubectl("get", _MADE, "-o", "name").split()
        own = ("configmap/kube-root-ca.crt", "serviceaccount/default")
        return [name for name in listed if name not in own and not name.startswith("secret/default-token-")]

    def said(self, *, most: int | None = None) -> dict[str, str]:
        """Return what each container that there was said, by its log, oldest last word first.

        Args:
            most: Only so many characters from the end of each.
        """
        logs = sorted(self.directory.glob("nodes/*/pods/*/logs/*.log"), key=lambda each: each.stat().st_mtime)
        return {
            str(log.relative_to(self.directory)): log.read_text(errors="replace")[-most if most else None :]
            for log in logs
        }


@contextmanager
def people(directory: Path, *, nodes: Sequence[str], subnets: Sequence[str]) -> Iterator[People]:
    """Run a cluster with the operator in it, as its manifests make it."""
    with ExitStack() as stack:
        s3 = stack.enter_context(s3_server(directory / "s3", buckets=("raw", "versions")))
        running = stack.enter_context(cluster(directory / "kube", nodes=list(nodes)))
        for name, subnet in zip(nodes, subnets, strict=True):
            stack.enter_context(node(running, name, subnet=subnet))
        us = People(s3, running, running.kubeconfig())
        us.kubectl("create", "namespace", NAMESPACE)
        install(us)
        yield us


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def install(us: People) -> None:
    """Do what the guide says: `ds k8s manifests --no-webhook | kubectl apply -f -`; no proxy serves Services here."""
    documents = all_documents(Installation(webhook=False), with_rules=False)
    crds = [each for each in documents if each["kind"] == "CustomResourceDefinition"]
    us.kubectl("apply", "-f", "-", given=manifests_text(documents), namespace=Installation.namespace)
    names = [f"crd/{each['metadata']['name']}" for each in crds]
    us.kubectl("wait", "--for=condition=Established", *names, "--timeout=30s")


def documents_of(file: str) -> list[dict[str, Any]]:
    """Return the documents of a file of examples/kubernetes."""
    return list(yaml.safe_load_all((EXAMPLES / file).read_text()))
