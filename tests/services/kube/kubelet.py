"""A small kubelet: a node whose pods are processes of this machine. `python -m tests.services.kube.kubelet --help`.

It knows what pods of ours need (see `pods` and `volumes`), asks the API server with a node's rights, and gives each pod
an address of its own on the loopback device and a file of names that follows the cluster's endpoints. No cluster has a
name server here.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.services.kube.cluster import NAMES_USER
from tests.services.kube.pods import Place, Pod, timestamp
from tests.services.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.kube.cluster import Cluster
    from tests.services.processes import Process

_BEAT_SECONDS = 5.0
_REFRESH_SECONDS = 1.0
_WATCH_SECONDS = 60
_GRACE_SECONDS = 20
_RESOURCES = {"cpu": "16", "memory": "16Gi", "pods": "110", "ephemeral-storage": "20Gi"}
_NODE_INFO = (
    "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion",
    "kubeProxyVersion", "operatingSystem", "architecture",
)  # fmt: skip


@contextmanager
def node(running: Cluster, name: str, *, subnet: str, labels: dict[str, str] | None = None) -> Iterator[Process]:
    """Run a node of a cluster; its pods die with it, and its disk stays in `<cluster's directory>/nodes/<name>`.

    Args:
        running: It must have been started with this node's name.
        name: The node's.
        subnet: Of its pods: "10.131.7.0/24".
        labels: Of the node.
    """
    directory = running.directory / "nodes" / name
    directory.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "tests.services.kube.kubelet", "--node", name, "--directory", str(directory),
        "--kubeconfig", str(running.kubeconfig(f"system:node:{name}")), "--subnet", subnet,
        "--names-kubeconfig", str(running.kubeconfig(NAMES_USER)),
        *(f"--label={key}={value}" for key, value in (labels or {}).items()),
    ]  # fmt: skip
    log = running.directory / f"kubelet-{name}.log"
    try:
        with started(
            command, log=log, ready=lambda process: process.says("ready"), grace_seconds=_GRACE_SECONDS
        ) as process:
            yield process
    finally:
        _give_back(subnet)


class Kubelet:
    """One node.

    Args:
        api: As the user `system:node:<name>`.
        names: As the user `system:kube-proxy`.
        name: The node's.
        directory: For its disk, its pods and their logs.
        subnet: Of its pods' addresses.
        labels: Of the node.
    """

    def __init__(self, api: Any, names: Any, name: str, directory: Path, subnet: str, labels: dict[str, str]) -> None:
        from kubernetes.client import CoordinationV1Api, CoreV1Api

        self._api = api
        self._core: Any = CoreV1Api(api)
        self._endpoints: Any = CoreV1Api(names)
        self._leases: Any = CoordinationV1Api(api)
        self._name = name
        self._directory = directory
        self._labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **labels}
        self._addresses = map(str, ipaddress.ip_network(subnet).hosts())
        self._pods: dict[str, Pod] = {}
        self._stopping = threading.Event()
        self._names = ""
        server = urlsplit(api.configuration.host)
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KUBERNETES_SERVICE_HOST": str(server.hostname),
            "KUBERNETES_SERVICE_PORT": str(server.port),
        }

    def run(self) -> None:
        """Run until SIGTERM."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        (self._directory / "hosts").touch()
        self._register()
        for repeat, seconds in ((self._beat, _BEAT_SECONDS), (self._refresh, _REFRESH_SECONDS)):
            threading.Thread(target=self._repeat, args=(repeat, seconds), daemon=True).start()
        threading.Thread(target=self._follow, daemon=True).start()
        print("ready", flush=True)
        self._stopping.wait()
        for pod in self._pods.values():
            pod.delete(1.0)
        for pod in list(self._pods.values()):
            pod.join(10.0)

    def _repeat(self, act: Any, seconds: float) -> None:
        while not self._stopping.wait(seconds):
            self._tried(act)

    def _tried(self, act: Any) -> None:
        """Do something that needs the API server; where it is away, the next round does it."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            act()
        except (ApiException, HTTPError, OSError) as error:
            print(f"{act.__name__}: {error}", flush=True)

    def _register(self) -> None:
        from kubernetes.client import ApiException

        try:
            self._core.create_node({"metadata": {"name": self._name, "labels": self._labels}})
        except ApiException as error:
            if error.status != 409:  # it was there before
                raise
        self._beat()

    def _beat(self) -> None:
        from kubernetes.client import ApiException

        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": timestamp()}
        status = {
            "capacity": _RESOURCES,
            "allocatable": _RESOURCES,
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": self._name},
            ],
            "nodeInfo": dict.fromkeys(_NODE_INFO, "tests"),
            "conditions": [ready],
        }
        self._core.patch_node_status(self._name, {"status": status})
        renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": 40, "renewTime": renewed}
        lease = {"metadata": {"name": self._name}, "spec": spec}
        try:
            self._leases.patch_namespaced_lease(self._name, "kube-node-lease", {"spec": spec})
        except ApiException as error:
            if error.status != 404:
                raise
            self._leases.create_namespaced_lease("kube-node-lease", lease)

    def _refresh(self) -> None:
        """Write names, config maps and secrets anew."""
        self._write_names()
        for pod in list(self._pods.values()):
            pod.refresh()

    def _write_names(self) -> None:
        lines = ["127.0.0.1 localhost"]
        for each in self._endpoints.list_endpoints_for_all_namespaces().items:
            service = f"{each.metadata.name}.{each.metadata.namespace}"
            for subset in each.subsets or []:
                for address in subset.addresses or []:
                    names = [f"{address.hostname}.{service}"] if address.hostname else []
                    names.append(service)
                    forms = [form for name in names for form in (f"{name}.svc.cluster.local", f"{name}.svc", name)]
                    lines.append(" ".join([address.ip, *forms]))
        text = "\n".join(lines) + "\n"
        if text != self._names:
            self._names = text
            with (self._directory / "hosts").open("r+") as file:  # in place: it is mounted
                file.write(text)
                file.truncate()

    def _follow(self) -> None:
        """Start and end the pods that are bound to this node."""
        while not self._stopping.is_set():
            self._tried(self._watch)
            time.sleep(0.2)

    def _watch(self) -> None:
        from kubernetes.watch import Watch

        watch: Any = Watch
        selector = f"spec.nodeName={self._name}"
        listed = self._core.list_pod_for_all_namespaces(field_selector=selector)
        here = {pod.metadata.uid for pod in listed.items}
        for pod in listed.items:
            self._see(self._plain(pod))
        for uid in [uid for uid in self._pods if uid not in here]:
            self._pods.pop(uid).delete(0.0)
        events = watch().stream(
            self._core.list_pod_for_all_namespaces,
            field_selector=selector,
            resource_version=listed.metadata.resource_version,
            timeout_seconds=_WATCH_SECONDS,
        )
        for event in events:
            if event["type"] == "DELETED":
                gone = self._pods.pop(event["object"].metadata.uid, None)
                if gone is not None:
                    gone.delete(0.0)
            elif event["type"] in ("ADDED", "MODIFIED"):
                self._see(self._plain(event["object"]))

    def _plain(self, pod: Any) -> dict[str, Any]:
        plain: dict[str, Any] = self._api.sanitize_for_serialization(pod)
        return plain

    def _see(self, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        known = self._pods.get(uid)
        if pod["metadata"].get("deletionTimestamp"):
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            if known is None:  # of before this kubelet started: nothing of it runs
                known = self._pods[uid] = self._new(pod)
                known.start()
            known.delete(grace)
        elif known is None and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            self._pods[uid] = self._new(pod)
            self._pods[uid].start()

    def _new(self, pod: dict[str, Any]) -> Pod:
        address = next(self._addresses)
        subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", "lo"], check=True, timeout=10)
        place = Place(self._directory, address, self._directory / "hosts", self._environment)
        return Pod(self._core, pod, place)


def _give_back(subnet: str) -> None:
    """Take the addresses of a subnet off the loopback device."""
    network = ipaddress.ip_network(subnet)
    shown = subprocess.run(
        ["ip", "-o", "-4", "address", "show", "dev", "lo"], check=True, capture_output=True, text=True, timeout=10
    )
    for line in shown.stdout.splitlines():
        address = line.split()[3]
        if ipaddress.ip_interface(address).ip in network:
            subprocess.run(["ip", "address", "delete", address, "dev", "lo"], check=False, timeout=10)


def main() -> None:
    """Run a node."""
    from kubernetes import config

    new_client: Any = config.new_client_from_config
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("node", "directory", "kubeconfig", "names-kubeconfig", "subnet"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    labels = dict(label.split("=", 1) for label in given.label)
    with new_client(given.kubeconfig) as api, new_client(given.names_kubeconfig) as names:
        Kubelet(api, names, given.node, Path(given.directory), given.subnet, labels).run()


if __name__ == "__main__":
    main()
