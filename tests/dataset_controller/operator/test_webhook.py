"""The webhook refuses what the models of the laptop refuse, in their words."""

from __future__ import annotations

import base64
import copy
import json
import ssl
import subprocess
from http.client import HTTPSConnection
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.errors import ManifestError
from dataset_controller.manifests import parse_objects
from dataset_controller.operator.planning.gates import DatasetFacts
from dataset_controller.operator.webhook.mutating import mutate
from dataset_controller.operator.webhook.reviewing import review
from dataset_controller.operator.webhook.serving import MUTATE, VALIDATE, admitting, server_context
from tests.dataset_controller.operator.test_pods_webhook import not_yet, pod, pod_request

if TYPE_CHECKING:
    from pathlib import Path

    from dataset_controller.operator.webhook.serving import Review

_SPECS: dict[str, dict[str, Any]] = {
    "Dataset": {"mounts": [{"name": "raw", "uri": "s3://raw/a", "path": ""}], "repo": {"uri": "s3://versions/a"}},
    "CacheRuntime": {"replicas": 1, "tiers": [{"path": "/var/cache/forebay", "capacity": "1Gi"}]},
    "DataLoad": {"dataset": {"name": "a"}},
    "DataPack": {"dataset": {"name": "a"}, "branch": "packed"},
    "DataProcess": {
        "dataset": {"name": "a"},
        "output": "labels",
        "template": {"spec": {"containers": [{"name": "label", "image": "labels:7", "command": ["label"]}]}},
    },
    "DataMigrate": {"source": {"uri": "s3://raw/a"}, "target": {"uri": "s3://raw/b"}},
}
_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "1Gi"]), st.just([])
)


def _object(kind: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "forebay.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a", "namespace": "ml", "uid": "u", "generation": 1, **metadata},
        "spec": copy.deepcopy(_SPECS[kind]),
        "status": {"observedGeneration": 1},
    }


def _request(new: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    request = {
        "uid": "1",
        "kind": {"group": "forebay.dev", "version": "v1alpha1", "kind": new["kind"]},
        "operation": "CREATE" if old is None else "UPDATE",
        "object": new,
        "oldObject": old,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def _said(new: dict[str, Any], old: dict[str, Any] | None = None) -> str | None:
    response = review(_request(new, old))["response"]
    assert response["uid"] == "1"
    assert response["allowed"] == ("status" not in response)
    return None if response["allowed"] else response["status"]["message"]


def _refused_on_laptop(document: dict[str, Any]) -> str | None:
    try:
        parse_objects(json.dumps(document), source="a.yaml", variables={})
    except ManifestError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", _SPECS)
def test_a_good_object_is_allowed(kind: str) -> None:
    assert _said(_object(kind)) is None


@given(
    kind=st.sampled_from(sorted(_SPECS)),
    field=st.sampled_from(["mounts", "repo", "dataset", "tiers", "replicas", "branch", "sync", "misspelt"]),
    value=_VALUES,
)
def test_it_says_what_the_laptop_says(kind: str, field: str, value: Any) -> None:
    wrong = _object(kind)
    wrong["spec"][field] = value
    on_laptop = {**wrong, "metadata": {"name": "a"}}
    del on_laptop["status"]
    said, refused = _said(wrong), _refused_on_laptop(on_laptop)
    assert (said is None) == (refused is None)
    assert (said or "") in (refused or "")
    assert _said(wrong) == said
    assert _said(wrong, wrong) is None  # finalizers and labels of what is stored can change
    assert _said({**wrong, "metadata": {**wrong["metadata"], "deletionTimestamp": "now"}}, _object(kind)) is None


def test_an_unknown_field_is_refused_by_its_name() -> None:
    wrong = _object("Dataset")
    wrong["spec"]["mount"] = []
    assert _said(wrong) == "spec.mount: unknown field; did you mean 'mounts'?"


def test_a_dataset_keeps_its_repository() -> None:
    old, new = _object("Dataset"), _object("Dataset")
    new["spec"]["repo"]["uri"] = "s3://versions/b"
    assert "keeps its repository" in (_said(new, old) or "")


def test_what_is_not_ours_passes() -> None:
    other = _request({**_object("Dataset"), "spec": {}})
    other["request"]["kind"]["group"] = "data.fluid.io"
    assert review(other)["response"]["allowed"]


def test_over_tls(tmp_path: Path) -> None:
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "tls.key", "-out", "tls.crt")
    subprocess.run(["openssl", "req", "-x509", *key, *names], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    wrong = _object("Dataset")
    del wrong["spec"]["repo"]
    trust = ssl.create_default_context(cafile=str(tmp_path / "tls.crt"))
    known = {"ml": DatasetFacts("scenes", "nvme", True, 10)}
    asked = pod(START_AT="80%")
    reviews: dict[str, Review] = {VALIDATE: review, MUTATE: lambda found: mutate(found, facts=lambda ns, _: known[ns])}
    reviews["/early"] = lambda found: mutate(found, facts=not_yet)
    with admitting("127.0.0.1", 0, server_context(tmp_path / "tls.crt", tmp_path / "tls.key"), reviews) as (host, port):
        answers = []
        for path, body in (
            ("/validate", json.dumps(_request(wrong))),
            ("/validate", "{}"),
            ("/other", "{}"),
            ("/mutate", json.dumps(pod_request(asked))),
            ("/mutate?timeout=5s", "[]"),
            ("/early", json.dumps(pod_request(asked))),
        ):
            connection = HTTPSConnection(host, port, context=trust, timeout=30)
            connection.request("POST", path, body)
            answer = connection.getresponse()
            answers.append((answer.status, json.loads(answer.read())))
            connection.close()
    assert [status for status, _ in answers] == [200, 400, 404, 200, 400, 503]
    patch = json.loads(base64.b64decode(answers[3][1]["response"]["patch"]))
    assert patch == [{"op": "add", "path": "/spec/schedulingGates", "value": [{"name": "forebay.dev/cached"}]}]
    assert answers[5][1] == {"message": "the cluster is being listed"}
    assert answers[0][1]["response"]["status"]["message"] == "spec.repo: this field is required"
