"""The agent's engine, against a real S3 and without Kubernetes."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dataset_controller.agent.engine import Engine
from dataset_controller.agent.statuses import Subject
from dataset_controller.agent.telling import Teller
from dataset_controller.model import Dataset
from dataset_controller.operator.queueing import Key
from sources import open_store
from tests.services.faults import fault_proxy
from tests.services.weed import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.services.weed import S3Server

SECONDS = 100


class Told:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.statuses: dict[str, dict[str, Any]] = {}
        self.count = 0
        self.events: list[tuple[str, str, str]] = []

    def tell(self, key: Key, status: dict[str, Any]) -> None:
        self.statuses[key.name] = status
        self.count += 1

    def event(self, key: Key, reason: str, message: str, *, is_warning: bool = False) -> None:
        self.events.append((key.name, reason, message))

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        found = self.statuses.get(name, {}).get("conditions", [])
        return next((each for each in found if each["type"] == kind), {"status": "", "reason": "", "message": ""})


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3"), buckets=("lake", "repos")) as server:
        yield server


def dataset(s3: S3Server, name: str, **spec: Any) -> Dataset:
    options = {"endpoint_url": s3.endpoint}
    mount = {"name": "raw", "uri": f"s3://lake/{name}/", "path": "raw/", "options": options}
    repo = {"uri": f"s3://repos/{name}/", "options": options}
    for place in (mount, repo):
        place["secretRef"] = {"name": "s3"}
    document = {"mounts": [mount], "repo": repo, "sync": {"interval": "1s"}, **spec}
    return Dataset.model_validate(
        {"apiVersion": "forebay.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name}, "spec": document}
    )


def put(s3: S3Server, key: str, data: bytes) -> None:
    store: Any = open_store("s3://lake/", s3.options)
    store.put(key, data)


def delete(s3: S3Server, key: str) -> None:
    store: Any = open_store("s3://lake/", s3.options)
    store.delete(key)


@pytest.fixture
def home(tmp_path: Path, s3: S3Server) -> Path:
    secret = tmp_path / "secrets" / "s3"
    secret.mkdir(parents=True)
    (secret / "key").write_text(s3.key)
    (secret / "secret").write_text(s3.secret)
    return tmp_path


@contextmanager
def running(home: Path, told: Told) -> Iterator[Callable[[Dataset, int], None]]:
    """Run an engine; yields what declares a dataset to it."""
    teller = Teller(told)
    engine = Engine(home, teller, told)
    stopping = threading.Event()

    def repeat(work: Callable[[], None]) -> None:
        while not stopping.is_set():
            work()

    works = (engine.work, engine.work, teller.work)
    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()

    def declare(each: Dataset, generation: int = 1) -> None:
        key = Key("Dataset", "ml", each.metadata.name)
        teller.begin(key, {})
        engine.put(key, Subject(each, generation, {}))

    try:
        yield declare
    finally:
        stopping.set()
        engine.close()
        teller.close()
        for thread in threads:
            thread.join(20)


def eventually(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_what_changes_in_a_source_becomes_commits_and_nothing_else_does(home: Path, s3: S3Server) -> None:
    told = Told()
    put(s3, "cats/1.bin", b"1" * 10)
    put(s3, "cats/2.bin", b"2" * 20)
    with running(home, told) as declare:
        declare(dataset(s3, "cats"), 1)
        first = eventually(lambda: told.statuses.get("cats", {}).get("revision"))
        assert (told.statuses["cats"]["files"], told.statuses["cats"]["sizeBytes"]) == (2, 30)
        assert told.condition("cats", "Ready")["status"] == "True"
        time.sleep(2.5)  # several looks
        assert told.statuses["cats"]["revision"] == first
        assert told.count <= 2  # a look that finds nothing new tells nothing, for ten seconds

        put(s3, "cats/3.bin", b"3" * 30)
        put(s3, "cats/2.bin", b"22")
        delete(s3, "cats/1.bin")
        eventually(lambda: told.statuses["cats"]["files"] == 2 and told.statuses["cats"]["sizeBytes"] == 32)
    messages = [message for _, reason, message in told.events if reason == "Committed"]
    assert "2 added" in messages[0]
    assert sum("deleted" in message for message in messages) == 1


def test_a_source_that_lost_all_its_files_deletes_none(home: Path, s3: S3Server) -> None:
    told = Told()
    put(s3, "dogs/1.bin", b"1")
    with running(home, told) as declare:
        declare(dataset(s3, "dogs"), 1)
        eventually(lambda: told.statuses.get("dogs", {}).get("revision"))
        delete(s3, "dogs/1.bin")
        eventually(lambda: told.condition("dogs", "Synced")["reason"] == "EmptySource")
        assert "mount 'raw'" in told.condition("dogs", "Synced")["message"]
        assert told.statuses["dogs"]["files"] == 1
        put(s3, "dogs/2.bin", b"2")
        eventually(lambda: told.condition("dogs", "Synced")["status"] == "True")
        assert told.statuses["dogs"]["files"] == 1


def test_a_secret_that_comes_late_and_a_wrong_one_are_conditions_that_clear(home: Path, s3: S3Server) -> None:
    told, secret = Told(), home / "secrets" / "s3"
    put(s3, "late/1.bin", b"1")
    kept = secret.rename(home / "kept")
    with running(home, told) as declare:
        declare(dataset(s3, "late"), 1)
        trouble = eventually(lambda: told.condition("late", "RepositoryReady")["status"] == "False" and told)
        assert "'s3' is not there" in trouble.condition("late", "Ready")["message"]
        secret.mkdir()
        (secret / "key").write_text(s3.key)
        (secret / "secret").write_text("wrong-and-secret")
        eventually(lambda: told.condition("late", "RepositoryReady")["reason"] == "AccessDenied")
        assert "wrong-and-secret" not in str(told.statuses) + str(told.events)
        assert s3.key not in str(told.statuses) + str(told.events)
        (secret / "secret").write_text((kept / "secret").read_text())
        eventually(lambda: told.condition("late", "Ready")["status"] == "True")
    assert ("late", "Recovered", "AccessDenied is over") in told.events


@pytest.mark.skipif(not os.environ.get("FOREBAY_DEEP"), reason="a store is asked for half a minute before it is down")
def test_a_source_that_is_down_is_named_stops_no_other_and_comes_back(home: Path, s3: S3Server) -> None:
    told = Told()
    put(s3, "up/1.bin", b"1")
    put(s3, "down/1.bin", b"1")
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy, running(home, told) as declare:
        down = dataset(s3, "down")
        down.spec.mounts[0].options["endpoint_url"] = proxy.url
        declare(down, 1)
        declare(dataset(s3, "up"), 1)
        eventually(lambda: told.statuses.get("down", {}).get("revision"))
        proxy.refuse()
        eventually(lambda: told.condition("down", "SourcesReachable")["status"] == "False")
        assert "mount 'raw' (s3://lake/down/)" in told.condition("down", "SourcesReachable")["message"]
        assert told.statuses["down"]["files"] == 1  # what is known stays
        put(s3, "up/2.bin", b"2")
        eventually(lambda: told.statuses["up"]["files"] == 2)
        put(s3, "down/2.bin", b"2")
        proxy.heal()
        eventually(lambda: told.condition("down", "SourcesReachable")["status"] == "True")
        eventually(lambda: told.statuses["down"]["files"] == 2)


def test_a_source_that_is_away_is_named_stops_no_other_and_comes_back(home: Path, s3: S3Server) -> None:
    told, source = Told(), home / "disk"
    source.mkdir()
    (source / "1.bin").write_bytes(b"1")
    put(s3, "up/1.bin", b"1")
    with running(home, told) as declare:
        declare(dataset(s3, "disk", mounts=[{"name": "nfs", "uri": f"file://{source}", "path": ""}]), 1)
        declare(dataset(s3, "up"), 1)
        eventually(lambda: told.statuses.get("disk", {}).get("revision"))
        away = source.rename(home / "away")
        eventually(lambda: told.condition("disk", "SourcesReachable")["status"] == "False")
        assert "mount 'nfs'" in told.condition("disk", "SourcesReachable")["message"]
        assert told.statuses["disk"]["files"] == 1  # what is known stays
        files = eventually(lambda: told.statuses.get("up", {}).get("files"))
        put(s3, "up/another.bin", b"2")
        eventually(lambda: told.statuses["up"]["files"] == files + 1)
        away.rename(source)
        (source / "2.bin").write_bytes(b"2")
        eventually(lambda: told.condition("disk", "SourcesReachable")["status"] == "True")
        eventually(lambda: told.statuses["disk"]["files"] == 2)


def test_a_dataset_without_sync_shows_what_people_commit(home: Path, s3: S3Server) -> None:
    told = Told()
    put(s3, "hand/1.bin", b"1")
    with running(home, told) as declare:
        declare(dataset(s3, "hand", sync=None), 1)
        eventually(lambda: told.condition("hand", "RepositoryReady")["status"] == "True")
        assert told.condition("hand", "SourcesReachable")["status"] == "True"
        assert told.condition("hand", "Ready")["reason"] == "NoVersion"
        assert told.condition("hand", "Synced")["status"] == "Unknown"
