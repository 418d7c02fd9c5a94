"""What cannot be is said with its next step: by `ds apply`, and in a condition of the operator; nothing loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ds.application import run
from tests.dataset_controller.operator.test_shell import API, Server, operate

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("kubernetes")
TIERS = [{"path": "/cache", "capacity": "1Gi"}]
REPO = {"uri": "file:///nowhere/repo"}
RAW = {"name": "raw", "uri": "file:///nowhere/raw", "path": "a"}
LOAD = {"dataset": {"name": "digits"}}
PROGRAM = {"spec": {"containers": [{"name": "work", "command": ["true"]}]}}

# kind, spec; what the laptop says; condition and text of the operator
CASES: dict[str, tuple[str, dict[str, Any], str, tuple[str, str]]] = {
    "wrong field": (
        "Dataset",
        {"repo": REPO, "mount": []},
        "unknown field; did you mean 'mounts'?",
        ("SpecApplied", "spec.mount: this version does not know the field: install the operator of the definitions"),
    ),
    "wrong field of an operation": (
        "DataPack",
        {**LOAD, "branch": "packed", "shardsize": 1},
        "unknown field; did you mean 'shardSize'?",
        ("SpecApplied", "spec.shardsize: this version does not know the field"),
    ),
    "impossible capacity": (
        "CacheRuntime",
        {"tiers": [{"path": "/cache", "capacity": "0"}]},
        "Input should be greater than 0",
        ("SpecApplied", "spec.tiers[0].capacity: Input should be greater than 0; until that is mended"),
    ),
    "capacity that is none": (
        "CacheRuntime",
        {"tiers": [{"path": "/cache", "capacity": "much"}]},
        "expected a quantity such as 512Mi or 2Ti, found 'much'",
        ("SpecApplied", "expected a quantity such as 512Mi or 2Ti, found 'much'"),
    ),
    "unknown runtime": (
        "Dataset",
        {"repo": REPO, "cache": {"runtimeRef": {"name": "nvme"}}},
        "there is no CacheRuntime 'nvme'; declare it in the same file or apply it first",
        ("RuntimeFound", "no CacheRuntime nvme: apply one, or name another in spec.cache.runtimeRef"),
    ),
    "two mounts on one path": (
        "Dataset",
        {"repo": REPO, "mounts": [RAW, {**RAW, "name": "other"}]},
        "mounts 'raw' and 'other' overlap: /a/ lies in /a/; give each its own directory",
        ("SpecApplied", "give each its own directory; until that is mended, what was declared before stays in effect"),
    ),
    "an operation on no dataset": (
        "DataLoad",
        LOAD,
        "this namespace has no Dataset digits: apply it, or name another in spec.dataset",
        ("Complete", "this namespace has no Dataset digits: apply it, or name another in spec.dataset"),
    ),
    "an operation that waits for itself": (
        "DataMigrate",
        {
            "source": {"uri": "file:///a"}, "target": {"uri": "file:///b"},
            "runAfter": [{"kind": "DataMigrate", "name": "it"}],
        },
        "DataMigrate/it waits for itself; remove it from the list",
        ("SpecApplied", "DataMigrate/it waits for itself; remove it from the list"),
    ),
    "a place that is two": (
        "DataMigrate",
        {"source": {"uri": "file:///a", "dataset": {"name": "x"}}, "target": {"uri": "file:///b"}},
        "name either a dataset or a uri",
        ("SpecApplied", "spec.source: name either a dataset or a uri"),
    ),
    "no container": (
        "DataProcess",
        {**LOAD, "output": "out", "template": {"spec": {}}},
        "template.spec.containers needs a container",
        ("SpecApplied", "template.spec.containers needs a container"),
    ),
    "a schedule that means no time": (
        "DataLoad",
        {**LOAD, "schedule": {"cron": "61 * * * *"}},
        "names no time",
        ("SpecApplied", "names no time"),
    ),
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    return tmp_path


def apply(home: Path, kind: str, spec: dict[str, Any], version: str = API, name: str = "it") -> int:
    file = home / "it.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}))
    return run(["apply", "-f", str(file)])


@pytest.mark.parametrize("case", CASES)
def test_a_laptop_refuses_it_or_says_what_is_wrong(case: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, spec, says, _ = CASES[case]
    assert apply(home, kind, spec) != 0
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("case", CASES)
def test_the_operator_says_it_in_a_condition_and_rests(case: str) -> None:
    kind, spec, _, (condition, says) = CASES[case]
    server = Server()
    server.declare(kind, "it", spec)
    operate(server)  # it finds rest, or fails
    (found,) = [document for ref, document in server.objects.items() if ref.kind == kind]
    told = {each["type"]: each for each in found["status"]["conditions"]}
    assert told[condition]["status"] == "False"
    assert says in told[condition]["message"]
    assert not [ref for ref in server.objects if ref.kind == "Job"]


def test_a_file_of_a_newer_version_is_refused_with_what_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply(home, "Dataset", {"repo": REPO}, "forebay.dev/v1beta2") != 0
    assert "this forebay knows forebay.dev/v1alpha1, the file is of forebay.dev/v1beta2: install a newer one" in (
        capsys.readouterr().err
    )


def test_a_missing_secret_and_a_source_that_is_away_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = {"repo": {"uri": f"file://{home}/repo"}}
    mount = {"name": "raw", "uri": "s3://raw/x", "path": "", "options": {"endpoint_url": "http://127.0.0.1:9"}}
    assert apply(home, "Dataset", {**place, "mounts": [{**mount, "secretRef": {"name": "s3"}}]}) != 0
    assert "secret 's3' is not there" in capsys.readouterr().err
    assert apply(home, "Dataset", {**place, "mounts": [{**mount, "uri": f"file://{home}/away"}]}) != 0
    assert str(home / "away") in capsys.readouterr().err


def test_a_dataset_in_use_is_not_deleted_on_a_laptop_and_missed_by_name_in_a_cluster(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(home, "Dataset", {"repo": {"uri": f"file://{home}/repo"}}, name="digits") == 0
    apply(home, "DataProcess", {**LOAD, "output": "out", "template": PROGRAM, "suspend": True}, name="later")
    capsys.readouterr()
    assert run(["delete", "digits"]) != 0
    said = capsys.readouterr().err
    assert "dataset 'digits' is used by DataProcess/later; delete that first: ds delete DataProcess/later" in said

    server = Server()
    server.declare("Dataset", "digits", {"repo": REPO})
    server.declare("DataPack", "shards", {**LOAD, "branch": "packed", "suspend": True})
    operate(server)
    for ref in [ref for ref in server.objects if ref.kind == "Dataset"]:
        del server.objects[ref]
    server.declare("DataPack", "shards", {**LOAD, "branch": "packed", "suspend": False})
    operate(server)
    (pack,) = [document for ref, document in server.objects.items() if ref.kind == "DataPack"]
    told = {each["type"]: each for each in pack["status"]["conditions"]}
    assert told["Complete"]["reason"] == "NoSuchDataset"
