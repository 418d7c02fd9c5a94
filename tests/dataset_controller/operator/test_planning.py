"""Plans of the operator: they converge, whatever fails on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.model import Dataset
from dataset_controller.operator.naming import MOST_CHARACTERS, fitting, label_value
from dataset_controller.operator.planning.actions import Apply, CreateToken, PatchStatus, Ref
from dataset_controller.operator.planning.comparing import covers
from dataset_controller.operator.planning.conditions import Finding, conditions
from dataset_controller.operator.planning.runtime import ObservedRuntime, plan_runtime
from dataset_controller.runtime_model import CacheRuntime
from tests.dataset_controller.operator.models import FakeCluster

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@st.composite
def observations(draw: st.DrawFn) -> ObservedRuntime:
    """Return a runtime with datasets, before anything was made for it."""
    name = draw(NAMES)
    spec: dict[str, Any] = {
        "tiers": [{"path": f"/disk{number}", "capacity": "64Mi"} for number in range(draw(st.integers(1, 3)))],
        "replicas": draw(st.integers(0, 5)),
        "pods": draw(st.sampled_from([{}, {"image": "x", "nodeSelector": {"disk": "nvme"}, "labels": {"a": "b"}}])),
        "drainTimeout": "1m",
    }
    head = {"apiVersion": "forebay.dev/v1alpha1", "kind": "CacheRuntime"}
    runtime = CacheRuntime.model_validate({**head, "metadata": {"name": name}, "spec": spec})
    datasets = [
        Dataset.model_validate(
            {
                "apiVersion": "forebay.dev/v1alpha1",
                "kind": "Dataset",
                "metadata": {"name": each},
                "spec": {
                    "repo": {"uri": "s3://bucket/repo", "secretRef": {"name": draw(NAMES)}},
                    "cache": {"runtimeRef": {"name": name}},
                },
            }
        )
        for each in draw(st.lists(NAMES, max_size=3, unique=True))
    ]
    owner = {**head, "metadata": {"name": name, "namespace": "ml", "uid": "1-2-3", "generation": draw(st.integers(1))}}
    return ObservedRuntime(owner, runtime, datasets)


def converge(cluster: FakeCluster, observed: ObservedRuntime, failing: int | None = None) -> int:
    """Plan and do until nothing is planned; one action of the first plan fails, with all that follow it."""
    ref = Ref("forebay.dev/v1alpha1", "CacheRuntime", "ml", observed.runtime.metadata.name)
    for round_number in range(5):
        actions = plan_runtime(cluster.seen(observed, ref), NOW)
        if not actions:
            return round_number
        for number, action in enumerate(actions):
            if round_number == 0 and number == failing:
                break
            cluster.do(action)
        cluster.start_pods()
    raise AssertionError(actions)


@given(observations(), st.none() | st.integers(0, 8))
def test_a_plan_converges_even_if_it_stops_anywhere(observed: ObservedRuntime, failing: int | None) -> None:
    cluster = FakeCluster()
    converge(cluster, observed, failing)
    (status,) = cluster.statuses.values()
    assert status["readyReplicas"] == observed.runtime.spec.replicas
    assert {each["type"]: each["status"] for each in status["conditions"]} == {"Ready": "True", "SpecApplied": "True"}
    for ref, document in cluster.objects.items():
        assert len(ref.name) <= MOST_CHARACTERS
        assert all(len(value) <= MOST_CHARACTERS for value in document["metadata"]["labels"].values())


@given(observations(), st.integers(0, 5))
def test_an_edit_changes_only_what_it_is_about(observed: ObservedRuntime, replicas: int) -> None:
    cluster = FakeCluster()
    converge(cluster, observed)
    spec = observed.runtime.spec.model_copy(update={"replicas": replicas})
    edited = ObservedRuntime(observed.owner, observed.runtime.model_copy(update={"spec": spec}), observed.datasets)
    ref = Ref("forebay.dev/v1alpha1", "CacheRuntime", "ml", observed.runtime.metadata.name)
    planned = plan_runtime(cluster.seen(edited, ref), NOW)
    kinds = {action.document["kind"] for action in planned if isinstance(action, Apply)}
    assert kinds == (set() if replicas == observed.runtime.spec.replicas else {"ConfigMap", "StatefulSet"})
    assert not any(isinstance(action, CreateToken) for action in planned)


def test_what_somebody_changed_by_hand_is_set_right_again() -> None:
    observed = _simple()
    cluster = FakeCluster()
    converge(cluster, observed)
    (service,) = (each for ref, each in cluster.objects.items() if ref.kind == "Service")
    service["spec"]["ports"][0]["port"] = 1
    ref = Ref("forebay.dev/v1alpha1", "CacheRuntime", "ml", "nvme")
    (again,) = plan_runtime(cluster.seen(observed, ref), NOW)
    assert isinstance(again, Apply)
    assert again.document["kind"] == "Service"


def test_a_field_without_effect_is_named_in_a_condition() -> None:
    observed = _simple(workers={"members": [{"name": "a", "url": "http://a:1"}]})
    told = [action for action in plan_runtime(observed, NOW) if isinstance(action, PatchStatus)]
    (applied,) = (each for each in told[0].status["conditions"] if each["type"] == "SpecApplied")
    assert applied["status"] == "False"
    assert "spec.workers" in applied["message"]


def _simple(**spec: Any) -> ObservedRuntime:
    head = {"apiVersion": "forebay.dev/v1alpha1", "kind": "CacheRuntime"}
    metadata = {"name": "nvme", "namespace": "ml", "uid": "1", "generation": 1}
    declared = {"tiers": [{"path": "/disk", "capacity": "64Mi"}], **spec}
    runtime = CacheRuntime.model_validate({**head, "metadata": {"name": "nvme"}, "spec": declared})
    return ObservedRuntime({**head, "metadata": metadata}, runtime, [])


@given(st.text(st.characters(codec="ascii", categories=("Ll", "Nd"), include_characters="-."), min_size=1))
def test_long_names_fit_and_stay_different(name: str) -> None:
    assert len(fitting(name)) <= MOST_CHARACTERS
    assert fitting(name + "a" * 70) != fitting(name + "b" * 70)
    assert len(label_value(name * 20)) <= MOST_CHARACTERS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON)
def test_everything_covers_itself(value: Any) -> None:
    assert covers(value, value)


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=1), JSON)
def test_what_is_added_does_not_matter_and_what_is_missing_does(value: dict[str, Any], other: Any) -> None:
    assert covers({**value, "added by the server": other}, value)
    name, inner = next(iter(value.items()))
    rest = {key: each for key, each in value.items() if key != name}
    assert covers(rest, value) == (inner in ({}, [], None))


def test_the_time_of_a_condition_changes_with_its_answer_only() -> None:
    first = conditions([], [Finding("Ready", False, "NotYet")], generation=1, now=NOW)
    later = conditions(first, [Finding("Ready", False, "StillNot")], generation=2, now=NOW + timedelta(hours=1))
    assert later[0]["lastTransitionTime"] == first[0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    then = conditions(later, [Finding("Ready", True, "Done")], generation=2, now=NOW + timedelta(hours=2))
    assert then[0]["lastTransitionTime"] == "2026-01-02T05:04:05Z"
