"""Plans of operations, against a cluster whose jobs end, vanish and are stopped while the plan is half done."""

from __future__ import annotations

import copy
import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dataset_controller.model import Dataset
from dataset_controller.operations import OPERATIONS, Operation, Schedule
from dataset_controller.operator.planning.actions import Apply, Ref
from dataset_controller.operator.planning.conditions import timestamp
from dataset_controller.operator.planning.cycles import cycle_of
from dataset_controller.operator.planning.operation import decide, plan_operation
from dataset_controller.operator.planning.runs import ObservedOperation, digest_of, last_run
from dataset_controller.operator.planning.scheduling import next_slot
from dataset_controller.runtime_model import CacheRuntime
from tests.dataset_controller.operator.models import FakeCluster

API = "forebay.dev/v1alpha1"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REF = Ref(API, "DataLoad", "ml", "warm")
CONTAINER = {"name": "work", "image": "theirs", "command": ["make"], "env": [{"name": "FOREBAY_INPUT", "value": "no"}]}
SPECS: dict[str, dict[str, Any]] = {
    "DataLoad": {"dataset": {"name": "digits"}},
    "DataPack": {"dataset": {"name": "digits"}, "branch": "packed"},
    "DataProcess": {
        "dataset": {"name": "digits"},
        "output": "out",
        "template": {"spec": {"containers": [CONTAINER], "nodeSelector": {"gpu": "yes"}}},
    },
    "DataMigrate": {
        "source": {"dataset": {"name": "digits"}},
        "target": {"uri": "s3://other/place", "secretRef": {"name": "other"}},
    },
}


def _model(model: Any, kind: str, name: str, spec: dict[str, Any]) -> Any:
    return model.model_validate({"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec})


DATASET = _model(
    Dataset, "Dataset", "digits", {"repo": {"uri": "s3://bucket/r"}, "cache": {"runtimeRef": {"name": "nvme"}}}
)
RUNTIME = _model(CacheRuntime, "CacheRuntime", "nvme", {"tiers": [{"path": "/disk", "capacity": "1Gi"}]})


class World:
    """A load, its jobs, and what is around them."""

    def __init__(self, spec: dict[str, Any], kind: str = "DataLoad") -> None:
        self.kind = kind
        self.ref = REF._replace(kind=kind)
        self.spec = {**SPECS[kind], **spec}
        self.generation = 1
        self.now = START
        self.cluster = FakeCluster()
        self.workers = 1
        self.has_dataset = True
        self.revision = "c1"
        self.loaded: str | None = None
        self.predecessors: dict[str, str | None] = {}
        self.cycle: tuple[str, ...] = ()
        self.refusal: str | None = None

    @property
    def operation(self) -> Operation:
        found: Operation = _model(OPERATIONS[self.kind], self.kind, "warm", self.spec)
        return found

    def observed(self) -> ObservedOperation:
        status = copy.deepcopy(self.cluster.statuses.get(self.ref, {}))
        if self.loaded is not None:  # told by the job itself
            status["revision"] = self.loaded
        metadata = {"name": "warm", "namespace": "ml", "uid": "u", "generation": self.generation}
        return ObservedOperation(
            {"apiVersion": API, "kind": self.kind, "metadata": metadata, "status": status},
            self.operation,
            datasets={"digits": DATASET} if self.has_dataset else {},
            revisions={"digits": self.revision} if self.has_dataset else {},
            runtime=RUNTIME,
            ready_workers=self.workers,
            predecessors=self.predecessors,
            cycle=self.cycle,
            objects=copy.deepcopy(self.cluster.objects),
            refusal=self.refusal,
        )

    def plan(self, stops_after: int | None = None) -> bool:
        """Plan and do; say whether anything was planned."""
        actions = plan_operation(self.observed(), self.now)
        for action in actions[:stops_after]:
            if isinstance(action, Apply) and (job := self.cluster.objects.get(Ref.of(action.document))) is not None:
                assert job["spec"]["template"] == action.document["spec"]["template"], "jobs do not change"
            self.cluster.do(action)
        return bool(actions)

    def settle(self) -> None:
        for _ in range(6):
            if not self.plan():
                return
        raise AssertionError(plan_operation(self.observed(), self.now))

    @property
    def status(self) -> dict[str, Any]:
        return self.cluster.statuses[self.ref]

    def running(self) -> list[dict[str, Any]]:
        return [job for job in self.cluster.objects.values() if not job["status"].get("conditions")]

    def end(self, kind: str) -> None:
        for job in self.running():
            done = timestamp(self.now)
            job["status"] = {"startTime": done, "conditions": [{"type": kind, "status": "True", "reason": "Because"}]}
            if kind == "Complete":
                job["status"]["completionTime"] = done
                self.loaded = self.revision

    def edit(self, **spec: Any) -> None:
        self.spec = {**self.spec, **spec}
        self.generation += 1


class Loads(RuleBasedStateMachine):
    """Whatever happens, there is at most one job that runs, and it is of what is declared."""

    @initialize(
        schedule=st.sampled_from([None, {"cron": "*/5 * * * *"}, {"cron": "*/5 * * * *", "history": 0}]),
        kind=st.sampled_from(sorted(OPERATIONS)),
    )
    def begin(self, schedule: dict[str, Any] | None, kind: str) -> None:
        self.world = World({"schedule": schedule} if schedule else {}, kind)
        self.changed_hands = False

    @rule(after=st.integers(0, 3))
    def killed_in_the_middle(self, after: int) -> None:
        self.world.plan(after)

    @rule(kind=st.sampled_from(["Complete", "Failed"]))
    def job_ends(self, kind: str) -> None:
        self.world.end(kind)

    @rule()
    def jobs_are_deleted(self) -> None:
        self.world.cluster.objects.clear()

    @rule(minutes=st.integers(1, 12))
    def time_passes(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)

    @rule(deadline=st.sampled_from(["1h", "2h"]), suspend=st.booleans())
    def spec_changes(self, deadline: str, suspend: bool) -> None:
        self.world.edit(deadline=deadline, suspend=suspend)

    @rule(cycle=st.sampled_from([(), ("DataLoad/warm", "DataLoad/warm")]))
    def circle_is_closed_or_opened(self, cycle: tuple[str, ...]) -> None:
        self.world.cycle = cycle

    @rule(workers=st.integers(0, 2), has_dataset=st.booleans())
    def surroundings_change(self, workers: int, has_dataset: bool) -> None:
        self.world.workers, self.world.has_dataset = workers, has_dataset

    @rule(revision=st.sampled_from(["c1", "c2"]))
    def dataset_changes(self, revision: str) -> None:
        self.world.revision = revision

    @invariant()
    def settles(self) -> None:
        if not hasattr(self, "world"):
            return
        world = copy.deepcopy(self.world)
        world.settle()
        running = world.running()
        assert len(running) <= 1
        if world.operation.spec.suspend:
            assert not running
        for job in running:
            assert job["metadata"]["annotations"]["forebay.dev/spec-digest"] == digest_of(world.operation)
        assert (world.status["phase"] == "Running") == bool(running)

    @precondition(lambda self: hasattr(self, "world"))
    @rule()
    def ends_well_if_nothing_keeps_it(self) -> None:
        world = copy.deepcopy(self.world)
        world.workers, world.has_dataset, world.cycle = 1, True, ()
        if world.operation.spec.schedule is not None or world.operation.spec.suspend:
            return
        world.settle()
        if world.status["phase"] == "Failed":
            return
        world.end("Complete")
        world.settle()
        world.now += timedelta(days=1)
        world.settle()
        assert world.status["phase"] == "Succeeded"
        assert not world.running()


Loads.TestCase.settings = settings(
    max_examples=400 if os.environ.get("FOREBAY_DEEP") == "1" else 40, stateful_step_count=20, deadline=None
)
test_loads = Loads.TestCase


def test_a_run_that_fails_is_told_and_begins_again_when_the_specification_changes() -> None:
    world = World({})
    world.settle()
    world.end("Failed")
    world.settle()
    assert world.status["phase"] == "Failed"
    (complete, _) = world.status["conditions"]
    assert "kubectl logs job/warm-load-1" in complete["message"]
    world.edit(include=["a/*"])
    world.settle()
    assert (world.status["phase"], world.status["run"]) == ("Running", 2)
    assert len(world.cluster.objects) == 1  # the job before it is gone


def test_a_run_whose_job_is_refused_has_not_begun() -> None:
    world = World({"schedule": {"cron": "0 * * * *"}})
    world.settle()
    world.now += timedelta(hours=1)
    world.refusal = "quota exceeded"
    (job, *told) = plan_operation(world.observed(), world.now)
    for action in told:
        world.cluster.do(action)
    assert (world.status["phase"], world.status["run"]) == ("Pending", 0)
    assert world.status["nextTime"] == "2026-01-02T04:00:00Z"
    assert world.status["conditions"][0]["message"] == "quota exceeded"
    assert plan_operation(world.observed(), world.now) == [job]
    world.refusal = None
    world.settle()
    assert (world.status["phase"], world.status["run"]) == ("Running", 1)


def test_it_waits_for_what_runs_before_it() -> None:
    world = World({"runAfter": [{"kind": "DataPack", "name": "shards"}]})
    world.predecessors = {"DataPack/shards": None}
    world.settle()
    assert (world.status["phase"], world.status["conditions"][0]["reason"]) == ("Pending", "NoSuchPredecessor")
    world.predecessors = {"DataPack/shards": "Running"}
    world.settle()
    assert world.status["conditions"][0]["reason"] == "WaitsForPredecessor"
    world.predecessors = {"DataPack/shards": "Succeeded"}
    world.settle()
    assert world.status["phase"] == "Running"


def test_a_schedule_runs_only_when_there_is_something_new() -> None:
    world = World({"schedule": {"cron": "0 * * * *"}})
    world.settle()
    assert (world.status["phase"], world.status["nextTime"]) == ("Pending", "2026-01-02T04:00:00Z")
    world.now = datetime(2026, 1, 2, 4, 0, 1, tzinfo=UTC)
    world.settle()
    assert (world.status["run"], world.status["nextTime"]) == (1, "2026-01-02T05:00:00Z")
    world.end("Complete")
    world.now += timedelta(hours=1)
    world.settle()
    assert (world.status["run"], world.status["phase"]) == (1, "Succeeded")
    assert world.status["nextTime"] == "2026-01-02T06:00:00Z"
    world.revision = "c2"
    world.settle()
    assert world.status["run"] == 1  # not before its time
    world.now += timedelta(hours=5)  # and what was missed is not made up for
    world.settle()
    assert (world.status["run"], world.status["nextTime"]) == (2, "2026-01-02T11:00:00Z")


def test_the_history_of_a_schedule_is_kept_as_long_as_declared() -> None:
    world = World({"schedule": {"cron": "0 * * * *", "history": 2}})
    for number in range(5):
        world.revision = f"c{number}"
        world.settle()
        world.now += timedelta(hours=1)
        world.settle()
        world.end("Complete")
    world.settle()
    assert sorted(ref.name for ref in world.cluster.objects) == ["warm-load-4", "warm-load-5"]


@given(st.integers(0, 10**6))
def test_a_slot_is_later_and_on_the_minute(seconds: int) -> None:
    now = START + timedelta(seconds=seconds)
    slot = next_slot(Schedule(cron="*/7 * * * *"), now)
    assert now < slot <= now + timedelta(hours=1)
    assert slot.second == 0


def test_a_schedule_that_means_no_time_says_so() -> None:
    for cron in ("61 * * * *", "* * * * * nonsense", "0 0 30 2 *"):
        with pytest.raises(ValueError, match=r"spec\.schedule\.cron"):
            next_slot(Schedule(cron=cron), START)


def test_deciding_needs_no_job_to_know_how_the_last_run_ended() -> None:
    world = World({})
    world.settle()
    world.end("Complete")
    world.settle()
    world.cluster.objects.clear()
    observed = world.observed()
    assert decide(observed, last_run(observed), world.now).phase == "Succeeded"
    assert not plan_operation(observed, world.now)


def test_a_process_runs_the_users_containers_between_ours_without_credentials() -> None:
    world = World({"retries": 1, "deadline": "2h"}, "DataProcess")
    world.settle()
    (job,) = world.cluster.objects.values()
    pod = job["spec"]["template"]["spec"]
    bring, user = pod["initContainers"]
    (commit,) = pod["containers"]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (1, 7200)
    assert (bring["command"][2:5], commit["command"][2:5]) == (
        ["process", "--bring", "warm"],
        ["process", "--commit", "warm"],
    )
    assert (user["image"], user["command"], pod["nodeSelector"]) == ("theirs", ["make"], {"gpu": "yes"})
    assert {each["name"]: each["value"] for each in user["env"]} == {
        "FOREBAY_INPUT": "/forebay/input", "FOREBAY_OUTPUT": "/forebay/output", "FOREBAY_DATASET": "digits",
    }  # fmt: skip
    assert [each["mountPath"] for each in user["volumeMounts"]] == ["/forebay"]
    assert pod["automountServiceAccountToken"] is False
    mounted = {each["mountPath"] for each in commit["volumeMounts"]}
    assert {"/forebay", "/var/run/secrets/kubernetes.io/serviceaccount"} <= mounted


def test_a_migration_mounts_the_secrets_of_its_places() -> None:
    world = World({}, "DataMigrate")
    world.settle()
    (job,) = world.cluster.objects.values()
    volumes = job["spec"]["template"]["spec"]["volumes"]
    assert [each["secret"]["secretName"] for each in volumes if "secret" in each] == ["other"]


@pytest.mark.parametrize("kind", ["DataPack", "DataProcess", "DataMigrate"])
def test_a_schedule_skips_an_input_that_is_unchanged(kind: str) -> None:
    world = World({"schedule": {"cron": "0 * * * *"}}, kind)
    world.settle()
    world.now += timedelta(hours=1)
    world.settle()
    world.end("Complete")
    world.now += timedelta(hours=1)
    world.settle()
    assert (world.status["run"], world.status["phase"]) == (1, "Succeeded")
    world.revision = "c2"
    world.now += timedelta(hours=1)
    world.settle()
    assert world.status["run"] == 2


def test_a_circle_is_told_by_name_and_begins_when_it_is_opened() -> None:
    world = World({}, "DataPack")
    world.cycle = ("DataPack/warm", "DataLoad/b", "DataPack/warm")
    world.settle()
    assert not world.cluster.objects
    told = {each["type"]: each for each in world.status["conditions"]}
    text = "DataPack/warm waits for DataLoad/b waits for DataPack/warm, for ever; remove one of them from a runAfter"
    assert told["Complete"]["reason"] == "Cycle"
    assert all((each["status"], each["message"]) == ("False", f"spec.runAfter: {text}") for each in told.values())
    world.cycle = ()
    world.settle()
    assert world.status["phase"] == "Running"


@given(st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 6), max_size=3), max_size=7))
def test_a_circle_is_found_if_there_is_one_and_is_one(edges: dict[int, set[int]]) -> None:
    names = {f"DataLoad/{key}": [f"DataLoad/{each}" for each in value] for key, value in edges.items()}
    for start in names:
        reached, waiting = set(), [start]
        while waiting:
            for each in names.get(waiting.pop(), ()):
                if each not in reached:
                    reached.add(each)
                    waiting.append(each)
        found = cycle_of(start, lambda each: names.get(each, ()))
        assert bool(found) == (start in reached)
        if found:
            assert found[0] == found[-1] == start
            assert all(after in names[before] for before, after in pairwise(found))
