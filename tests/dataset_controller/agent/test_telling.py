"""What is told, when, and without which words; pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from cache_runtime import LoadProgress
from dataset_controller.agent.hits import HitWindow, Lookups
from dataset_controller.agent.loads import progress_fields
from dataset_controller.agent.statuses import Subject, dataset_status
from dataset_controller.agent.syncing import Report, Version
from dataset_controller.agent.telling import Teller
from dataset_controller.agent.troubles import Trouble, redacted
from dataset_controller.model import Dataset
from dataset_controller.operator.queueing import Key
from versioning import CommitId

if TYPE_CHECKING:
    from pathlib import Path

KEY = Key("Dataset", "ml", "a")
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def dataset(**options: Any) -> Dataset:
    place = {"uri": "s3://lake/a/", "options": options, "secretRef": {"name": "s3"}}
    spec = {
        "mounts": [{"name": "raw", "path": "", **place}],
        "repo": {"uri": "s3://repos/a/"},
        "sync": {"interval": "10s"},
    }
    return Dataset.model_validate(
        {"apiVersion": "forebay.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "a"}, "spec": spec}
    )


class Target:
    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.fails = 0

    def tell(self, key: Key, status: dict[str, Any]) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("away")
        self.told.append(status)


class Clock:
    """Each look takes time, so that a wait for what is not due yet ends."""

    def __init__(self, step: float) -> None:
        self.now = 100.0
        self._step = step

    def __call__(self) -> float:
        self.now += self._step
        return self.now


@given(st.lists(st.tuples(st.sampled_from(["version", "cache"]), st.integers(0, 3), st.booleans()), max_size=20))
def test_what_is_told_last_is_what_was_noted_last_and_nothing_is_told_twice(
    notes: list[tuple[str, int, bool]],
) -> None:
    target, clock = Target(), Clock(2.0)
    teller = Teller(target, clock)
    teller.begin(KEY, {})
    wanted: dict[str, Any] = {}
    for part, number, fails in notes:
        wanted[part] = number
        target.fails = int(fails)
        teller.note(KEY, part, {part: number})
        teller.work()
    for _ in range(4):
        target.fails = 0
        clock.now += 200
        teller.work()
    assert target.told[-1:] == ([wanted] if wanted else [])
    assert all(before != after for before, after in zip(target.told, target.told[1:], strict=False))


def test_another_look_alone_is_told_only_now_and_then() -> None:
    target, clock = Target(), Clock(0.3)
    teller = Teller(target, clock)
    teller.begin(KEY, {})
    for second in range(3):
        teller.note(KEY, "version", {"revision": "r", "lastSyncTime": str(second)})
        teller.work()
    assert target.told == [{"revision": "r", "lastSyncTime": "0"}]
    clock.now += 10
    teller.work()
    assert target.told[-1]["lastSyncTime"] == "2"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1, max_size=20))
def test_hits_are_counted_across_restarts(steps: list[tuple[int, int, bool]]) -> None:
    window, life = HitWindow(), 0
    window.note(0.0, {"w": Lookups("0", 0, 0)})
    hits = misses = total_hits = total_misses = 0
    for at, (more_hits, more_misses, restarts) in enumerate(steps):
        if restarts:
            life, hits, misses = life + 1, 0, 0
        hits, misses = hits + more_hits, misses + more_misses
        total_hits, total_misses = total_hits + more_hits, total_misses + more_misses
        window.note(float(at), {"w": Lookups(str(life), hits, misses)})
    reads = total_hits + total_misses
    assert window.percent() == (round(100 * total_hits / reads) if reads else None)


def test_no_secret_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "s3"
    secret.mkdir()
    (secret / "secret").write_text("hidden-in-a-file\n")
    declared = dataset(key="hidden-key", client={"password": "hidden-password"}, endpoint_url="http://store")
    message = "http://user:word@host: hidden-key hidden-password hidden-in-a-file at http://store"
    assert redacted(message, declared, tmp_path) == "http://***@host: *** *** *** at http://store"


def test_a_source_that_is_away_takes_no_number_with_it_and_its_time_stays() -> None:
    good = Report(Version(CommitId("c" * 64), 3, 30), is_synced=True)
    first = dataset_status(Subject(dataset(), 1, {}), good, NOW)
    away = Report(None, repository=Trouble("Unreachable", "away"))
    second = dataset_status(Subject(dataset(), 1, first), away, NOW + timedelta(seconds=60))
    third = dataset_status(Subject(dataset(), 1, second), away, NOW + timedelta(seconds=120))
    assert second["files"] == 3
    assert second["lastSyncTime"] == first["lastSyncTime"]
    assert third == second
    ready = next(each for each in third["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"], ready["lastTransitionTime"]) == (
        "False",
        "Unreachable",
        "2026-11-22T00:01:00Z",
    )


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_a_load_that_runs_is_never_at_100_percent(done: int, total: int) -> None:
    now = LoadProgress(min(done, total), total, 0, 1, 0, 1.0, 0)
    assert 0 <= progress_fields(now)["percent"] <= 99
