"""From an empty cluster to a job that trains, and back: what the guide to Kubernetes tells."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sources import open_store
from tests.dataset_controller.scenarios.people import People, eventually, people
from tests.services import helm
from tests.services.kube import missing
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[3]
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
            for log, text in all_of_us.said(most=1500).items():  # pytest shows it where a test failed
                print(f"== {log}\n{text}")


def put(us: People, name: str, seed: int) -> None:
    """Put a file into the bucket."""
    open_store("s3://raw", us.s3.options).put(f"scenes/{name}", random.Random(seed).randbytes(FILE_BYTES))


def conditions(us: People, kind: str, name: str) -> dict[str, str]:
    """Return how each condition of an object stands."""
    return {each["type"]: each["status"] for each in us.status(kind, name).get("conditions") or []}


def worker_pods(us: People) -> list[str]:
    """Return the names of the pods of the cache."""
    names = us.kubectl("get", "pods", "-l", "forebay.dev/runtime=nvme", "-o", "name").split()
    return sorted(name.partition("/")[2] for name in names)


def wait_for_workers(us: People, count: int) -> None:
    """Wait until the cache has so many workers, all ready."""
    eventually(lambda: us.row("cache", "nvme")["WORKERS"] == str(count), f"{count} workers are ready")
    eventually(lambda: len(worker_pods(us)) == count, f"{count} pods of workers")


def train(us: People, *, files: int) -> None:
    """Run the job of the guide, and look at what it read."""
    us.apply("train.yaml")
    eventually(lambda: us.status("job", "train").get("succeeded"), "the job ended")
    (pod,) = us.kubectl("get", "pods", "-l", "job-name=train", "-o", "name").split()
    uid = us.get("pod", pod.partition("/")[2])["metadata"]["uid"]
    (log,) = us.directory.glob(f"nodes/*/pods/{uid}/logs/train.log")
    assert log.read_text() == f"{files} files, {files * FILE_BYTES} bytes\n"
    us.kubectl("delete", "job", "train")


def apply_and_load(us: People) -> None:
    """Apply everything at once, and see the numbers move."""
    for number in range(FILES):
        put(us, f"{number:03}.bin", number)
    for file in ("load.yaml", "dataset.yaml", "cache.yaml"):  # in no sensible order
        us.apply(file)
    eventually(lambda: us.status("dset", "scenes").get("files") == FILES, "the files are counted")
    eventually(lambda: us.status("load", "warm").get("phase") == "Succeeded", "everything is loaded")
    shown = us.row("load", "warm")
    assert (shown["PROGRESS"], shown["FAILED"], shown["DATASET"]) == ("100", "0", "scenes")
    wait_for_workers(us, 2)
    eventually(lambda: us.row("dset", "scenes")["%"] == "100", "the dataset is shown as cached")
    row = us.row("dset", "scenes")
    assert (row["FILES"], row["SIZE"], row["CACHED"]) == (str(FILES), *(2 * [str(FILES * FILE_BYTES)]))
    assert row["READY"] == "True"
    assert row["REVISION"] == us.status("load", "warm")["revision"]
    eventually(lambda: int(us.row("cache", "nvme")["USED"] or 0) >= FILES * FILE_BYTES, "the cache is shown as used")
    for kind, name in (("dset", "scenes"), ("cache", "nvme"), ("load", "warm")):
        assert conditions(us, kind, name)["SpecApplied"] == "True"
    story = us.kubectl("describe", "load", "warm")
    assert "Started" in story
    assert "Succeeded" in story


def test_the_operator_runs_with_its_own_rights_and_they_are_no_more_than_it_needs(us: People) -> None:
    us.kubectl("rollout", "status", "deployment/forebay-controller", "--timeout=60s", namespace="forebay-system")

    refused = {(verb, "secrets") for verb in ("get", "list", "watch", "delete", "patch")}
    refused |= {("create", "pods"), ("create", "pods/exec"), ("delete", "datasets.forebay.dev"), ("get", "nodes")}
    assert {each for each in refused if us.may(*each, who=OPERATOR)} == set()
    assert us.may("create", "secrets", who=OPERATOR)
    assert us.may("patch", "datasets.forebay.dev/status", who=OPERATOR)


def test_the_chart_and_the_definitions_are_accepted_by_the_server(us: People) -> None:
    require(helm.missing())
    us.kubectl("create", "namespace", "here")
    try:
        for path, text in helm.template(ROOT / "deploy" / "helm" / "forebay", {"csi": {"enabled": True}}).items():
            if path.endswith(".yaml"):
                us.kubectl("apply", "--dry-run=server", "-f", "-", given=text, namespace="here")
        # with rules that this server does not know
        us.kubectl("apply", "--dry-run=server", "--validate=false", "-f", str(ROOT / "deploy" / "crds"))
    finally:
        us.kubectl("delete", "namespace", "here", "--wait=false")


def test_from_yaml_to_training_and_back_to_nothing(us: People) -> None:
    apply_and_load(us)
    first, read = us.status("dset", "scenes")["revision"], us.s3.sent_bytes("raw")
    assert read >= FILES * FILE_BYTES
    train(us, files=FILES)
    assert us.s3.sent_bytes("raw") == read

    put(us, "new.bin", FILES)
    eventually(lambda: us.status("dset", "scenes").get("files") == FILES + 1, "the new file is a commit")
    assert us.status("dset", "scenes")["revision"] != first
    train(us, files=FILES + 1)
    assert us.s3.sent_bytes("raw") == read + FILE_BYTES  # the new file, once

    us.kubectl("delete", "pod", "nvme-workers-0", "--grace-period=0", "--force")
    eventually(lambda: worker_pods(us) == ["nvme-workers-0", "nvme-workers-1"], "the killed worker is back")
    wait_for_workers(us, 2)
    train(us, files=FILES + 1)
    for replicas in (3, 2):
        us.kubectl("scale", "cache", "nvme", f"--replicas={replicas}")
        wait_for_workers(us, replicas)
        train(us, files=FILES + 1)
    assert us.s3.sent_bytes("raw") == read + FILE_BYTES

    for kind, name in (("cache", "nvme"), ("dset", "scenes"), ("load", "warm"), ("secret", "s3")):
        us.kubectl("delete", kind, name)
    eventually(lambda: not us.left(), "nothing is left")
    assert [line for text in us.said().values() for line in text.splitlines() if "forbidden" in line.lower()] == []
