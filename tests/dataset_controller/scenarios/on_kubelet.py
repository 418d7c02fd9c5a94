"""The operator and a worker in a pod of a real kubelet: `unshare ... python -m <this> DIRECTORY`; see `real`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.dataset_controller.operator.acting import Admin, eventually, operator
from tests.services.kube import real
from tests.services.kube.cluster import cluster

NODE, NAMESPACE = "real", "ml"
SECONDS = 180


def main(work: Path) -> None:
    """Let a worker be made, answer, be killed, come back with its cache, and be gone."""
    real.prepare()
    with (
        real.containerd(work, subnet="10.155.0.0/24"),
        cluster(work / "kube", nodes=[NODE]) as running,
        running.client() as client,
        real.kubelet(work, running, NODE),
    ):
        admin = Admin(running, client)
        admin.install()
        eventually(lambda: NODE in ready_nodes(admin), SECONDS)
        print("node ready", flush=True)
        with operator(admin, work, "--image", real.IMAGE):
            admin.new_namespace(NAMESPACE)
            tiers = [{"path": str(work / "cache"), "capacity": "64Mi"}]
            spec = {"replicas": 1, "tiers": tiers, "drainTimeout": "5s", "pods": {"imagePullPolicy": "Never"}}
            admin.apply("CacheRuntime", NAMESPACE, "nvme", spec)
            eventually(lambda: ready(admin, 0), SECONDS)
            print("worker ready", flush=True)
            assert (work / "cache").is_dir()
            kill_workers()
            eventually(lambda: ready(admin, 1), SECONDS)
            print("worker back", flush=True)
            admin.delete_all(NAMESPACE, "CacheRuntime")
            eventually(lambda: not admin.left(NAMESPACE), SECONDS)
            print("nothing left", flush=True)


def kill_workers() -> None:
    """Kill what runs in containers of workers; of other namespaces nothing is seen here."""
    for process in Path("/proc").glob("[0-9]*"):
        if b"worker\0--runtime\0" in process.joinpath("cmdline").read_bytes():
            os.kill(int(process.name), signal.SIGKILL)


def ready_nodes(admin: Admin) -> list[str]:
    return [each["metadata"]["name"] for each in listed(admin, "/api/v1/nodes") if is_ready(each)]


def ready(admin: Admin, restarts: int) -> bool:
    """Say whether the worker is ready, in a container that was started so often again."""
    told = [pod["status"] for pod in listed(admin, f"/api/v1/namespaces/{NAMESPACE}/pods") if is_ready(pod)]
    counts = [each["restartCount"] for status in told for each in status["containerStatuses"]]
    is_told = admin.status("CacheRuntime", NAMESPACE, "nvme").get("readyReplicas") == 1
    return counts == [restarts] and is_told


def listed(admin: Admin, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = admin.api.ask("GET", path)["items"]
    return items


def is_ready(found: dict[str, Any]) -> bool:
    told = found["status"].get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
