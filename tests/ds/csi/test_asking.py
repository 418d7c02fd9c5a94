"""What the driver takes from a request and a dataset, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataset_controller.model import CacheRuntime, Dataset
from ds.csi.asking import checked_target, wish_of
from ds.csi.errors import VolumeError, VolumeRefusedError, VolumeRequestError, error_of_exit
from ds.csi.homes import Allowed, check_allowed, home_files
from tests.ds.csi.kubelet import READ_ONLY_MANY, publishing

ROOT = "/var/lib/kubelet"
TARGET = f"{ROOT}/pods/1-2/volumes/kubernetes.io~csi/data/mount"


def wished(request: Any) -> Any:
    return wish_of(request, kubelet_dir=ROOT)


def dataset(**spec: Any) -> Dataset:
    spec = {"repo": {"uri": "s3://versions/scenes"}, **spec}
    return Dataset.model_validate(
        {"apiVersion": "forebay.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "scenes"}, "spec": spec}
    )


def runtime(path: str, **spec: Any) -> CacheRuntime:
    spec = {"tiers": [{"path": path, "capacity": "64Mi"}], **spec}
    return CacheRuntime.model_validate(
        {"apiVersion": "forebay.dev/v1alpha1", "kind": "CacheRuntime", "metadata": {"name": "nvme"}, "spec": spec}
    )


def test_a_volume_is_a_dataset_of_the_pods_own_namespace() -> None:
    wish = wished(publishing(TARGET, dataset="scenes"))
    assert (wish.namespace, wish.dataset, wish.source, wish.follow) == ("ml", "scenes", "scenes", False)
    wish = wished(publishing(TARGET, dataset="scenes", revision="a/b", path="/images/", follow="true"))
    assert (wish.source, wish.follow) == ("scenes@a%2Fb/images", True)


def test_secrets_are_not_shown_with_what_a_pod_wants() -> None:
    assert "hidden" not in repr(wished(publishing(TARGET, dataset="scenes", secrets={"key": "hidden"})))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (publishing(TARGET), "must name the Dataset"),
        (publishing(TARGET, dataset="../x"), "must name the Dataset"),
        (publishing(TARGET, dataset="--help"), "must name the Dataset"),
        (publishing(TARGET, dataset="scenes", revison="v1"), "unknown volumeAttributes revison"),
        (publishing(TARGET, dataset="scenes", follow="yes"), 'expected "true" or "false"'),
        (publishing(TARGET, dataset="scenes", mode=5), "ReadOnlyMany"),
        (publishing("/etc", dataset="scenes"), "not below"),
    ],
)
def test_what_cannot_be_is_refused(request_: Any, said: str) -> None:
    with pytest.raises(VolumeRequestError, match=said):
        wished(request_)


def test_a_persistent_volume_is_read_only_and_no_device() -> None:
    request = publishing(TARGET, dataset="scenes", mode=READ_ONLY_MANY)
    assert wished(request).dataset == "scenes"
    request.volume_capability.block.SetInParent()
    with pytest.raises(VolumeRequestError, match="not a device"):
        wished(request)


def test_without_pod_information_no_namespace_is_guessed() -> None:
    request = publishing(TARGET, dataset="scenes")
    del request.volume_context["csi.storage.k8s.io/pod.namespace"]
    with pytest.raises(VolumeRequestError, match="podInfoOnMount"):
        wished(request)


@pytest.mark.parametrize(
    "target", [f"{ROOT}/pods/../../etc", f"{ROOT}/pods", f"{ROOT}/plugins/x", "pods/x", f"{TARGET}/"]
)
def test_nothing_outside_of_pods_is_mounted_on_or_taken_away(target: str) -> None:
    with pytest.raises(VolumeRequestError):
        checked_target(target, kubelet_dir=ROOT)


@pytest.mark.parametrize("uri", ["file:///etc", "file:///mnt/%2e%2e/etc", "file:///mntx", "dvc:///srv/project"])
def test_what_lies_on_the_node_is_refused_unless_its_administrator_allows_it(uri: str) -> None:
    mounted = dataset(mounts=[{"name": "raw", "uri": uri, "path": ""}])
    with pytest.raises(VolumeRefusedError, match="--files"):
        check_allowed(mounted, None, Allowed(files=("/mnt",)))


def test_what_its_administrator_allows_is_read() -> None:
    mounted = dataset(mounts=[{"name": "raw", "uri": "file:///mnt/raw", "path": ""}])
    check_allowed(mounted, runtime("/var/cache/forebay/1"), Allowed(caches=("/var/cache/forebay",), files=("/mnt",)))


@pytest.mark.parametrize("path", ["/etc", "/var/cache/forebay2", "/var/cache/forebay/../x"])
def test_a_cache_elsewhere_on_the_node_is_refused(path: str) -> None:
    with pytest.raises(VolumeRefusedError, match="--cache"):
        check_allowed(dataset(), runtime(path), Allowed(caches=("/var/cache/forebay",)))


def test_the_home_has_the_dataset_its_cache_alone_and_its_secret() -> None:
    declared = dataset(repo={"uri": "s3://versions/scenes", "secretRef": {"name": "s3"}})
    cached = runtime("/c", workers={"file": "/etc/workers", "tokenFile": "/etc/token"})
    files = home_files(declared, cached, {"key": "k", "secret": "s"})
    assert sorted(files) == [
        "manifests/cacheruntime-nvme.json", "manifests/dataset-scenes.json", "secrets/s3/key", "secrets/s3/secret"
    ]  # fmt: skip
    assert "workers" not in json.loads(files["manifests/cacheruntime-nvme.json"])["spec"]
    assert Dataset.model_validate(json.loads(files["manifests/dataset-scenes.json"])) == declared


def test_a_secret_that_did_not_come_is_named() -> None:
    declared = dataset(repo={"uri": "s3://versions/scenes", "secretRef": {"name": "s3"}})
    with pytest.raises(VolumeRefusedError, match=r"nodePublishSecretRef: \{name: s3\}"):
        home_files(declared, None, {})


def test_one_secret_brings_several() -> None:
    declared = dataset(
        repo={"uri": "s3://versions/scenes", "secretRef": {"name": "s3"}},
        mounts=[{"name": "raw", "uri": "gs://raw", "path": "", "secretRef": {"name": "s3-raw"}}],
    )
    files = home_files(declared, None, {"s3.key": "a", "s3-raw.key": "b"})
    assert (files["secrets/s3/key"], files["secrets/s3-raw/key"]) == ("a", "b")
    for key in ("key", "s3.", "../x"):
        with pytest.raises(VolumeRequestError):
            home_files(declared, None, {key: "a"})


@pytest.mark.parametrize(
    ("code", "status"), [(2, "INVALID_ARGUMENT"), (3, "NOT_FOUND"), (69, "UNAVAILABLE"), (9, "INTERNAL")]
)
def test_exit_codes_become_what_the_kubelet_understands(code: int, status: str) -> None:
    error = error_of_exit(code, "said")
    assert (error.status, str(error), isinstance(error, VolumeError)) == (status, "said", True)
