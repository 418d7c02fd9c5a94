"""What a pod that names a dataset gets: one gate, preferences for nodes, and never a refusal."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.errors import ClusterError
from dataset_controller.operator.naming import CACHED, START_AT, START_WITHIN
from dataset_controller.operator.planning.gates import DatasetFacts
from dataset_controller.operator.webhook.mutating import mutate, patch_of

_GATE = {"name": CACHED}
_FOREIGN_TERM = {"weight": 7, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_ANNOTATIONS = {"START_AT": START_AT, "START_WITHIN": START_WITHIN}


def pod(**annotations: str) -> dict[str, Any]:
    """Return a pod that names dataset `scenes`, as an API server sends it."""
    told = {_ANNOTATIONS[name]: value for name, value in annotations.items()}
    metadata = {"generateName": "train-", "labels": {"forebay.dev/dataset": "scenes"}, "annotations": told}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "train"}]}}


def pod_request(document: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the review of a pod that is made."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "1", "kind": kind, "operation": "CREATE", "namespace": "ml", "object": document, **more}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def not_yet(namespace: str, name: str) -> NoReturn:
    """Know nothing yet."""
    raise ClusterError("the cluster is being listed")


def patched(document: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply a patch as a server does; of RFC 6902, what adds."""
    found = copy.deepcopy(document)
    for step in patch:
        assert step["op"] == "add"
        *places, last = step["path"].split("/")[1:]
        here = found
        for place in places:
            here = here[int(place) if isinstance(here, list) else place]
        if isinstance(here, list):
            assert last == "-"
            here.append(step["value"])
        else:
            here[last] = step["value"]
    return found


def answered(document: dict[str, Any], facts: DatasetFacts | None, **more: Any) -> tuple[Any, list[str]]:
    """Return what the server stores of a pod, and what its maker is told."""
    before = copy.deepcopy(document)
    response = mutate(pod_request(document, **more), facts=lambda namespace, name: facts)["response"]
    assert document == before
    assert (response["uid"], response["allowed"]) == ("1", True)
    patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    assert ("patch" in response) == (response.get("patchType") == "JSONPatch")
    return patched(document, patch), response.get("warnings", [])


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    """Return a pod with gates and affinity of its own, in any state of being there."""
    found = pod(START_AT=draw(st.sampled_from(["80%", "80", "0", "100%"])))
    gates = st.sampled_from([None, [], [{"name": "queue/ready"}], [_GATE], [{"name": "queue/ready"}, _GATE]])
    terms = st.sampled_from([None, [], [_FOREIGN_TERM]])
    node = st.one_of(st.just({}), st.builds(lambda found: {_PREFERRED: found}, terms))
    required: dict[str, Any] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    affinity = st.one_of(
        st.sampled_from([None, {}, {"podAntiAffinity": {}}, {"nodeAffinity": None}]),
        st.builds(lambda node: {"nodeAffinity": {**required, **node}, "podAffinity": {"x": 1}}, node),
    )
    for name, values in (("schedulingGates", gates), ("affinity", affinity)):
        if draw(st.booleans()):
            found["spec"][name] = draw(values)
    return found


FACTS = st.builds(
    DatasetFacts,
    st.just("scenes"),
    st.just("nvme"),
    st.just(True),
    st.none() | st.integers(0, 100),
    st.integers(0, 10**15),
    st.dictionaries(st.from_regex(r"n[0-9]{1,3}", fullmatch=True), st.integers(0, 10**15), max_size=15),
)


def gates_of(document: dict[str, Any]) -> list[Any]:
    return document["spec"].get("schedulingGates") or []


def terms_of(document: dict[str, Any]) -> list[Any]:
    here = document["spec"]
    for key in ("affinity", "nodeAffinity", _PREFERRED):
        here = here.get(key) or {}
    return list(here)


@given(pods(), FACTS)
def test_one_gate_ten_nodes_and_nothing_else_changes(document: dict[str, Any], facts: DatasetFacts) -> None:
    after, warnings = answered(document, facts)
    assert warnings == []
    wanted = int(document["metadata"]["annotations"][START_AT].rstrip("%"))
    waits = facts.percent is None or facts.percent < wanted
    foreign = [gate for gate in gates_of(document) if gate != _GATE]
    assert [gate for gate in gates_of(after) if gate != _GATE] == foreign
    assert gates_of(after).count(_GATE) == (1 if waits or _GATE in gates_of(document) else 0)

    ours = terms_of(after)[len(terms_of(document)) :]
    assert terms_of(after)[: len(terms_of(document))] == terms_of(document)
    held = [facts.nodes[term["preference"]["matchExpressions"][0]["values"][0]] for term in ours]
    there = sorted((each for each in facts.nodes.values() if each), reverse=True) if facts.size_bytes else []
    assert held == there[:10]
    assert all(1 <= term["weight"] <= 100 for term in ours)
    assert [term["weight"] for term in ours] == sorted((term["weight"] for term in ours), reverse=True)

    again, warnings = answered(after, facts)
    assert (again, warnings) == (after, [])
    for found in (after, document):  # the rest is as it was
        found["spec"].pop("schedulingGates", None)
        affinity = found["spec"].pop("affinity", None) or {}
        node = affinity.pop("nodeAffinity", None) or {}
        node.pop(_PREFERRED, None)
        found["spec"]["theirs"] = [affinity, node]
    assert after == document


@given(st.text(max_size=12), st.none() | st.text(max_size=12))
def test_whatever_is_asked_for_the_pod_is_allowed(at: str, within: str | None) -> None:
    asked = pod(START_AT=at, **({} if within is None else {"START_WITHIN": within}))
    after, warnings = answered(asked, DatasetFacts("scenes", "nvme", True, None))
    assert (after != asked) != bool(warnings)
    assert all("forebay.dev/start-" in each and len(each) < 256 for each in warnings)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (None, "no Dataset scenes"),
        (DatasetFacts("scenes", "", False, None), "names no CacheRuntime"),
        (DatasetFacts("scenes", "nvme", False, 10), "nvme, which is not there"),
    ],
)
def test_nobody_waits_for_what_cannot_come(facts: DatasetFacts | None, words: str) -> None:
    after, (warning,) = answered(pod(START_AT="80%"), facts)
    assert after == pod(START_AT="80%")
    assert words in warning


def test_a_pod_that_is_on_its_node_does_not_wait() -> None:
    placed = pod(START_AT="80%")
    placed["spec"]["nodeName"] = "n1"
    after, (warning,) = answered(placed, DatasetFacts("scenes", "nvme", True, 10))
    assert after == placed
    assert "spec.nodeName" in warning


def test_what_is_no_new_pod_of_a_dataset_stays_as_it_is() -> None:
    facts = DatasetFacts("scenes", "nvme", True, 10, 100, {"n1": 50})
    other = pod(START_AT="80%")
    del other["metadata"]["labels"]
    deployment = {"group": "apps", "version": "v1", "kind": "Deployment"}
    for document, more in (
        (other, {}),
        (pod(START_AT="80%"), {"operation": "UPDATE"}),
        (pod(START_AT="80%"), {"subResource": "binding"}),
        (pod(START_AT="80%"), {"kind": deployment}),
    ):
        assert answered(document, facts, **more) == (document, [])


def test_weights_are_percentages() -> None:
    facts = DatasetFacts("scenes", "nvme", True, 100, 1000, {"n1": 1000, "n2": 501, "n3": 1, "n4": 0})
    patch, warnings = patch_of(pod(), "scenes", facts)
    terms = patch[0]["value"]["nodeAffinity"][_PREFERRED]
    nodes = [term["preference"]["matchExpressions"][0]["values"] for term in terms]
    assert [term["weight"] for term in terms] == [100, 50, 1]
    assert (nodes, warnings) == ([["n1"], ["n2"], ["n3"]], [])
