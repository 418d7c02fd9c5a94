"""What runs in pods, in pods: the agent, workers and the job of a load, on a real cluster and a real S3."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from dataset_controller.crds import GROUP, VERSION, definitions
from dataset_controller.model import Dataset
from dataset_controller.operations import DataLoad
from dataset_controller.operator.api import ClusterApi
from dataset_controller.operator.objects.agent import agent_objects
from dataset_controller.operator.objects.jobs import Run, load_job
from dataset_controller.operator.objects.workers import (
    headless_service,
    manifests_map,
    stateful_set,
    token_name,
)
from dataset_controller.operator.planning.actions import CreateToken
from dataset_controller.runtime_model import CacheRuntime
from sources import open_store
from tests.services.kube import missing
from tests.services.kube.cluster import cluster
from tests.services.kube.kubelet import node
from tests.services.requiring import require
from tests.services.weed import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.kube.cluster import Cluster
    from tests.services.weed import S3Server

pytestmark = pytest.mark.kube
SECONDS = 90
NAMESPACE = "ml"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3"), buckets=("lake", "repos")) as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require(missing())
    names = ["n1", "n2", "n3"]
    with (
        cluster(tmp_path_factory.mktemp("kube"), nodes=names) as started,
        node(started, "n1", subnet="10.142.1.0/24"),
        node(started, "n2", subnet="10.142.2.0/24"),
        node(started, "n3", subnet="10.142.3.0/24"),
    ):
        yield started


class Story:
    """What the tests do to the cluster, in the operator's place."""

    def __init__(self, api: ClusterApi, s3: S3Server) -> None:
        self.api = api
        self.s3 = s3

    def put(self, key: str, data: bytes) -> None:
        store: Any = open_store("s3://lake/", self.s3.options)
        store.put(key, data)

    def declare(self, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        return self.api.apply(
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": kind,
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": spec,
            }
        )

    def status(self, plural: str, name: str) -> dict[str, Any]:
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{plural}/{name}"
        return self.api.ask("GET", path).get("status") or {}

    def condition(self, name: str, kind: str) -> str:
        found = self.status("datasets", name).get("conditions", [])
        return next((f"{each['status']} {each['reason']}" for each in found if each["type"] == kind), "")

    def pods(self, component: str) -> list[dict[str, Any]]:
        query = [("labelSelector", f"app.kubernetes.io/component={component}")]
        return list(self.api.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/pods", query=query)["items"])


@pytest.fixture(scope="module")
def story(running: Cluster, s3: S3Server) -> Iterator[Story]:
    with running.client() as client:
        api = ClusterApi(client)
        for document in definitions(with_rules=False):
            api.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", document)
        api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        body = {"metadata": {"name": "s3"}, "stringData": {"key": s3.key, "secret": s3.secret}}
        api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", body)
        eventually(lambda: api.ask("GET", f"/apis/{GROUP}/{VERSION}/datasets"))
        yield Story(api, s3)


def eventually(holds: Callable[[], Any], seconds: float = SECONDS) -> Any:
    from kubernetes.client import ApiException

    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := holds():
                return found
        except ApiException as error:
            if error.status != 404:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.2)


def dataset_spec(s3: S3Server, name: str, **more: Any) -> dict[str, Any]:
    place = {"options": {"endpoint_url": s3.endpoint}, "secretRef": {"name": "s3"}}
    return {
        "mounts": [{"name": "raw", "uri": f"s3://lake/{name}/", "path": "raw/", **place}],
        "repo": {"uri": f"s3://repos/{name}/", **place},
        **more,
    }


def model(kind: Any, document: dict[str, Any]) -> Any:
    plain = {name: document[name] for name in ("apiVersion", "kind", "spec")}
    return kind.model_validate({**plain, "metadata": {"name": document["metadata"]["name"]}})


def test_from_a_source_to_workers(story: Story, s3: S3Server) -> None:
    data = {f"flowers/{number}.bin": os.urandom(3 << 20) for number in range(20)}
    for key, content in data.items():
        story.put(key, content)
    cache = {"runtimeRef": {"name": "nvme"}}
    declared = story.declare("Dataset", "flowers", dataset_spec(s3, "flowers", sync={"interval": "10s"}, cache=cache))
    tiers = [{"path": "/var/cache/forebay", "capacity": "256Mi"}]
    runtime_document = story.declare("CacheRuntime", "nvme", {"tiers": tiers, "replicas": 3, "drainTimeout": "20s"})
    dataset, runtime = model(Dataset, declared), model(CacheRuntime, runtime_document)
    token = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": token_name(runtime), "namespace": NAMESPACE}}
    story.api.do(CreateToken(token))
    for document in (
        manifests_map(runtime, [dataset], NAMESPACE),
        headless_service(runtime, NAMESPACE),
        stateful_set(runtime, [dataset], NAMESPACE, "forebay"),
        *agent_objects(NAMESPACE, [dataset], "forebay", [token_name(runtime)]),
    ):
        story.api.apply(document)

    # what is in the source is a commit
    status = eventually(lambda: (found := story.status("datasets", "flowers")).get("files") == 20 and found)
    assert status["sizeBytes"] == 20 * (3 << 20)
    assert story.condition("flowers", "Ready") == "True Readable"
    # so is a new file, soon
    story.put("flowers/new.bin", os.urandom(1 << 20))
    begun = time.monotonic()
    eventually(lambda: story.status("datasets", "flowers")["files"] == 21)
    assert time.monotonic() - begun < 15

    # the workers tell how they are
    eventually(lambda: sum(each["ready"] for each in story.status("cacheruntimes", "nvme").get("workers", [])) == 3)
    assert {each["node"] for each in story.status("cacheruntimes", "nvme")["workers"]} == {"n1", "n2", "n3"}
    eventually(lambda: story.status("datasets", "flowers").get("cachedPercent") == 0)

    # a load is seen moving, and is done when all is there
    load_document = story.declare("DataLoad", "warm", {"dataset": {"name": "flowers"}})
    load = model(DataLoad, load_document)
    story.api.apply(load_job(load, Run(1, "x"), dataset, runtime, namespace=NAMESPACE, image="forebay"))
    seen = set()

    def loaded() -> bool:
        percent = story.status("dataloads", "warm").get("percent")
        seen.add(percent)
        return percent == 100

    eventually(loaded)
    told = story.status("dataloads", "warm")
    assert 100 in seen
    assert told["revision"] == story.status("datasets", "flowers")["revision"]
    assert (told["filesTotal"], told["filesFailed"]) == (21, 0)
    eventually(lambda: story.status("datasets", "flowers").get("cachedPercent") == 100)
    assert story.status("datasets", "flowers")["cachedBytes"] == told["bytesTotal"]
    held = {each["node"]: each["bytes"] for each in story.status("datasets", "flowers")["cachedOn"]}
    assert held.keys() <= {"n1", "n2", "n3"}
    assert told["bytesTotal"] - 3 <= sum(held.values())  # few pieces: each was asked for; bytes are rounded down

    # less workers: what one hands over is there, and nothing is fetched anew
    sent = s3.sent_bytes()
    runtime_document = story.declare("CacheRuntime", "nvme", {"tiers": tiers, "replicas": 2, "drainTimeout": "20s"})
    runtime = model(CacheRuntime, runtime_document)
    story.api.apply(manifests_map(runtime, [dataset], NAMESPACE))
    story.api.apply(stateful_set(runtime, [dataset], NAMESPACE, "forebay"))
    eventually(lambda: len(story.pods("worker")) == 2)
    eventually(lambda: len(story.status("cacheruntimes", "nvme")["workers"]) == 2)
    eventually(lambda: story.status("datasets", "flowers").get("cachedPercent") == 100)
    assert s3.sent_bytes() - sent < 64 << 10  # no file of 3 MiB; the agent looks at branch and sources meanwhile

    # another dataset can be loaded: no worker starts again for it
    pods = {each["metadata"]["uid"]: each["status"]["containerStatuses"][0] for each in story.pods("worker")}
    story.put("trees/1.bin", os.urandom(1 << 20))
    document = story.declare("Dataset", "trees", dataset_spec(s3, "trees", sync={"interval": "10s"}, cache=cache))
    trees = model(Dataset, document)
    story.api.apply(manifests_map(runtime, [dataset, trees], NAMESPACE))
    eventually(lambda: story.status("datasets", "trees").get("files") == 1)
    load = model(DataLoad, story.declare("DataLoad", "warm-trees", {"dataset": {"name": "trees"}}))
    story.api.apply(load_job(load, Run(1, "x"), trees, runtime, namespace=NAMESPACE, image="forebay"))
    eventually(lambda: story.status("dataloads", "warm-trees").get("percent") == 100)
    again = {each["metadata"]["uid"]: each["status"]["containerStatuses"][0] for each in story.pods("worker")}
    assert [each["restartCount"] for each in again.values()] == [0, 0]
    assert again.keys() == pods.keys()
