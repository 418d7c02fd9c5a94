from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.errors import ManifestError
from dataset_controller.manifests import parse_manifest
from dataset_controller.model import CacheRuntime, Dataset

GOOD = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata:
  name: digits
spec:
  mounts:
    - name: images
      uri: s3://digits/digits
      path: /images
    - {name: labels, uri: "file://${NFS}/labels", path: labels}
  repo:
    uri: s3://digits/repo/
  cache:
    runtimeRef: {name: local}
  samples: {key: stem}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {name: local}
spec:
  tiers:
    - path: ${CACHE:-/var/cache/forebay}
      capacity: 1.5Gi
"""


def parse(text: str, **variables: str) -> list[Dataset | CacheRuntime]:
    return parse_manifest(text, source="dataset.yaml", variables={"NFS": "/mnt", **variables})


def test_a_dataset_and_its_cache_are_read_from_one_file() -> None:
    dataset, runtime = parse(GOOD)
    assert isinstance(dataset, Dataset)
    assert isinstance(runtime, CacheRuntime)
    assert [mount.path for mount in dataset.spec.mounts] == ["images/", "labels/"]
    assert [mount.prefix for mount in dataset.spec.mounts] == ["digits/", "mnt/labels/"]
    assert dataset.spec.repo.prefix == "repo/"
    assert runtime.spec.tiers[0].capacity == 3 << 29
    assert runtime.spec.tiers[0].path == "/var/cache/forebay"


def test_a_model_survives_its_own_json() -> None:
    for resource in parse(GOOD):
        assert type(resource).model_validate(resource.model_dump(mode="json", by_alias=True)) == resource


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "reason"),
    [
        ("      path: /images", "      paths: /images", 9, "spec.mounts[0].paths", "did you mean 'path'"),
        ("  repo:\n    uri: s3://digits/repo/\n", "", 5, "spec.repo", "required"),
        ("uri: s3://digits/digits", "uri: digits/digits", 8, "spec.mounts[0].uri", "not a source URI"),
        ("uri: s3://digits/digits", "uri: s3://key:secret@digits/x", 8, "spec.mounts[0].uri", "credentials"),
        ("uri: s3://digits/digits", "uri: file:///a/../etc", 8, "spec.mounts[0].uri", "'..'"),
        ("path: labels}", "path: images/labels}", 5, "spec", "overlap"),
        ("name: labels, uri", "name: images, uri", 5, "spec", "two mounts are named 'images'"),
        ("s3://digits/repo/", "s3://digits/digits", 5, "spec", "mount 'images' and the repository are one place"),
        ("name: images\n", 'name: "images\\n"\n', 7, "spec.mounts[0].name", "lower-case"),
        ("kind: Dataset", "kind: DataSet", 2, "kind", "expected Dataset or CacheRuntime"),
        ("v1alpha1\nkind: Dataset", "v2\nkind: Dataset", 1, "apiVersion", "forebay.dev/v1alpha1"),
        ("  name: digits", "  name: Digits!", 4, "metadata.name", "lower-case"),
        ("capacity: 1.5Gi", "capacity: 1.5 gigabytes", 23, "spec.tiers[0].capacity", "quantity"),
        ("path: ${CACHE:-/var/cache/forebay}", "path: cache", 22, "spec.tiers[0].path", "match pattern"),
        ("${NFS}", "${NOWHERE}", 10, "", "NOWHERE} is not set"),
        ("key: stem", "key: name", 15, "spec.samples.key", "'path' or 'stem'"),
        ("  name: digits", "  name: digits\n  name: digits", 5, "name", "twice"),
        ("metadata:\n", "metadata: [\n", 5, "", "not YAML"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(old: str, new: str, line: int, field: str, reason: str) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError, match=r"dataset\.yaml") as caught:
        parse(GOOD.replace(old, new, 1))
    assert reason in str(caught.value)
    assert (caught.value.line, caught.value.field) == (line, field)


def test_an_error_never_repeats_the_credentials_it_refuses() -> None:
    with pytest.raises(ManifestError) as caught:
        parse(GOOD.replace("s3://digits/digits", "s3://key:hunter2@digits/x"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["!0", "a: !env X", "a: !!int x", "a: !!int ''", "a: !!bool x", "a: !!timestamp x", "? [a]\n: b", "&a [*a]"]
)
def test_yaml_that_cannot_be_a_value_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        parse(text)


@pytest.mark.parametrize("text", ["", "# nothing\n", "just text", "- a\n- list"])
def test_a_file_without_an_object_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        parse(text)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from(["metadata", "spec"]), value=JSONISH)
def test_arbitrary_content_raises_only_a_manifest_error(field: str, value: Any) -> None:
    import yaml

    document = {"apiVersion": "forebay.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "x"}, field: value}
    with pytest.raises(ManifestError):
        parse(yaml.safe_dump(document))


@given(st.text(max_size=60))
def test_arbitrary_text_raises_only_a_manifest_error(text: str) -> None:
    with pytest.raises(ManifestError):
        parse(text)
