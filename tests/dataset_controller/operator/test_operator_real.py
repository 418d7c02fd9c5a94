"""`ds controller` beside a real API server, with the rights of its manifests and with pods that run."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dataset_controller.operator.acting import (
    Admin,
    eventually,
    metrics,
    operator,
    requests,
    resident_mib,
)
from tests.services.kube import missing
from tests.services.kube.cluster import cluster
from tests.services.kube.kubelet import node
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.processes import Process

pytest.importorskip("kubernetes")
pytestmark = pytest.mark.kube
DEEP = os.environ.get("FOREBAY_DEEP") == "1"
NODES = ("n1", "n2", "n3")
RUNTIME: dict[str, Any] = {
    "replicas": 2,
    "drainTimeout": "5s",
    "tiers": [{"path": "/var/cache/forebay", "capacity": "64Mi"}],
}
NOWHERE = {**RUNTIME, "replicas": 1, "pods": {"nodeSelector": {"no": "where"}}}


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """A cluster of three nodes, with our definitions."""
    require(missing())
    with cluster(tmp_path_factory.mktemp("kube"), nodes=NODES) as running, running.client() as client:
        found = Admin(running, client)
        found.install()
        with (
            node(running, "n1", subnet="10.141.1.0/24"),
            node(running, "n2", subnet="10.141.2.0/24"),
            node(running, "n3", subnet="10.141.3.0/24"),
        ):
            yield found


@pytest.fixture
def acting(admin: Admin, tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """An operator that acts."""
    with operator(admin, tmp_path) as found:
        yield found


def dataset(name: str, runtime: str = "nvme") -> dict[str, Any]:
    return {"repo": {"uri": f"s3://bucket/{name}"}, "cache": {"runtimeRef": {"name": runtime}}}


def has_workers(admin: Admin, namespace: str, count: int) -> bool:
    status = admin.status("CacheRuntime", namespace, "nvme")
    names = {f"nvme-workers-{number}" for number in range(count)}
    ready = {name for name in admin.pods(namespace) if name.startswith("nvme-workers-")}
    return status.get("readyReplicas") == status.get("replicas") == count and ready == names


def test_a_cache_gets_workers_and_numbers_is_scaled_and_leaves_nothing(
    admin: Admin, acting: tuple[Process, str]
) -> None:
    ns = admin.new_namespace("story")
    admin.apply("CacheRuntime", ns, "nvme", RUNTIME)
    admin.apply("Dataset", ns, "digits", dataset("digits"))
    eventually(lambda: has_workers(admin, ns, 2))
    workers = [where for name, where in admin.pods(ns).items() if name.startswith("nvme-workers-")]
    assert len(set(workers)) == 2  # each on a node of its own
    eventually(lambda: admin.condition("CacheRuntime", ns, "nvme", "Ready").get("status") == "True")
    assert admin.table(ns, "CacheRuntime")["nvme"][1:3] == [2, 2]
    assert admin.status("CacheRuntime", ns, "nvme")["observedGeneration"] == 1
    assert {"WorkersNotReady": 1, "WorkersReady": 1}.items() <= admin.events(ns, "nvme").items()
    eventually(lambda: admin.condition("Dataset", ns, "digits", "RuntimeFound").get("status") == "True")
    assert admin.get("Deployment", ns, "forebay-agent", "apps/v1")

    for count in (3, 1):
        admin.scale(ns, "nvme", count)
        eventually(partial(has_workers, admin, ns, count))
        listed = admin.get("ConfigMap", ns, "nvme-workers", "v1")["data"]["workers.txt"]
        assert len(listed.splitlines()) == count

    admin.delete_all(ns, "Dataset", "CacheRuntime")
    eventually(lambda: not admin.left(ns))
    assert [name for name in metrics(acting[1]) if 'result="failed"' in name] == []


def volumes(admin: Admin) -> list[str]:
    """Return whose claims the volumes of the cluster are for."""
    items = admin.api.ask("GET", "/api/v1/persistentvolumes")["items"]
    return ["{namespace}/{name}".format_map(each["spec"]["claimRef"]) for each in items]


def test_a_dataset_has_a_claim_of_its_name_that_is_made_anew_and_goes_with_it(admin: Admin, tmp_path: Path) -> None:
    ns = admin.new_namespace("claims")
    path = f"/api/v1/namespaces/{ns}/persistentvolumeclaims"
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    admin.api.ask("POST", path, {"metadata": {"name": "taken"}, "spec": asked})
    for name in ("digits", "taken", "stays"):
        admin.apply("Dataset", ns, name, {"repo": {"uri": f"s3://bucket/{name}", "secretRef": {"name": "s3"}}})

    def claim() -> dict[str, Any]:
        return admin.get("PersistentVolumeClaim", ns, "digits", "v1")

    def is_bound() -> bool:
        ready = admin.condition("Dataset", ns, "digits", "ClaimReady").get("status") == "True"
        return ready and claim().get("status", {}).get("phase") == "Bound"

    with operator(admin, tmp_path, "--claims") as (_, url):
        eventually(is_bound)
        first = claim()["metadata"]["uid"]
        eventually(lambda: admin.condition("Dataset", ns, "taken", "SpecApplied").get("status") == "False")
        told = admin.condition("Dataset", ns, "taken", "SpecApplied")["message"]
        assert told.startswith("there is a PersistentVolumeClaim taken already that Forebay did not make")
        assert admin.get("PersistentVolumeClaim", ns, "taken", "v1")["spec"]["accessModes"] == ["ReadWriteOnce"]

        repo = {"uri": "s3://bucket/digits", "secretRef": {"name": "other"}}
        admin.apply("Dataset", ns, "digits", {"repo": repo})
        eventually(lambda: admin.condition("Dataset", ns, "digits", "ClaimReady").get("reason") == "Outdated")
        assert claim()["metadata"]["uid"] == first  # pods may use it
        admin.api.ask("DELETE", f"{path}/digits")
        eventually(lambda: is_bound() and claim()["metadata"]["uid"] != first)
        handed = admin.get("PersistentVolume", "", claim()["spec"]["volumeName"], "v1")["spec"]["csi"]
        assert handed["nodePublishSecretRef"] == {"name": "other", "namespace": ns}

        admin.api.ask("DELETE", f"/apis/forebay.dev/v1alpha1/namespaces/{ns}/datasets/digits")
        eventually(lambda: not claim() and volumes(admin) == [f"{ns}/stays"])
        assert [name for name in metrics(url) if 'result="failed"' in name] == []
    admin.delete_all(ns, "Dataset")  # while no operator runs
    with operator(admin, tmp_path, "--claims"):
        eventually(lambda: volumes(admin) == [])
    admin.api.ask("DELETE", f"{path}/taken")


def test_an_operator_that_is_killed_between_actions_is_followed_by_one_that_goes_on(
    admin: Admin, tmp_path: Path
) -> None:
    ns = admin.new_namespace("killed")
    admin.apply("CacheRuntime", ns, "nvme", NOWHERE)
    admin.apply("Dataset", ns, "digits", dataset("digits"))
    admin.apply("DataLoad", ns, "warm", {"dataset": {"name": "digits"}})
    for number in range(2):
        with operator(admin, tmp_path) as (process, _):
            process.wait_until(lambda process: process.says("did action="))
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL, number
        admin.forget_lease()
        if admin.get("StatefulSet", ns, "nvme-workers", "apps/v1"):
            admin.api.ask("DELETE", f"/apis/apps/v1/namespaces/{ns}/statefulsets/nvme-workers")
    with operator(admin, tmp_path):
        eventually(lambda: admin.get("StatefulSet", ns, "nvme-workers", "apps/v1"))
        eventually(lambda: admin.get("Deployment", ns, "forebay-agent", "apps/v1"))
        eventually(lambda: admin.condition("CacheRuntime", ns, "nvme", "Ready").get("status") == "False")
        eventually(lambda: admin.condition("DataLoad", ns, "warm", "Complete").get("reason") == "WaitsForWorkers")
        assert {each for each in admin.left(ns) if each.startswith("secrets/nvme")} == {"secrets/nvme-token"}
        admin.delete_all(ns, "DataLoad", "Dataset", "CacheRuntime")
        eventually(lambda: not admin.left(ns))


def test_it_goes_on_when_the_api_server_comes_back(admin: Admin, acting: tuple[Process, str]) -> None:
    process, url = acting
    ns = admin.new_namespace("restarted")
    admin.apply("CacheRuntime", ns, "nvme", NOWHERE)
    eventually(lambda: admin.get("StatefulSet", ns, "nvme-workers", "apps/v1"))
    admin.cluster.stop_api()
    time.sleep(1)
    admin.cluster.start_api()
    eventually(lambda: admin.get("CacheRuntime", ns, "nvme"))
    admin.scale(ns, "nvme", 2)
    eventually(lambda: admin.get("StatefulSet", ns, "nvme-workers", "apps/v1")["spec"]["replicas"] == 2)
    assert process.is_running
    with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
        assert answer.status == 200
    admin.delete_all(ns, "CacheRuntime")
    eventually(lambda: not admin.left(ns))


def test_what_cannot_be_is_told_in_a_condition_and_ends_when_it_can(admin: Admin, acting: tuple[Process, str]) -> None:
    ns = admin.new_namespace("refused")
    theirs = {"metadata": {"name": "nvme-workers"}, "data": {"theirs": "yes"}}
    admin.api.ask("POST", f"/api/v1/namespaces/{ns}/configmaps", theirs)
    admin.apply("CacheRuntime", ns, "nvme", {**NOWHERE, "pods": {"labels": {"bad label": "x"}}})
    refused = eventually(lambda: _not_applied(admin, ns, "Refused"))
    assert "ConfigMap nvme-workers already that Forebay did not make" in refused["message"]
    assert admin.get("ConfigMap", ns, "nvme-workers", "v1")["data"] == {"theirs": "yes"}
    admin.api.ask("DELETE", f"/api/v1/namespaces/{ns}/configmaps/nvme-workers")
    eventually(lambda: "bad label" in _not_applied(admin, ns, "Refused").get("message", ""))
    inner = [{"path": "/a", "capacity": "1Gi"}, {"path": "/a/b", "capacity": "1Gi"}]
    admin.edit(ns, "nvme", {"pods": {"labels": {"bad label": None}}, "tiers": inner})
    invalid = eventually(lambda: _not_applied(admin, ns, "Invalid"))
    assert "share a directory" in invalid["message"]
    admin.edit(ns, "nvme", {"tiers": RUNTIME["tiers"]})
    eventually(lambda: admin.condition("CacheRuntime", ns, "nvme", "SpecApplied").get("status") == "True")
    admin.apply("DataPack", ns, "shards", {"dataset": {"name": "digits"}, "branch": "packed"})
    eventually(lambda: admin.condition("DataPack", ns, "shards", "Complete").get("reason") == "NoSuchDataset")
    admin.delete_all(ns, "CacheRuntime", "DataPack")
    eventually(lambda: not admin.left(ns))


def _not_applied(admin: Admin, namespace: str, reason: str) -> dict[str, Any]:
    found = admin.condition("CacheRuntime", namespace, "nvme", "SpecApplied")
    return found if found.get("reason") == reason else {}


def test_one_of_two_acts_and_the_other_follows_at_once(admin: Admin, tmp_path: Path) -> None:
    ns = admin.new_namespace("two")
    with (
        operator(admin, tmp_path) as (first, url),
        operator(admin, tmp_path, ready=" synced ") as (second, other_url),
    ):
        eventually(lambda: _is_ready(other_url))
        assert not second.says(" leads name=")
        assert metrics(url)["forebay_controller_leads"] == 1
        assert metrics(other_url)["forebay_controller_leads"] == 0
        assert first.stop(grace_seconds=30) == 0
        second.wait_until(lambda process: process.says(" leads name="), seconds=5)
        admin.apply("CacheRuntime", ns, "nvme", NOWHERE)
        eventually(lambda: admin.get("StatefulSet", ns, "nvme-workers", "apps/v1"))
        admin.delete_all(ns, "CacheRuntime")
        eventually(lambda: not admin.left(ns))


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return True
    except urllib.error.URLError:
        return False


@pytest.mark.skipif(not DEEP, reason="takes a minute; FOREBAY_DEEP=1")
@pytest.mark.parametrize(("runtimes", "datasets"), [(50, int(os.environ.get("FOREBAY_DATASETS", "200")))])
def test_many_objects_from_cold(admin: Admin, tmp_path: Path, runtimes: int, datasets: int) -> None:
    ns = admin.new_namespace("many")
    for number in range(runtimes):
        admin.apply("CacheRuntime", ns, f"cache-{number}", {**NOWHERE, "replicas": 0})
    for number in range(datasets):
        admin.apply("Dataset", ns, f"data-{number}", dataset(f"data-{number}", f"cache-{number % runtimes}"))
    begun = time.monotonic()
    with operator(admin, tmp_path) as (process, url):
        leads = time.monotonic()
        eventually(lambda: _is_settled(admin, url, ns, runtimes, datasets), 180)
        done = time.monotonic()
        cold = requests(url)
        time.sleep(20)
        before = requests(url)
        time.sleep(20)
        steady = (requests(url) - before) / 20
        edited = []
        for number in range(20):
            start = time.monotonic()
            admin.scale(ns, f"cache-{number}", 1)
            eventually(partial(_is_edited, admin, ns, f"cache-{number}"))
            edited.append(time.monotonic() - start)
        ticks = sum(map(int, _stat(process.pid)))
        print(
            f"\n{runtimes} runtimes, {datasets} datasets: leads after {leads - begun:.1f} s, settled after "
            f"{done - begun:.1f} s, {cold:.0f} requests; steady {steady:.2f} requests/s; RSS "
            f"{resident_mib(process.pid):.0f} MiB; CPU {ticks / os.sysconf('SC_CLK_TCK'):.1f} s; "
            f"edit to status p50 {sorted(edited)[10]:.2f} s, max {max(edited):.2f} s"
        )
        assert steady < 5
        assert resident_mib(process.pid) < 400
    admin.delete_all(ns, "Dataset", "CacheRuntime")


def _is_edited(admin: Admin, namespace: str, name: str) -> bool:
    return bool(admin.status("CacheRuntime", namespace, name)["observedGeneration"] == 2)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def _is_settled(admin: Admin, url: str, namespace: str, runtimes: int, datasets: int) -> bool:
    listed = "/apis/forebay.dev/v1alpha1/namespaces/{}/{}"
    time.sleep(0.5)
    if metrics(url)["forebay_controller_queue_objects"]:
        return False
    for plural, count in (("cacheruntimes", runtimes), ("datasets", datasets)):
        items = admin.api.ask("GET", listed.format(namespace, plural))["items"]
        if sum("observedGeneration" in (each.get("status") or {}) for each in items) < count:
            return False
    sets = admin.api.ask("GET", f"/apis/apps/v1/namespaces/{namespace}/statefulsets")["items"]
    return len(sets) == runtimes
