"""Operations on one machine: the YAML of a cluster, planned by the operator's planner, done by `ds apply`."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import ds
from dataset_controller.operations import DataPack
from ds.application import run
from ds.errors import OperationError
from ds.operations.journals import KeptJournals
from ds.operations.local import local_operations
from ds.operations.packs import run_pack
from ds.settings import current_settings
from loaders import PackOptions

if TYPE_CHECKING:
    from pathlib import Path

    from dataset_controller.embedded_operations import LocalOperations

API = "forebay.dev/v1alpha1"
COPIES = "import os, pathlib, shutil; i, o = (pathlib.Path(os.environ[f'FOREBAY_{n}']) for n in ('INPUT', 'OUTPUT'));"
UPPER = f"{COPIES} [(o / p.name).write_text(p.read_text().upper()) for p in sorted(i.rglob('*.txt'))]"


class Laptop:
    """A dataset in directories, and what is applied beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "raw").mkdir()
        for number in range(20):
            (directory / "raw" / f"{number:02}.txt").write_text(f"text {number} " * 50)
        tiers = [{"path": str(directory / "cache"), "capacity": "64Mi"}]
        self.apply("CacheRuntime", "local", {"tiers": tiers})
        self.apply("Dataset", "texts", self.dataset("texts", mounts=True))
        assert run(["import", "-d", "texts"]) == 0
        assert run(["commit", "-d", "texts", "-m", "first"]) == 0

    def dataset(self, name: str, *, mounts: bool = False) -> dict[str, Any]:
        mount = {"name": "raw", "uri": f"file://{self.directory}/raw", "path": "raw"}
        return {
            "mounts": [mount] if mounts else [],
            "repo": {"uri": f"file://{self.directory}/repo-{name}"},
            "cache": {"runtimeRef": {"name": "local"}},
        }

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> int:
        file = self.directory / "applied.yaml"
        document = {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
        file.write_text(yaml.safe_dump(document))
        return run(["apply", "-f", str(file)])

    @property
    def plane(self) -> LocalOperations:
        return local_operations(current_settings())

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.plane.document(name)["status"]
        return found

    def condition(self, name: str, kind: str = "Complete") -> dict[str, Any]:
        return next(each for each in self.status(name)["conditions"] if each["type"] == kind)

    def again(self, revision: str = "main") -> str:
        """Commit one more file, and return the commit."""
        number = len(list((self.directory / "raw").iterdir()))
        (self.directory / "raw" / f"{number:02}.txt").write_text(f"text {number}")
        assert run(["import", "-d", "texts"]) == 0
        assert run(["commit", "-d", "texts", "-m", "more"]) == 0
        return str(ds.Dataset("texts").resolve(revision))


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    return Laptop(tmp_path)


def program(script: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "work", "command": [sys.executable, "-c", script]}]}}


def test_a_load_is_in_the_cache_and_told_as_in_a_cluster(laptop: Laptop) -> None:
    assert laptop.apply("DataLoad", "warm", {"dataset": {"name": "texts"}, "include": ["raw/0*"]}) == 0
    status = laptop.status("DataLoad/warm")
    assert (status["phase"], status["percent"], status["filesTotal"], status["run"]) == ("Succeeded", 100, 10, 1)
    assert status["revision"] == ds.Dataset("texts").head()
    assert laptop.condition("DataLoad/warm")["status"] == "True"
    assert [each["reason"] for each in laptop.plane.events("DataLoad/warm")] == ["Started", "Succeeded"]
    assert laptop.apply("DataLoad", "warm", {"dataset": {"name": "texts"}, "include": ["raw/0*"]}) == 0
    assert laptop.status("DataLoad/warm")["run"] == 1


def test_a_pack_is_one_commit_of_the_same_content_and_follows_its_revision(laptop: Laptop) -> None:
    spec = {"dataset": {"name": "texts"}, "branch": "packed", "shardSize": "1Mi", "shuffleSeed": 7}
    assert laptop.apply("DataPack", "shards", spec) == 0
    texts = ds.Dataset("texts")
    first, status = texts.resolve("main"), laptop.status("DataPack/shards")
    assert status["phase"] == "Succeeded", status
    assert (status["phase"], status["percent"], status["shardsDone"], status["commit"], status["revision"]) == (
        "Succeeded", 100, 1, texts.resolve("packed"), first,
    )  # fmt: skip
    commit = texts.repository.commit(texts.resolve("packed"))
    assert commit.lineage == {"inputs": [f"ds://texts@{first}"]}
    assert commit.parents == (first,)
    assert texts.diff("main", "packed").only("A", "M", "D").table.num_rows == 0
    assert "forebay-pack-shards" not in texts.repository.branches()
    second = laptop.again()
    assert laptop.apply("DataPack", "shards", {**spec, "shardSize": "2Mi"}) == 0
    assert texts.diff("main", "packed").only("A", "M", "D").table.num_rows == 0
    assert laptop.status("DataPack/shards")["revision"] == second
    assert texts.repository.commit(texts.resolve("packed")).lineage == {"inputs": [f"ds://texts@{second}"]}


class Asked:
    """A DataPack that a pod was made for; what it tells is remembered."""

    def __init__(self, spec: dict[str, Any]) -> None:
        document = {"apiVersion": API, "kind": "DataPack", "metadata": {"name": "shards"}, "spec": spec}
        self.operation = DataPack.model_validate(document)
        self.status: dict[str, Any] = {}

    def tell(self, status: dict[str, Any]) -> None:
        self.status = status

    def tell_once(self, status: dict[str, Any]) -> bool:
        return bool(status)


class Ending(threading.Event):
    """A pod that is told to end after so many questions whether it is."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("after", [2, 6, 8])
def test_a_pack_whose_pod_is_gone_goes_on_in_another_one(laptop: Laptop, after: int) -> None:
    for number in range(20):
        (laptop.directory / "raw" / f"{number:02}.txt").write_bytes(bytes([number]) * 300_000)
    laptop.again()
    texts = ds.Dataset("texts")
    asked = Asked({"dataset": {"name": "texts"}, "branch": "packed", "shardSize": "1Mi"})
    with pytest.raises(OperationError, match="the next run goes on with it"):
        run_pack(asked, current_settings(), cancel=Ending(after))
    assert texts.repository.head("packed") is None
    shutil.rmtree(laptop.directory / "home" / "operations")  # with its pod
    kept = KeptJournals(texts.repository, asked.operation, laptop.directory / "looked")
    kept.fetch()
    plan = texts.plan_pack(
        "forebay-pack-shards",
        layout=texts.shard_layout(shard_size=1 << 20),
        options=PackOptions(journals=kept.directory),
    )
    assert plan.stored_shards == after // 2  # it asks twice before the first shard and after each
    run_pack(asked, current_settings(), cancel=threading.Event())
    assert texts.diff("main", "packed").only("A", "M", "D").table.num_rows == 0
    assert asked.status["percent"] == 100
    assert asked.status["shardsDone"] == asked.status["shardsTotal"] == plan.shards
    assert not list((laptop.directory / "repo-texts" / "operations").rglob("*.journal"))


def test_a_process_replaces_its_output_with_what_it_left(laptop: Laptop) -> None:
    spec = {"dataset": {"name": "texts"}, "output": "upper", "include": ["raw/1*"], "template": program(UPPER)}
    assert laptop.apply("DataProcess", "upper", spec) == 0
    texts = ds.Dataset("texts")
    head = texts.resolve("main")
    status = laptop.status("DataProcess/upper")
    assert (status["phase"], status["commit"], status["percent"]) == ("Succeeded", head, 100)
    assert texts.open("upper/12.txt").read() == b"TEXT 12 " * 50
    commit = texts.repository.commit(head)
    assert commit.lineage == {"inputs": [f"ds://texts@{commit.parents[0]}"]}
    assert laptop.apply("DataProcess", "upper", {**spec, "include": ["raw/13.txt"]}) == 0
    names = [path for table in ds.Dataset("texts").tree("main").scan_at("upper") for path in table["path"].to_pylist()]
    assert names == ["upper/13.txt"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("raise SystemExit('no luck')", "ended with 1: no luck"),
        ("pass", "wrote nothing into the directory FOREBAY_OUTPUT"),
        (f"{COPIES} (o / 'x').symlink_to('/etc/hostname')", "x in FOREBAY_OUTPUT is a link"),
    ],
)
def test_a_process_that_fails_commits_nothing_and_says_why(laptop: Laptop, script: str, says: str) -> None:
    before = ds.Dataset("texts").resolve("main")
    spec = {"dataset": {"name": "texts"}, "output": "out", "retries": 0, "template": program(script)}
    assert laptop.apply("DataProcess", "bad", spec) == 1
    complete = laptop.condition("DataProcess/bad")
    assert (laptop.status("DataProcess/bad")["phase"], complete["status"]) == ("Failed", "False")
    assert says in complete["message"]
    assert "a change of the spec begins it again" in complete["message"]
    assert ds.Dataset("texts").resolve("main") == before


def test_a_deadline_ends_what_takes_longer(laptop: Laptop) -> None:
    template = program("import time; time.sleep(600)")
    spec = {"dataset": {"name": "texts"}, "output": "out", "deadline": "1s", "template": template}
    assert laptop.apply("DataProcess", "slow", spec) == 1
    assert "DeadlineExceeded" in laptop.condition("DataProcess/slow")["message"]


def test_a_migration_copies_what_is_missing_or_other_and_verifies(laptop: Laptop) -> None:
    there = laptop.directory / "there"
    target = {"uri": f"file://{there}"}
    source = {"dataset": {"name": "texts"}, "path": "raw"}
    assert laptop.apply("DataMigrate", "out", {"source": source, "target": target}) == 0
    status = laptop.status("DataMigrate/out")
    assert (status["phase"], status["filesDone"], status["filesTotal"], status["percent"]) == ("Succeeded", 20, 20, 100)
    assert {each.name: each.read_text() for each in there.iterdir()} == {
        each.name: each.read_text() for each in (laptop.directory / "raw").iterdir()
    }
    assert laptop.apply("Dataset", "copies", laptop.dataset("copies")) == 0
    spec = {"source": target, "target": {"dataset": {"name": "copies"}, "path": "in"}}
    assert laptop.apply("DataMigrate", "back", spec) == 0
    copies = ds.Dataset("copies")
    assert laptop.status("DataMigrate/back")["commit"] == copies.resolve("main")
    assert copies.open("in/07.txt").read() == (there / "07.txt").read_bytes()
    (there / "07.txt").write_text("another one")
    assert laptop.apply("DataMigrate", "back", {**spec, "deadline": "1h"}) == 0
    assert copies.open("in/07.txt").read() == b"another one"
    diff = copies.diff("main~1", "main")
    assert diff.table["path"].to_pylist() == ["in/07.txt"]
    assert copies.repository.branches().keys() == {"main"}
    between = {"source": {"dataset": {"name": "copies"}}, "target": {"dataset": {"name": "texts"}, "revision": "other"}}
    assert laptop.apply("DataMigrate", "between", between) == 0
    texts = ds.Dataset("texts")
    found = texts.repository.commit(texts.resolve("other"))
    assert found.lineage == {"inputs": [f"ds://copies@{copies.resolve('main')}"]}
    assert texts.tree("other").rows == 20


def test_what_runs_after_waits_and_a_circle_is_refused_by_name(laptop: Laptop) -> None:
    load = {"dataset": {"name": "texts"}}
    assert laptop.apply("DataLoad", "last", {**load, "runAfter": [{"kind": "DataLoad", "name": "first"}]}) == 1
    assert laptop.condition("DataLoad/last")["reason"] == "NoSuchPredecessor"
    assert laptop.apply("DataLoad", "first", {**load, "runAfter": [{"kind": "DataLoad", "name": "last"}]}) == 1
    circle = "DataLoad/last waits for DataLoad/first waits for DataLoad/last, for ever"
    assert circle in laptop.condition("DataLoad/last")["message"]
    assert laptop.condition("DataLoad/first", "SpecApplied")["status"] == "False"
    assert laptop.apply("DataLoad", "first", load) == 0
    assert laptop.status("DataLoad/first")["phase"] == laptop.status("DataLoad/last")["phase"] == "Succeeded"


def test_get_shows_the_columns_of_the_cluster(laptop: Laptop, capsys: pytest.CaptureFixture[str]) -> None:
    laptop.apply("DataLoad", "warm", {"dataset": {"name": "texts"}})
    capsys.readouterr()
    assert run(["get", "load"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "DATASET", "REVISION", "PROGRESS", "RATE", "ETA", "FAILED", "PHASE", "AGE"]
    assert row.split()[:4] == ["warm", "texts", "main", "100"]
    assert "Succeeded" in row.split()
    assert run(["describe", "load/warm", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["status"]["phase"] == "Succeeded"
    assert [each["reason"] for each in told["events"]] == ["Started", "Succeeded"]
    assert run(["delete", "texts"]) != 0  # it is in use
    assert "DataLoad/warm" in capsys.readouterr().err
    assert run(["delete", "load/warm"]) == run(["delete", "texts"]) == 0


def test_a_schedule_begins_when_watch_sees_its_time(laptop: Laptop, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"dataset": {"name": "texts"}, "schedule": {"cron": "0 3 * * *"}}
    assert laptop.apply("DataLoad", "nightly", spec) == 0  # nothing is wrong with waiting
    status = laptop.status("DataLoad/nightly")
    assert (status["phase"], laptop.condition("DataLoad/nightly")["reason"]) == ("Pending", "Scheduled")
    later = datetime.fromisoformat(status["nextTime"]) + timedelta(seconds=1)
    laptop.plane.work_off("DataLoad/nightly", lambda: later)
    assert laptop.status("DataLoad/nightly")["phase"] == "Succeeded"
    capsys.readouterr()
    assert run(["watch", "load", "--seconds", "0"]) == 0
    assert "nightly" in capsys.readouterr().out
