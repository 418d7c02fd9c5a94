"""How many workers a cache is given, and the agents of namespaces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.operator.planning.actions import Delete, Ref, SetReplicas
from dataset_controller.operator.planning.namespace import ObservedNamespace, plan_namespace
from dataset_controller.operator.planning.runtime import ObservedRuntime, plan_runtime, scaling_of
from dataset_controller.operator.planning.scaling import Use, decide, enough_workers
from dataset_controller.runtime_model import CacheRuntime
from tests.dataset_controller.operator.models import FakeCluster
from tests.dataset_controller.operator.test_operation_planning import DATASET

API = "forebay.dev/v1alpha1"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MIB = 1 << 20


def runtime(replicas: int, **autoscale: Any) -> CacheRuntime:
    spec = {
        "tiers": [{"path": "/disk", "capacity": "100Mi"}],
        "replicas": replicas,
        "autoscale": {"minReplicas": 1, "maxReplicas": 6, "targetUsedPercent": 50, "stabilisation": "10m", **autoscale},
    }
    return CacheRuntime.model_validate(
        {"apiVersion": API, "kind": "CacheRuntime", "metadata": {"name": "nvme"}, "spec": spec}
    )


USES = st.lists(
    st.builds(
        Use,
        st.none() | st.integers(0, 400 * MIB),
        st.integers(1, 3),
        st.none() | st.integers(1, 60 * MIB),
    ),
    max_size=4,
)


@given(USES, st.integers(0, 9), st.none() | st.integers(0, 1200))
def test_more_come_at_once_and_fewer_after_a_while(uses: list[Use], replicas: int, seconds: int | None) -> None:
    since = None if seconds is None else NOW - timedelta(seconds=seconds)
    cache = runtime(replicas)
    found = decide(cache, uses, since, NOW)
    assert 1 <= found.replicas <= 6
    enough = enough_workers(cache, uses)
    within = min(max(replicas, 1), 6)
    if enough is None:  # nobody knows: nothing is taken away
        assert found.replicas == within
    elif enough >= within:
        assert found.replicas == enough
    else:
        waited = seconds is not None and seconds >= 600
        assert found.replicas == (enough if waited else within)
        assert (found.until is None) == waited


def test_so_many_as_hold_the_datasets_below_the_target() -> None:
    cache = runtime(1)
    assert enough_workers(cache, [Use(100 * MIB)]) == 2
    assert enough_workers(cache, [Use(101 * MIB)]) == 3
    assert enough_workers(cache, [Use(100 * MIB, replicas=2)]) == 4
    assert enough_workers(cache, [Use(1 << 40, quota_bytes=50 * MIB)]) == 1
    assert enough_workers(cache, [Use(1 << 40)]) == 6
    assert enough_workers(cache, [Use(None)]) is None
    assert enough_workers(cache, [Use(None), Use(100 * MIB)]) == 2


def test_the_status_remembers_since_when_fewer_are_enough() -> None:
    cluster, owner = FakeCluster(), {"apiVersion": API, "kind": "CacheRuntime"}
    metadata = {"name": "nvme", "namespace": "ml", "uid": "u", "generation": 1}
    observed = ObservedRuntime({**owner, "metadata": metadata}, runtime(4), [DATASET], sizes={"digits": 90 * MIB})
    ref = Ref(API, "CacheRuntime", "ml", "nvme")
    for _ in range(4):
        for action in plan_runtime(cluster.seen(observed, ref), NOW):
            cluster.do(action)
        cluster.start_pods()
    assert not plan_runtime(cluster.seen(observed, ref), NOW + timedelta(minutes=9))
    scaling = scaling_of(cluster.seen(observed, ref), NOW)
    assert scaling is not None
    assert scaling.until == NOW + timedelta(minutes=10)
    later = plan_runtime(cluster.seen(observed, ref), NOW + timedelta(minutes=10))
    assert [each for each in later if isinstance(each, SetReplicas)] == [SetReplicas(ref, 2)]


def test_a_namespace_has_an_agent_as_long_as_it_has_a_dataset() -> None:
    cluster = FakeCluster()
    for action in plan_namespace(ObservedNamespace("ml", [DATASET], [runtime(1)])):
        cluster.do(action)
    assert {ref.kind for ref in cluster.objects} == {"Deployment", "Role", "RoleBinding", "ServiceAccount"}
    assert not plan_namespace(ObservedNamespace("ml", [DATASET], [runtime(1)], cluster.objects))
    gone = plan_namespace(ObservedNamespace("ml", [], [], cluster.objects))
    assert all(isinstance(action, Delete) for action in gone)
    for action in gone:
        cluster.do(action)
    assert not cluster.objects
    assert not plan_namespace(ObservedNamespace("ml", [], [], cluster.objects))
