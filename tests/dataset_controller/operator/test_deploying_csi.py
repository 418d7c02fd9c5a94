"""What puts the CSI driver onto the nodes of a cluster."""

from __future__ import annotations

import pytest
import yaml

from dataset_controller.operator.deploying import Installation, NodeDriver, manifests_text, node_driver_objects
from dataset_controller.operator.deploying.installing import installed_objects
from dataset_controller.operator.deploying.node_driver import driver_parts, driver_rules
from ds.application import run
from tests.dataset_controller.operator.test_deploying import CHART, by_name, rendered, rights
from tests.services import helm


def test_the_driver_reads_two_kinds_and_no_secret() -> None:
    assert rights(driver_rules()) == {("forebay.dev", kind, "get") for kind in ("datasets", "cacheruntimes")}


def test_the_driver_is_privileged_in_a_namespace_of_its_own() -> None:
    made = by_name(node_driver_objects(NodeDriver()))
    assert {namespace for _, namespace, _ in made} == {"", "forebay-csi"}
    pod = made["DaemonSet", "forebay-csi", "forebay-csi"]["spec"]["template"]["spec"]
    hosts = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert hosts == {"kubelet": "/var/lib/kubelet", "cache": "/var/cache/forebay"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_an_update_ends_no_mount() -> None:
    made = by_name(node_driver_objects(NodeDriver()))
    assert made["DaemonSet", "forebay-csi", "forebay-csi"]["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_the_command_prints_the_driver_if_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "manifests", "--image", "reg/f:1"]) == 0
    assert "CSIDriver" not in capsys.readouterr().out
    assert run(["k8s", "manifests", "--image", "reg/f:1", "--csi"]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    wanted = list(yaml.safe_load_all(manifests_text(node_driver_objects(NodeDriver(image="reg/f:1")))))
    assert printed[-len(wanted) :] == wanted


def test_claims_take_the_driver_and_a_right_in_the_whole_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "manifests", "--claims"]) == 2
    assert run(["k8s", "manifests", "--csi", "--claims", "--serve", "ml"]) == 2
    assert run(["controller", "--claims", "--namespace", "ml"]) == 2
    capsys.readouterr()
    assert run(["k8s", "manifests", "--csi", "--claims", "--no-rules"]) == 0
    made = by_name(yaml.safe_load_all(capsys.readouterr().out))
    assert ("ClusterRoleBinding", "", "forebay-controller-claims") in made
    (container,) = made["Deployment", "forebay-system", "forebay-controller"]["spec"]["template"]["spec"]["containers"]
    assert "--claims" in container["command"]


def test_the_chart_makes_claims_if_they_are_wanted() -> None:
    found = rendered({"csi": {"enabled": True, "claims": True}})
    wanted = by_name(installed_objects(Installation(namespace="here", claims=True)))
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        key = (kind, "", "forebay-controller-claims")
        assert found[key] == wanted[key]
    (container,) = found["Deployment", "here", "forebay-controller"]["spec"]["template"]["spec"]["containers"]
    assert "--claims" in container["command"]
    with pytest.raises(ValueError, match="leave namespaces empty"):
        rendered({"csi": {"claims": True}, "namespaces": ["ml"]})


def test_the_chart_makes_the_driver_if_it_is_enabled() -> None:
    assert not [name for kind, _, name in rendered() if kind == "CSIDriver"]
    assert helm.lint(CHART, {"csi": {"enabled": True}}) == []
    found = rendered({"csi": {"enabled": True, "cache": "/nvme"}, "image": {"pullSecrets": [{"name": "reg"}]}})
    wanted = by_name(driver_parts(NodeDriver("here", cache="/nvme")))
    assert wanted.keys() <= found.keys()
    assert found["DaemonSet", "here", "forebay-csi"]["spec"]["template"]["spec"].pop("imagePullSecrets") == [
        {"name": "reg"}
    ]
    assert {key: found[key] for key in wanted} == wanted
