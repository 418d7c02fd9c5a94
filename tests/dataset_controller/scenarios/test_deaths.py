"""Controllers and workers that are killed: what was begun is ended by others, once."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dataset_controller.operator.api import ClusterApi
from tests.dataset_controller.scenarios.caching import CONTROLLER, HOME, Story
from tests.dataset_controller.scenarios.origin import counting_origin
from tests.dataset_controller.scenarios.people import People, eventually, people
from tests.services import http
from tests.services.kube import missing
from tests.services.processes import started
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]
DEEP = os.environ.get("FOREBAY_DEEP") == "1"
FILES, FILE_BYTES, REQUESTS_PER_SECOND = (20_000, 8_000, 100) if DEEP else (2_000, 8_000, 12)
KILLS = 20
IN_FLIGHT = 32
"""Files that a worker may have asked for, and not stored, when it is killed: it has two loads of 16 threads."""
REPOSITORY = Path(__file__).parents[3]
ACTIONS = {
    *(f"Apply {kind}" for kind in ("ConfigMap", "Deployment", "Job", "PodDisruptionBudget", "Role", "RoleBinding")),
    *(f"Apply {kind}" for kind in ("Service", "ServiceAccount", "StatefulSet")),
    *(f"Delete {kind}" for kind in ("Deployment", "Role", "RoleBinding", "ServiceAccount")),
    *(f"{what} {kind}" for what in ("PatchStatus", "Tell") for kind in ("CacheRuntime", "DataLoad")),
    *("CreateToken Secret", "PatchStatus Dataset", "SetReplicas CacheRuntime"),
}


@pytest.fixture(scope="module")
def us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """People with three nodes."""
    require(missing())
    subnets = [f"10.153.{number}.0/24" for number in range(1, 4)]
    with people(tmp_path_factory.mktemp("deaths"), nodes=["n1", "n2", "n3"], subnets=subnets) as all_of_us:
        try:
            yield all_of_us
        finally:
            for log, text in all_of_us.said(most=1500).items():  # pytest shows it where a test failed
                print(f"== {log}\n{text}")


@pytest.fixture
def no_other_controller(us: People) -> Iterator[None]:
    """The test runs its own."""
    us.kubectl("scale", "deployment/forebay-controller", "--replicas=0", namespace=HOME)
    eventually(lambda: not us.pods(CONTROLLER, namespace=HOME), "no other controller is there")
    yield
    us.kubectl("scale", "deployment/forebay-controller", "--replicas=1", namespace=HOME)


@pytest.mark.usefixtures("no_other_controller")
def test_a_controller_that_is_killed_around_each_action_is_followed_by_one_that_goes_on(
    us: People, tmp_path: Path
) -> None:
    story = Story(us, "dying")
    story.mounts = [{"name": "bucket", "uri": "s3://raw/dying", "path": "", **story.in_bucket(us.s3.endpoint)}]
    for number in range(5):
        story.put("bucket", f"{number}.bin", random.Random(number).randbytes(10_000))
    deaths = tmp_path / "deaths"
    command = [sys.executable, "-m", "tests.dataset_controller.scenarios.dying", str(deaths), str(own_rights(us))]
    log = tmp_path / "dying.log"
    with started(
        [*command, str(us.kubeconfig), HOME], log=log, ready=lambda each: each.says("ready"), cwd=REPOSITORY,
        grace_seconds=30,
    ) as dying:  # fmt: skip
        story.declare(replicas=1)
        story.wait_for_files()
        story.warm()
        story.wait_for_workers(1)
        made = uids(us)
        assert [name for name in made if name.startswith("job")] == [f"job.batch/{story.load}-load-1"]
        story.declare_cache(replicas=2)
        story.wait_for_workers(2)
        story.declare_cache(replicas=2, autoscale={"minReplicas": 1, "maxReplicas": 1})
        story.wait_for_workers(1)
        assert uids(us) == made  # nothing was made a second time
        story.read()
        story.delete()
        assert dying.is_running
    found = set(deaths.read_text().splitlines())
    assert {f"{when} {each}" for when in ("before", "after") for each in ACTIONS} <= found
    assert "Traceback" not in log.read_text()


def own_rights(us: People) -> Path:
    """Return a kubeconfig with the rights of the operator's account."""
    path = f"/api/v1/namespaces/{HOME}/serviceaccounts/forebay-controller/token"
    with us.running.client() as client:
        body = {"spec": {"expirationSeconds": 3600}}
        token = str(ClusterApi(client).ask("POST", path, body)["status"]["token"])
    return us.running.kubeconfig("forebay-controller", token=token)


def uids(us: People) -> dict[str, str]:
    """Return which objects there are that operators make, by name."""
    kinds = "statefulsets,deployments,jobs,services,configmaps,secrets,serviceaccounts,roles,rolebindings"
    items = json.loads(us.kubectl("get", kinds, "-l", "app.kubernetes.io/managed-by=forebay", "-o", "json"))["items"]
    return {
        f"{each['kind'].lower()}.{each['apiVersion'].partition('/')[0]}/{each['metadata']['name']}": each["metadata"][
            "uid"
        ]
        for each in items
    }


def test_a_load_is_completed_through_twenty_kills(us: People, tmp_path: Path) -> None:
    require(http.missing())
    chance = random.Random(7)
    with counting_origin(tmp_path / "origin", us.s3.endpoint) as origin:
        story = Story(us, "killed", interval="60s", retries=20)
        limits = {"requestsPerSecond": REQUESTS_PER_SECOND}
        place = {"uri": "s3://raw/killed", "path": "", "limits": limits}
        story.mounts = [{"name": "bucket", **place, **story.in_bucket(us.s3.endpoint)}]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda each: story.put("bucket", *each), files()))
        story.mounts[0] |= story.in_bucket(origin.endpoint)
        story.declare(replicas=3)
        story.wait_for_files()
        story.wait_for_workers(3)
        begun = time.monotonic()
        story.declare_load()
        eventually(lambda: us.status("load", story.load).get("percent", 0) >= 2, "the load is under way")
        killed = [kill_one(us, story, chance) for _ in range(KILLS)]
        assert us.status("load", story.load).get("phase") == "Running"
        eventually(lambda: us.status("load", story.load).get("phase") == "Succeeded", "all is loaded", 600)
        took = time.monotonic() - begun
        status = us.status("load", story.load)
        assert (status["percent"], status["filesFailed"], status["filesTotal"]) == (100, 0, FILES)
        keys = {f"killed/{path}" for path in story.content}
        eventually(lambda: set(origin.reads("raw")) == keys, "the origin wrote down all that it answered")
        reads = origin.reads("raw")
        again = sum(count - 1 for count in reads.values())
        print(
            f"\n{FILES} files, {took:.0f} s, killed {killed.count('controller')} times the controller and "
            f"{killed.count('worker')} times a worker: {len(reads)} read, {again} of them again"
        )
        assert again <= IN_FLIGHT * killed.count("worker")  # nothing that a worker had stored
        eventually(lambda: us.status("dset", story.name).get("cachedPercent") == 100, "it is shown as cached")
        story.read()
        assert origin.reads("raw") == reads
        story.delete()


def files() -> Iterator[tuple[str, bytes]]:
    for number in range(FILES):
        yield f"{number // 1000:02}/{number:05}.bin", random.Random(number).randbytes(FILE_BYTES)


def kill_one(us: People, story: Story, chance: random.Random) -> str:
    """Kill the controller or a worker that runs, after a while."""
    time.sleep(chance.uniform(0.1, 1.0))
    which = chance.choice(["controller", "worker", "worker"])

    def kill() -> Any:
        pods = us.pods(CONTROLLER, namespace=HOME) if which == "controller" else us.pods(story.labels)
        found = [pid for pod in pods if (pid := us.process_of(pod)) is not None]
        if found:
            os.kill(chance.choice(found), signal.SIGKILL)
        return found

    eventually(kill, f"a {which} runs")
    return which
