"""What a pod gets that asks for its dataset as files."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("google.protobuf")

from dataset_controller.operator.planning.gates import DatasetFacts
from dataset_controller.operator.webhook.mutating import patch_of
from ds.csi.asking import wish_of
from ds.csi.messages import message_class
from tests.dataset_controller.operator.test_pods_webhook import patched

FACTS = DatasetFacts("scenes", "", False, None, secrets=["s3"])


def pod(**annotations: str) -> dict[str, Any]:
    told = {f"forebay.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    labels = {"forebay.dev/dataset": "scenes", "forebay.dev/inject": "true"}
    spec: dict[str, Any] = {
        "initContainers": [{"name": "first", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}],
        "containers": [{"name": "train"}, {"name": "own", "volumeMounts": [{"name": "tmp", "mountPath": "/data"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {"metadata": {"name": "train", "labels": labels, "annotations": told}, "spec": spec}


def test_every_container_sees_the_dataset() -> None:
    asked = pod()
    patch, warnings = patch_of(asked, "scenes", FACTS)
    spec = patched(asked, patch)["spec"]
    assert warnings == []
    driver = {
        "driver": "forebay.dev",
        "readOnly": True,
        "volumeAttributes": {"dataset": "scenes"},
        "nodePublishSecretRef": {"name": "s3"},
    }
    assert spec["volumes"] == [{"name": "tmp", "emptyDir": {}}, {"name": "forebay-dataset", "csi": driver}]
    mount = {"name": "forebay-dataset", "mountPath": "/datasets/scenes", "readOnly": True}
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["volumeMounts"][-1] == mount
    assert patch_of(patched(asked, patch), "scenes", FACTS) == ([], [])


def test_annotations_say_where_which_and_with_what() -> None:
    asked = pod(mount_path="/data", revision="v1", secret="both")
    facts = DatasetFacts("scenes", "", False, None, secrets=["s3", "hdfs"])
    spec = patched(asked, patch_of(asked, "scenes", facts)[0])["spec"]
    driver = spec["volumes"][-1]["csi"]
    assert driver["volumeAttributes"] == {"dataset": "scenes", "revision": "v1"}
    assert driver["nodePublishSecretRef"] == {"name": "both"}
    paths = [[each["mountPath"] for each in container["volumeMounts"]] for container in spec["containers"]]
    assert paths == [["/data"], ["/data"]]  # one of them had something of its own there


def test_a_dataset_without_a_secret_needs_none() -> None:
    patch, _ = patch_of(pod(), "scenes", DatasetFacts("scenes", "", False, None))
    assert "nodePublishSecretRef" not in patch[0]["value"]["csi"]


def test_who_does_not_ask_gets_nothing() -> None:
    for value in (None, "false", "yes"):
        asked = pod()
        asked["metadata"]["labels"].pop("forebay.dev/inject")
        if value is not None:
            asked["metadata"]["labels"]["forebay.dev/inject"] = value
        assert patch_of(asked, "scenes", FACTS) == ([], [])


@pytest.mark.parametrize("path", ["data", "/", "/a/../b", "/a/", "/a:b", "//a", "/a//b"])
def test_an_odd_path_is_a_warning_and_changes_nothing(path: str) -> None:
    patch, (warning,) = patch_of(pod(mount_path=path), "scenes", FACTS)
    assert patch == []
    assert "forebay.dev/mount-path" in warning


def test_of_several_secrets_one_has_to_be_named() -> None:
    facts = DatasetFacts("scenes", "", False, None, secrets=["s3", "hdfs"])
    patch, (warning,) = patch_of(pod(), "scenes", facts)
    assert patch == []
    assert "forebay.dev/secret" in warning
    assert len(warning) < 256


def test_the_driver_understands_the_volume() -> None:
    driver = patch_of(pod(revision="v1"), "scenes", FACTS)[0][0]["value"]["csi"]
    context = {**driver["volumeAttributes"], "csi.storage.k8s.io/ephemeral": "true"}
    context["csi.storage.k8s.io/pod.namespace"] = "ml"
    target = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/forebay-dataset/mount"
    request = message_class("csi.v1.NodePublishVolumeRequest")(
        volume_id="csi-1", target_path=target, readonly=driver["readOnly"], volume_context=context
    )
    wish = wish_of(request, kubelet_dir="/var/lib/kubelet")
    assert (wish.namespace, wish.source) == ("ml", "scenes@v1")
