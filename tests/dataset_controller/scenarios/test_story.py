"""From an empty cluster to a job that trains, and back: what the guide to Kubernetes tells."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from sources import open_store
from tests.dataset_controller.scenarios.people import People, eventually, people
from tests.services.kube import missing
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]
OPERATOR = "system:serviceaccount:forebay-system:forebay-controller"
FILES, FILE_BYTES = 40, 100_000


@pytest.fixture(scope="module")
def us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """People with three nodes, and the operator in its own namespace."""
    require(missing())
    subnets = [f"10.143.{number}.0/24" for number in (1, 2, 3)]
    with people(tmp_path_factory.mktemp("story"), nodes=["n1", "n2", "n3"], subnets=subnets) as all_of_us:
        try:
            yield all_of_us
        finally:
            print(all_of_us.logs())  # pytest shows it where a test failed


def put(us: People, name: str, seed: int) -> None:
    """Put a file into the bucket."""
    data = random.Random(seed).randbytes(FILE_BYTES)
    open_store("s3://raw", us.s3.options).put(f"scenes/{name}", data)


def is_true(us: People, kind: str, name: str, condition: str) -> bool:
    found = us.status(kind, name).get("conditions") or []
    return any(each["type"] == condition and each["status"] == "True" for each in found)


def train(us: People, *, files: int) -> None:
    """Run the job of the guide, and look at what it read."""
    us.apply("train.yaml")
    eventually(lambda: us.status("job", "train").get("succeeded"), "the job ended")
    assert us.kubectl("get", "pods", "-l", "job-name=train", "-o", "name").count("pod/") == 1
    uid = us.get("pod", us.kubectl("get", "pods", "-l", "job-name=train", "-o", "name").strip().partition("/")[2])[
        "metadata"
    ]["uid"]
    (log,) = us.directory.glob(f"nodes/*/pods/{uid}/logs/train.log")
    assert log.read_text() == f"{files} files, {files * FILE_BYTES} bytes\n"
    us.kubectl("delete", "job", "train")


def test_the_operator_runs_with_its_own_rights_and_they_are_no_more_than_it_needs(us: People) -> None:
    us.kubectl("rollout", "status", "deployment/forebay-controller", "--timeout=60s", namespace="forebay-system")

    refused = {(verb, "secrets") for verb in ("get", "list", "watch", "delete", "patch")}
    refused |= {("create", "pods"), ("create", "pods/exec"), ("delete", "datasets.forebay.dev"), ("get", "nodes")}
    assert {each for each in refused if us.may(*each, who=OPERATOR)} == set()
    assert us.may("create", "secrets", who=OPERATOR)
    assert us.may("patch", "datasets.forebay.dev/status", who=OPERATOR)


def test_from_yaml_to_training_and_back_to_nothing(us: People) -> None:
    for number in range(FILES):
        put(us, f"{number:03}.bin", number)
    us.apply("cache.yaml")
    us.apply("dataset.yaml")
    us.apply("load.yaml")
    eventually(lambda: us.status("dset", "scenes").get("files") == FILES, "the files are counted")
    revision = us.status("dset", "scenes")["revision"]
    eventually(lambda: us.status("load", "warm").get("phase") == "Succeeded", "everything is loaded")
    shown = us.row("load", "warm")
    assert (shown["PROGRESS"], shown["FAILED"], shown["DATASET"]) == ("100", "0", "scenes")
    eventually(lambda: is_true(us, "cache", "nvme", "Ready"), "the workers are ready")
    assert us.row("cache", "nvme")["WORKERS"] == "2"
    before = us.s3.sent_bytes("raw")
    assert before >= FILES * FILE_BYTES

    train(us, files=FILES)
    assert us.s3.sent_bytes("raw") == before

    put(us, "new.bin", FILES)
    eventually(lambda: us.status("dset", "scenes").get("files") == FILES + 1, "the new file is a commit")
    assert us.status("dset", "scenes")["revision"] != revision
    train(us, files=FILES + 1)
    after = us.s3.sent_bytes("raw")
    assert after == before + FILE_BYTES

    for replicas in (3, 2):
        us.kubectl("scale", "cache", "nvme", f"--replicas={replicas}")
        eventually(lambda: us.row("cache", "nvme")["WORKERS"] == str(replicas), f"{replicas} workers")  # noqa: B023
        eventually(lambda: len(us.kubectl("get", "pods", "-l", "forebay.dev/runtime=nvme", "-o", "name").split()) == replicas, "as many pods")  # noqa: B023
        train(us, files=FILES + 1)
    assert us.s3.sent_bytes("raw") == after

    for kind, name in (("load", "warm"), ("dset", "scenes"), ("cache", "nvme"), ("secret", "s3")):
        us.kubectl("delete", kind, name)
    eventually(lambda: not us.left(), "nothing is left")
