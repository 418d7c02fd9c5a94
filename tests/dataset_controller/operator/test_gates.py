"""A pod that waits for its dataset is let go once: when enough is cached, or when waiting is in vain."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.operator.mirror import Mirror
from dataset_controller.operator.naming import CACHED, START_AT, START_WITHIN
from dataset_controller.operator.planning.actions import OpenGate, PatchStatus, Ref, Tell
from dataset_controller.operator.planning.gates import DatasetFacts, ObservedPod, plan_pod, seconds_left
from dataset_controller.operator.queueing import Key
from dataset_controller.operator.routing import keys_of
from tests.dataset_controller.operator.test_shell import API, Killed, Server, operate

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def waiting(at: str | None = "80%", within: str | None = None, name: str = "train") -> dict[str, Any]:
    """Return a pod with our gate and one of somebody else's."""
    told = {key: value for key, value in ((START_AT, at), (START_WITHIN, within)) if value is not None}
    metadata = {
        "name": name, "namespace": "ml", "uid": f"Pod-{name}", "resourceVersion": "1",
        "labels": {"forebay.dev/dataset": "scenes"}, "annotations": told, "creationTimestamp": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    spec = {"schedulingGates": [{"name": "queue/ready"}, {"name": CACHED}], "containers": [{"name": "train"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


def facts(percent: int | None = 10, runtime: str = "nvme", *, has_runtime: bool = True) -> DatasetFacts:
    return DatasetFacts("scenes", runtime, has_runtime, percent)


@given(
    st.none() | st.builds(facts, st.none() | st.integers(0, 100), st.sampled_from(["", "nvme"])),
    st.integers(0, 100),
    st.integers(0, 8000),
    st.integers(1, 7200),
)
def test_it_waits_while_the_percentage_can_come_and_there_is_time(
    known: DatasetFacts | None, wanted: int, seconds: int, within: int
) -> None:
    observed = ObservedPod(waiting(f"{wanted}%", f"{within}s"), known)
    now = CREATED + timedelta(seconds=seconds)
    waits = (
        known is not None
        and bool(known.runtime)
        and (known.percent is None or known.percent < wanted)
        and seconds < within
    )
    actions = plan_pod(observed, now)
    assert [type(action) for action in actions] == ([] if waits else [OpenGate, Tell])
    assert seconds_left(observed, now) == max(0, within - seconds)
    if not waits:
        assert actions[0] == OpenGate(Ref("v1", "Pod", "ml", "train"), "Pod-train", CACHED)
        opened = copy.deepcopy(observed.pod)
        opened["spec"]["schedulingGates"].pop()
        assert plan_pod(ObservedPod(opened, known), now) == []
        assert seconds_left(ObservedPod(opened, known), now) == float("inf")


@pytest.mark.parametrize(
    ("pod", "known", "reason", "is_warning"),
    [
        (waiting(), facts(80), "Cached", False),
        (waiting(), None, "NoDataset", True),
        (waiting(), facts(runtime=""), "NoCache", True),
        (waiting(), facts(has_runtime=False), "NoCache", True),
        (waiting("most"), facts(), "BadAnnotation", True),
        (waiting(within="soon"), facts(), "BadAnnotation", True),
        (waiting(None), facts(), "NotAsked", False),
        (waiting(within="0s"), facts(None), "WaitedLongEnough", True),
    ],
)
def test_an_event_says_why(pod: dict[str, Any], known: DatasetFacts | None, reason: str, is_warning: bool) -> None:
    _, told = plan_pod(ObservedPod(pod, known), CREATED)
    assert isinstance(told, Tell)
    assert (told.reason, told.is_warning) == (reason, is_warning)


def test_an_hour_is_long_enough() -> None:
    observed = ObservedPod(waiting(), facts())
    assert plan_pod(observed, CREATED + timedelta(minutes=59)) == []
    assert plan_pod(observed, CREATED + timedelta(minutes=60)) != []


def _dataset(generation: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {"name": "scenes", "namespace": "ml", "uid": "d", "generation": generation, "resourceVersion": "1"}
    spec = {"cache": {"runtimeRef": {"name": "nvme"}}}
    return {"apiVersion": API, "kind": "Dataset", "metadata": metadata, "spec": spec, "status": status}


def test_what_concerns_a_pod_that_waits() -> None:
    mirror, pod, key = Mirror(), waiting(), Key("Pod", "ml", "train")
    runtime = {**_dataset(), "kind": "CacheRuntime"}
    runtime["metadata"] = {**runtime["metadata"], "name": "nvme", "uid": "c"}
    for document in (pod, _dataset(), runtime):
        mirror.put(document)
    assert keys_of(mirror, None, mirror.get(Ref.of(pod))) == {key}
    assert key in keys_of(mirror, _dataset(), _dataset(cachedPercent=80))
    assert key in keys_of(mirror, _dataset(), None)
    assert key in keys_of(mirror, runtime, None)
    assert key not in keys_of(mirror, _dataset(), _dataset(cachedBytes=1))
    opened = copy.deepcopy(pod)
    opened["spec"]["schedulingGates"].pop()
    assert keys_of(mirror, pod, opened) == keys_of(mirror, pod, None) == set()


def test_of_peoples_pods_little_is_kept() -> None:
    mirror = Mirror()
    mirror.put(waiting())
    found = mirror.get(Ref("v1", "Pod", "ml", "train"))
    assert found is not None
    assert found["spec"].keys() == {"schedulingGates"}
    assert "status" not in found
    ours = waiting(name="worker")
    ours["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "forebay"
    mirror.put(ours)
    assert (mirror.get(Ref.of(ours)) or {})["status"] == {"phase": "Pending"}


class PodServer(Server):
    """A server that knows gates."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def _done(self, action: Any) -> dict[str, Any] | None:
        if isinstance(action, OpenGate):
            pod = self.objects[action.ref]
            assert pod["metadata"]["uid"] == action.uid
            gates = [each for each in pod["spec"]["schedulingGates"] if each["name"] != action.gate]
            return self.put({**pod, "spec": {**pod["spec"], "schedulingGates": gates}})
        if isinstance(action, Tell) and action.ref.kind == "Pod":
            self.events.append(action.reason)
        return super()._done(action)

    def gates(self, name: str) -> list[str]:
        return [each["name"] for each in self.objects[Ref("v1", "Pod", "ml", name)]["spec"]["schedulingGates"]]


def _server() -> PodServer:
    server = PodServer()
    server.declare("CacheRuntime", "nvme", {"tiers": [{"path": "/disk", "capacity": "1Gi"}], "replicas": 1})
    spec = {"repo": {"uri": "s3://bucket/r"}, "cache": {"runtimeRef": {"name": "nvme"}}}
    server.declare("Dataset", "scenes", spec)
    server.put(waiting(within="1000000d"))
    return server


def _cached(server: PodServer, percent: int) -> None:
    server.do(PatchStatus(Ref(API, "Dataset", "ml", "scenes"), {"cachedPercent": percent}))


def test_the_operator_opens_the_gate_when_enough_is_cached() -> None:
    server = _server()
    operate(server)
    _cached(server, 79)
    operate(server)
    assert server.gates("train") == ["queue/ready", CACHED]
    _cached(server, 80)
    operate(server)
    assert server.gates("train") == ["queue/ready"]
    calls = server.calls
    operate(server)
    assert server.calls == calls + 1  # see test_in_rest_it_asks_nothing
    assert server.events == ["Cached"]


def test_the_operator_opens_the_gate_when_the_dataset_is_gone() -> None:
    server = _server()
    del server.objects[Ref(API, "Dataset", "ml", "scenes")]
    operate(server)
    assert server.gates("train") == ["queue/ready"]
    assert server.events == ["NoDataset"]


def test_killed_before_or_after_it_opened_the_gate_the_next_one_leaves_it_open() -> None:
    for number in range(1, 12):
        for is_after in (False, True):
            server = _server()
            operate(server)
            _cached(server, 100)
            server.dies_at = (server.calls + number, is_after)
            try:
                operate(server)
            except Killed:
                server.dies_at = None
                operate(server)
            assert server.gates("train") == ["queue/ready"]
            assert server.events in (["Cached"], [])  # killed between the two, it is not told
