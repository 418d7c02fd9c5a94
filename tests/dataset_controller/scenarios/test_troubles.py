"""What happens to a cache in the course of a year: nodes more and less, updates, sources and servers that go away."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from tests.dataset_controller.scenarios.caching import CONTROLLER, HOME, Story
from tests.dataset_controller.scenarios.people import People, eventually, people
from tests.services import hdfs, nfs
from tests.services.kube import missing
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]
FILE_BYTES = 200_000


@pytest.fixture(scope="module")
def us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """People with four nodes."""
    require(missing())
    names = ["n1", "n2", "n3", "n4"]
    subnets = [f"10.152.{number}.0/24" for number in range(1, 5)]
    with people(tmp_path_factory.mktemp("troubles"), nodes=names, subnets=subnets) as all_of_us:
        try:
            yield all_of_us
        finally:
            for log, text in all_of_us.said(most=1500).items():  # pytest shows it where a test failed
                print(f"== {log}\n{text}")


def data(seed: int) -> bytes:
    return random.Random(seed).randbytes(FILE_BYTES)


def restarts(us: People, labels: str, namespace: str = "ml") -> int:
    """Return how often the containers of these pods were started again."""
    pods = us.pods(labels, namespace=namespace)
    return sum(each["restartCount"] for pod in pods for each in pod["status"].get("containerStatuses") or [])


def reaches_sources(us: People, story: Story) -> str:
    return us.condition("dset", story.name, "SourcesReachable")


def test_while_sources_are_down_the_cache_is_scaled_and_updated_and_nothing_is_fetched(
    us: People, tmp_path_factory: pytest.TempPathFactory
) -> None:
    require(nfs.missing())
    require(hdfs.missing())
    with (
        nfs.nfs_server(tmp_path_factory.mktemp("nfs")) as files,
        hdfs.hdfs_cluster(tmp_path_factory.mktemp("hdfs")) as hadoop,
    ):
        story = Story(us, "mixed")
        story.mounts = [
            {"name": "bucket", "uri": "s3://raw/mixed", "path": "s3/", **story.in_bucket(us.s3.endpoint)},
            {"name": "files", "uri": f"{files.url}/mixed", "path": "nfs/", "options": files.options},
            {"name": "hadoop", "uri": f"{hadoop.url}/mixed", "path": "hdfs/"},
        ]
        (files.export / "mixed").mkdir()
        for number in range(10):
            story.put("bucket", f"{number}.bin", data(number))
            story.put("hadoop", f"{number}.bin", data(100 + number))
            (files.export / "mixed" / f"{number}.bin").write_bytes(data(200 + number))
            story.content[f"nfs/{number}.bin"] = data(200 + number)
        story.declare(replicas=2)
        story.wait_for_files()
        story.warm()
        story.read()
        sent = us.s3.sent_bytes("raw")

        # from here on nothing can come from NFS or HDFS, and what comes from S3 is counted
        files.kill()
        hadoop.kill("datanode")
        hadoop.kill("namenode")
        eventually(lambda: reaches_sources(us, story) == "False", "it is told that sources do not answer")
        for count in (4, 2):
            story.scale(count)
            story.read()
        before = {pod["metadata"]["uid"] for pod in story.wait_for_workers(2)}
        pods = {"annotations": {"example.org/settings": "2"}, "image": "forebay:newer"}
        story.declare_cache(replicas=2, pods=pods)
        eventually(
            lambda: {pod["spec"]["containers"][0]["image"] for pod in us.pods(story.labels)} == {"forebay:newer"},
            "all workers have the new image",
        )
        after = {pod["metadata"]["uid"] for pod in story.wait_for_workers(2)}
        assert not before & after
        story.read()
        for pod in story.wait_for_workers(2):
            us.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        eventually(lambda: not after & {pod["metadata"]["uid"] for pod in us.pods(story.labels)}, "others took over")
        story.wait_for_workers(2)
        story.read()
        assert us.s3.sent_bytes("raw") == sent
        assert us.status("dset", story.name)["files"] == len(story.content)
        assert restarts(us, "app.kubernetes.io/component=agent") == 0

        # they come back: nobody does anything, and what is new is a version
        hadoop.start("namenode")
        hadoop.start("datanode")
        files.start()
        eventually(lambda: reaches_sources(us, story) == "True", "all sources answer again", 180)
        (files.export / "mixed" / "new.bin").write_bytes(data(1000))
        story.content["nfs/new.bin"] = data(1000)
        story.wait_for_files()
        story.read()
        story.delete()


def test_the_api_server_goes_away_and_nobody_minds(us: People) -> None:
    story = Story(us, "plain")
    story.mounts = [{"name": "bucket", "uri": "s3://raw/plain", "path": "", **story.in_bucket(us.s3.endpoint)}]
    for number in range(10):
        story.put("bucket", f"{number}.bin", data(number))
    story.declare(replicas=2)
    story.wait_for_files()
    story.warm()
    uids = {pod["metadata"]["uid"] for pod in story.wait_for_workers(2)}
    for _ in range(2):
        us.running.stop_api()
        story.put("bucket", f"meanwhile-{len(story.content)}.bin", data(len(story.content)))
        us.running.start_api()
        story.wait_for_files()
        story.read()
    story.scale(3)
    story.scale(2)
    assert uids == {pod["metadata"]["uid"] for pod in us.pods(story.labels)}
    for labels, namespace in ((story.labels, "ml"), ("app.kubernetes.io/component=agent", "ml"), (CONTROLLER, HOME)):
        assert restarts(us, labels, namespace) == 0
    story.delete()


def test_another_controller_goes_on_where_the_leader_died(us: People) -> None:
    us.kubectl("scale", "deployment/forebay-controller", "--replicas=2", namespace=HOME)
    us.kubectl("rollout", "status", "deployment/forebay-controller", "--timeout=60s", namespace=HOME)
    story = Story(us, "led")
    story.declare_cache(replicas=1)
    story.wait_for_workers(1)
    holder = leader(us)
    pods = {pod["metadata"]["name"]: pod for pod in us.pods(CONTROLLER, namespace=HOME)}
    pid = us.process_of(pods[holder])
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # as a node that hangs: it neither renews nor gives back
    try:
        story.scale(2)
        assert leader(us) != holder
    finally:
        os.kill(pid, signal.SIGKILL)
    story.scale(1)
    us.kubectl("scale", "deployment/forebay-controller", "--replicas=1", namespace=HOME)
    us.kubectl("delete", "cache", story.cache)
    eventually(lambda: not us.left(), "nothing is left")


def leader(us: People) -> str:
    """Return the pod of the controller that holds the lease."""
    text = us.kubectl("get", "lease", "-o", "jsonpath={.items[*].spec.holderIdentity}", namespace=HOME)
    (holder,) = [name for name in text.split() if name.startswith("forebay-controller")]
    pods = [pod["metadata"]["name"] for pod in us.pods(CONTROLLER, namespace=HOME)]
    return next((pod for pod in pods if holder.startswith(pod)), holder)


def test_a_cache_grows_and_shrinks_with_its_dataset(us: People) -> None:
    story = Story(us, "growing")
    story.mounts = [{"name": "bucket", "uri": "s3://raw/growing", "path": "", **story.in_bucket(us.s3.endpoint)}]
    story.put("bucket", "0.bin", data(0))
    tiers = [{"path": "/var/cache/growing", "capacity": "32Mi"}]
    scaling = {"minReplicas": 1, "maxReplicas": 3, "targetUsedPercent": 80, "stabilisation": "3s"}
    story.declare(replicas=1, tiers=tiers, autoscale=scaling)
    story.wait_for_files()
    story.wait_for_workers(1)
    for number in range(1, 20):  # 40 MB: more than 80 % of one, less than of two
        story.put("bucket", f"{number}.bin", 10 * data(number))
    story.wait_for_workers(2)
    story.warm()
    for number in range(20, 30):
        story.put("bucket", f"{number}.bin", 10 * data(number))
    story.wait_for_workers(3)
    story.wait_for_files()
    story.read()
    for number in range(1, 30):
        remove(story, f"{number}.bin")
    story.wait_for_files()
    story.wait_for_workers(1)
    story.read()
    assert us.get("cache", story.cache)["spec"]["replicas"] == 1
    story.delete()


def remove(story: Story, path: str) -> None:
    """Delete a file of the bucket."""
    from sources import open_store

    open_store("s3://raw", story.us.s3.options).delete(f"{story.name}/{path}")
    del story.content[path]
