"""The cluster of the tests itself: what ours stand on."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.kube import missing
from tests.services.kube.cluster import cluster
from tests.services.kube.kubelet import node
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.kube.cluster import Cluster

pytestmark = pytest.mark.kube
SECONDS = 60
SCRIPT = """
cat /config/greeting /secret/word
echo $POD $NODE > /disk/$POD; echo lost > /etc/forebay-test; touch /run/ok; trap 'echo bye; exit 0' TERM
until getent hosts web-0.web.default.svc.cluster.local && getent hosts web-1.web.default; do sleep 0.1; done
echo met; while true; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes."""
    require(missing())
    with (
        cluster(tmp_path_factory.mktemp("kube"), nodes=["n1", "n2"]) as started,
        node(started, "n1", subnet="10.131.1.0/24"),
        node(started, "n2", subnet="10.131.2.0/24"),
    ):
        yield started


@pytest.fixture
def core(running: Cluster) -> Iterator[Any]:
    """The API as its administrator sees it."""
    from kubernetes.client import CoreV1Api

    with running.client() as api:
        yield CoreV1Api(api)


def eventually(holds: Callable[[], Any]) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def ready_pods(core: Any, count: int) -> list[Any]:
    """Return the pods of the set, once they are as many and all ready."""
    pods = core.list_namespaced_pod("default", label_selector="app=web").items
    is_ready = [all(status.ready for status in pod.status.container_statuses or [None] if status) for pod in pods]
    started = [pod.status.phase == "Running" for pod in pods]
    return pods if len(pods) == count and all(is_ready) and all(started) else []


def test_a_stateful_set_runs_with_its_volumes_and_names_and_comes_back(running: Cluster, core: Any) -> None:
    from kubernetes.client import AppsV1Api

    core.create_namespaced_config_map("default", {"metadata": {"name": "c"}, "data": {"greeting": "hello "}})
    core.create_namespaced_secret("default", {"metadata": {"name": "s"}, "stringData": {"word": "world\n"}})
    labels = {"app": "web"}
    service = {"clusterIP": "None", "selector": labels, "ports": [{"port": 80}], "publishNotReadyAddresses": True}
    core.create_namespaced_service("default", {"metadata": {"name": "web"}, "spec": service})
    container = {
        "name": "c",
        "image": "any",
        "command": ["sh", "-c", SCRIPT],
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in ("config", "secret", "disk")],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/run/ok"]}, "periodSeconds": 1},
    }
    volumes = [
        {"name": "config", "configMap": {"name": "c"}},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "disk", "hostPath": {"path": "/var/lib/disk"}},
    ]
    pod = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 5}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"serviceName": "web", "replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    with running.client() as api:
        apps: Any = AppsV1Api(api)
        apps.create_namespaced_stateful_set("default", {"metadata": {"name": "web"}, "spec": spec})
    pods = eventually(lambda: ready_pods(core, 2))
    first = next(pod for pod in pods if pod.metadata.name == "web-0")
    home = running.directory / "nodes" / first.spec.node_name
    log = home / "pods" / first.metadata.uid / "logs" / "c.log"
    assert log.read_text().startswith("hello world\n")
    assert (home / "disk/var/lib/disk/web-0").read_text() == f"web-0 {first.spec.node_name}\n"
    assert not os.path.exists("/etc/forebay-test")

    os.kill(int((log.parents[1] / "c.pid").read_text()), signal.SIGKILL)
    eventually(lambda: core.read_namespaced_pod("web-0", "default").status.container_statuses[0].restart_count == 1)
    eventually(lambda: ready_pods(core, 2))
    eventually(lambda: "met" in log.read_text())

    with running.client() as api:
        AppsV1Api(api).delete_namespaced_stateful_set("web", "default")
    eventually(lambda: not core.list_namespaced_pod("default", label_selector="app=web").items)
    assert log.read_text().endswith("bye\n")


@pytest.mark.parametrize(("command", "phase"), [("true", "Succeeded"), ("false", "Failed")])
def test_a_pod_ends_as_its_command_does(core: Any, command: str, phase: str) -> None:
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "any", "command": [command]}]}
    core.create_namespaced_pod("default", {"metadata": {"name": command}, "spec": spec})
    eventually(lambda: core.read_namespaced_pod(command, "default").status.phase == phase)


def test_what_the_cluster_knew_is_there_after_its_server_was_started_again(running: Cluster, core: Any) -> None:
    core.create_namespaced_config_map("default", {"metadata": {"name": "kept"}, "data": {"a": "b"}})
    running.stop_api()
    running.start_api()
    assert eventually(lambda: core.read_namespaced_config_map("kept", "default").data) == {"a": "b"}


def test_a_pod_asks_the_api_server_with_its_own_rights(core: Any) -> None:
    code = (
        "from kubernetes import client, config; config.load_incluster_config(); "
        "print(client.AuthorizationV1Api().create_self_subject_access_review({'spec': {'resourceAttributes': "
        "{'verb': 'list', 'resource': 'secrets', 'namespace': 'default'}}}).status.allowed)"
    )
    eventually(lambda: core.list_namespaced_service_account("default").items)
    container = {"name": "c", "image": "any", "command": ["python", "-c", code]}
    core.create_namespaced_pod(
        "default", {"metadata": {"name": "asks"}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    )
    eventually(lambda: core.read_namespaced_pod("asks", "default").status.phase == "Succeeded")
