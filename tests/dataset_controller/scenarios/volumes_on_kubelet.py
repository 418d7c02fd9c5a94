"""Datasets as volumes of pods of a real kubelet: `unshare ... python -m <this> DIRECTORY`; see `real`."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi

from cache_runtime.mount.mountinfo import mounts
from dataset_controller.operator.deploying import NodeDriver, node_driver_objects
from tests.dataset_controller.operator.acting import Admin, eventually, operator
from tests.dataset_controller.scenarios.on_kubelet import NAMESPACE, NODE, SECONDS, is_ready, ready_nodes
from tests.services import weed
from tests.services.kube import real
from tests.services.kube.cluster import cluster

if TYPE_CHECKING:
    from tests.services.weed import S3Server

BUCKET = "volumes"
_COLLECTIONS = {
    "Namespace": "/api/v1/namespaces",
    "CSIDriver": "/apis/storage.k8s.io/v1/csidrivers",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
}
_SUMS = "cd /data && find . -type f | sort | xargs sha256sum > /dev/termination-log; touch /data/new && exit 3; exit 0"


def main(work: Path) -> None:
    """Let pods read a dataset by an inline volume and by a claim, and leave nothing."""
    real.prepare()
    subprocess.run(["mount", "--make-rshared", "/var/lib/kubelet"], check=True, timeout=20)  # as systemd has it
    with (
        weed.s3_server(work / "s3", buckets=(BUCKET,)) as server,
        real.containerd(work, subnet="10.156.0.0/24"),
        cluster(work / "kube", nodes=[NODE]) as running,
        running.client() as client,
        real.kubelet(work, running, NODE),
    ):
        admin = Admin(running, client)
        admin.install()
        sums = make_dataset(work, server)
        eventually(lambda: NODE in ready_nodes(admin), SECONDS)
        install_driver(admin, work)
        eventually(lambda: has_driver(admin), SECONDS)
        print("driver registered", flush=True)
        declare(admin, work, server)
        assert read_by(admin, "inline", inline()) == sums
        print("inline volume read", flush=True)
        with operator(admin, work, "--claims"):
            eventually(
                lambda: admin.condition("Dataset", NAMESPACE, "scenes", "ClaimReady").get("status") == "True", SECONDS
            )
            assert read_by(admin, "claimed", {"persistentVolumeClaim": {"claimName": "scenes"}}) == sums
        print("claim read", flush=True)
        new_pod(admin, "stays", inline(), "sleep 3600")
        eventually(lambda: is_ready(pod(admin, "stays")), SECONDS)
        (mounted,) = eventually(seen, SECONDS)
        assert (Path(mounted) / "a.bin").read_bytes() == (work / "raw/a.bin").read_bytes()
        replace_driver(admin)
        assert read_by(admin, "again", inline()) == sums  # beside the mount that its driver took with it
        print("read after another driver came", flush=True)
        for name in ("stays", "inline", "claimed", "again"):
            admin.api.ask("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
        eventually(lambda: not seen() and not Path(mounted).exists(), SECONDS)
        print("nothing mounted", flush=True)


def make_dataset(work: Path, server: S3Server) -> str:
    """Commit some files, and return their sums as `sha256sum` prints them."""
    draw = random.Random(3)
    files = {"a.bin": draw.randbytes(3_000_000), "b/c.bin": draw.randbytes(70_000), "b/empty": b""}
    for name, content in files.items():
        path = work / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (work / "dataset.yaml").write_text(
        f"""
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: scenes}}
spec:
  repo: {{uri: "s3://{BUCKET}/repo", options: {{endpoint_url: "{server.endpoint}"}}}}
"""
    )
    environment = {**os.environ, **server.environment, "FOREBAY_HOME": str(work / "home")}
    ds = str(Path(sys.executable).with_name("ds"))
    for words in (["apply", "-f", str(work / "dataset.yaml")], ["add", str(work / "raw")], ["commit", "-m", "files"]):
        subprocess.run([ds, *words], check=True, env=environment, timeout=100, stdout=subprocess.DEVNULL)
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  ./{name}\n" for name in sorted(files))


def install_driver(admin: Admin, work: Path) -> None:
    """Apply what `ds k8s manifests --csi` prints; no service has an address here, so its pods are told the server's."""
    (work / "cache").mkdir()
    for document in node_driver_objects(NodeDriver(image=real.IMAGE, cache=str(work / "cache"))):
        if document["kind"] == "DaemonSet":
            spec = document["spec"]["template"]["spec"]
            spec["hostNetwork"] = True
            host, port = admin.cluster.url.removeprefix("https://").split(":")
            places = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
            places["SSL_CERT_FILE"] = certifi.where()  # the image of the tests has no certificates
            spec["containers"][0]["env"] += [{"name": name, "value": value} for name, value in places.items()]
        collection = _COLLECTIONS[document["kind"]].format(document["metadata"].get("namespace"))
        admin.api.ask("POST", collection, document)


def replace_driver(admin: Admin) -> None:
    """Delete the driver's pod, and wait for the next one."""
    path = "/api/v1/namespaces/forebay-csi/pods"
    (before,) = admin.api.ask("GET", path)["items"]
    admin.api.ask("DELETE", f"{path}/{before['metadata']['name']}")
    uid = before["metadata"]["uid"]

    def is_replaced() -> bool:
        found = admin.api.ask("GET", path)["items"]
        return [is_ready(each) and each["metadata"]["uid"] != uid for each in found] == [True]

    eventually(is_replaced, SECONDS)


def has_driver(admin: Admin) -> bool:
    nodes = admin.api.ask("GET", "/apis/storage.k8s.io/v1/csinodes")["items"]
    return [driver["name"] for node in nodes for driver in node["spec"].get("drivers") or []] == ["forebay.dev"]


def declare(admin: Admin, work: Path, server: S3Server) -> None:
    admin.new_namespace(NAMESPACE)
    keys = {"key": server.key, "secret": server.secret}
    data = {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()}
    admin.api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "s3"}, "data": data})
    tiers = [{"path": str(work / "cache/tier"), "capacity": "64Mi"}]
    admin.apply("CacheRuntime", NAMESPACE, "nvme", {"replicas": 0, "tiers": tiers})
    options = {"endpoint_url": server.endpoint}
    repo = {"uri": f"s3://{BUCKET}/repo", "options": options, "secretRef": {"name": "s3"}}
    admin.apply("Dataset", NAMESPACE, "scenes", {"repo": repo, "cache": {"runtimeRef": {"name": "nvme"}}})
    eventually(
        lambda: admin.get("ServiceAccount", NAMESPACE, "default", "v1").get("secrets"), SECONDS
    )  # or no pod may be


def inline() -> dict[str, Any]:
    secret = {"name": "s3"}
    return {"csi": {"driver": "forebay.dev", "volumeAttributes": {"dataset": "scenes"}, "nodePublishSecretRef": secret}}


def new_pod(admin: Admin, name: str, volume: dict[str, Any], shell: str) -> None:
    container = {
        "name": "reads",
        "image": real.IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", shell],
        "securityContext": {"runAsUser": 1000},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "data", **volume}],
    }
    admin.api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", {"metadata": {"name": name}, "spec": spec})


def pod(admin: Admin, name: str) -> dict[str, Any]:
    return admin.api.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")


def read_by(admin: Admin, name: str, volume: dict[str, Any]) -> str:
    """Run a pod that sums all files of a volume up and cannot write, and return what it found."""
    new_pod(admin, name, volume, _SUMS)
    eventually(lambda: pod(admin, name)["status"]["phase"] in ("Succeeded", "Failed"), SECONDS)
    (status,) = pod(admin, name)["status"]["containerStatuses"]
    ended = status["state"]["terminated"]
    assert ended["exitCode"] == 0, ended
    return str(ended["message"])


def seen() -> list[str]:
    """Return our mounts in directories of pods."""
    return [each.path for each in mounts() if each.kind == "fuse.forebay" and "/pods/" in each.path]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
