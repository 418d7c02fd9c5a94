"""What puts the operator into a cluster: generated files, the chart, rights, pod security."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
import yaml

from dataset_controller.crds import definitions
from dataset_controller.model import KINDS
from dataset_controller.operations import OPERATIONS
from dataset_controller.operator.deploying import Installation, all_documents, manifests_text
from dataset_controller.operator.deploying.installing import installed_objects
from dataset_controller.operator.deploying.values import Values
from dataset_controller.operator.objects.agent import agent_objects, agent_rules
from dataset_controller.operator.rbac import claim_rules, lease_rules, operator_rules
from ds.application import run
from tests.services import helm
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "forebay"
EXAMPLES = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))
Right = tuple[str, str, str]


def rights(rules: Iterable[dict[str, Any]]) -> set[Right]:
    """Return each verb on each resource that rules allow."""
    return {right for rule in rules for right in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])}


def by_name(documents: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return documents by kind, namespace and name."""
    return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in documents}


def test_the_generated_files_are_what_the_models_make() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate_crds.py"))
    stale = [
        file for file, text in generator["deploy_files"]().items() if not file.exists() or file.read_text() != text
    ]
    assert (stale, generator["surplus_files"]()) == ([], []), "run: python docs/generate_crds.py"


def test_the_operator_has_what_it_grants_and_no_right_to_look_at_secrets() -> None:
    own = rights(operator_rules())
    assert rights(agent_rules()) <= own  # or the API server would refuse the agent's role
    assert {verb for _, resource, verb in own if resource.startswith("secrets")} == {"create"}
    every = own | rights(lease_rules()) | rights(claim_rules())
    assert not {right for right in own if "volume" in right[1]}  # whoever may make volumes may show nodes' files
    assert not [right for right in every if "*" in right]
    assert not {"bind", "escalate", "impersonate"} & {verb for _, _, verb in every}
    assert not {"pods/exec", "nodes", "namespaces"} & {resource for _, resource, _ in every}


@pytest.mark.parametrize("served", [(), ("ml", "vision")])
def test_rights_end_where_the_operator_serves(served: tuple[str, ...]) -> None:
    made = by_name(installed_objects(Installation(namespace="here", served=served)))
    bound = {(kind, namespace) for kind, namespace, name in made if name == "forebay-controller" and "Binding" in kind}
    assert bound == ({("RoleBinding", each) for each in served} or {("ClusterRoleBinding", "")})
    for kind, namespace, name in made:
        if kind.endswith("Binding"):
            binding = made[kind, namespace, name]
            assert (binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]) in made
            assert ("ServiceAccount", "here", binding["subjects"][0]["name"]) in made


def pods() -> Iterator[dict[str, Any]]:
    for each in (*installed_objects(Installation()), *agent_objects("ml", [], "forebay", ["token"])):
        if each["kind"] == "Deployment":
            yield each["spec"]["template"]["spec"]


def test_operator_and_agents_fit_the_restricted_profile_of_pod_security() -> None:
    """Source: Pod Security Standards of Kubernetes, profile "restricted"."""
    found = list(pods())
    assert len(found) == 2
    for pod in found:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in pod["volumes"]:
            assert volume.keys() - {"name"} <= {"emptyDir", "secret", "configMap", "projected", "downwardAPI"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_command_prints_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "manifests", "--namespace", "here", "--image", "reg/f:1", "--serve", "ml", "--no-rules"]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    wanted = Installation(namespace="here", image="reg/f:1", served=["ml"])
    assert printed == list(yaml.safe_load_all(manifests_text(all_documents(wanted, with_rules=False))))
    assert "x-kubernetes-validations" not in str(printed)
    assert run(["k8s", "manifests", "--namespace", "Not_A_Name"]) == 2


def test_the_values_of_the_chart_are_described_and_fit_their_schema() -> None:
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    assert Values.model_validate(values) == Values()
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    jsonschema_rs.validate(schema, values)
    assert not jsonschema_rs.is_valid(schema, {**values, "replica": 2})


def rendered(values: dict[str, Any] | None = None) -> dict[tuple[str, str, str], dict[str, Any]]:
    require(helm.missing())
    templates = helm.template(CHART, values)
    texts = [text for path, text in templates.items() if path.endswith(".yaml")]
    return by_name(document for text in texts for document in yaml.safe_load_all(text) if document)


@pytest.mark.parametrize("values", [None, {"namespaces": ["ml"], "replicas": 2, "image": {"digest": "sha256:12"}}])
def test_helm_has_nothing_against_the_chart(values: dict[str, Any] | None) -> None:
    require(helm.missing())
    assert helm.lint(CHART, values) == []


@pytest.mark.parametrize("served", [[], ["ml", "vision"]])
def test_the_chart_makes_the_objects_of_the_manifests(served: list[str]) -> None:
    made = rendered({"namespaces": served})
    wanted = by_name(installed_objects(Installation(namespace="here", served=served)))
    wanted = {key: each for key, each in wanted.items() if key[0] != "Namespace"}
    assert made.keys() == wanted.keys()
    for key, document in wanted.items():
        found = made[key]
        for labels in ("selector", "template"):  # two releases may be in one namespace
            found.get("spec", {}).get(labels, {}).get("matchLabels", {}).pop("app.kubernetes.io/instance", None)
            found.get("spec", {}).get(labels, {}).pop("app.kubernetes.io/instance", None)
            (found.get("spec", {}).get(labels, {}).get("metadata") or {}).get("labels", {}).pop(
                "app.kubernetes.io/instance", None
            )
        assert found == document


def test_values_reach_the_pods() -> None:
    values: dict[str, Any] = {
        "image": {"repository": "reg/f", "tag": "2", "pullSecrets": [{"name": "reg"}], "pullPolicy": "Always"},
        "peopleRoles": False,
        "metricsService": False,
        "webhook": False,
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"team": "data"},
        "podAnnotations": {"note": "yes: no"},
    }
    made = rendered(values)
    assert {kind for kind, _, _ in made} & {"Service"} == set()
    assert not [name for _, _, name in made if name.endswith(("-view", "-edit"))]
    template = made["Deployment", "here", "forebay-controller"]["spec"]["template"]
    assert not [word for word in template["spec"]["containers"][0]["command"] if "webhook" in word]
    assert template["metadata"]["labels"]["team"] == "data"
    assert template["metadata"]["annotations"] == {"note": "yes: no"}
    pod, container = template["spec"], template["spec"]["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("reg/f:2", "Always")
    assert {"name": "FOREBAY_IMAGE", "value": "reg/f:2"} in container["env"]
    assert container["resources"]["limits"] == values["resources"]["limits"]  # mappings are merged
    assert pod["imagePullSecrets"] == [{"name": "reg"}]
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod[field] == values[field]


def test_values_that_the_chart_does_not_know_are_refused() -> None:
    require(helm.missing())
    with pytest.raises(ValueError, match="replica"):
        helm.template(CHART, {"replica": 2})


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_are_what_the_models_and_the_definitions_accept(file: Path) -> None:
    models: dict[str, Any] = {**KINDS, **OPERATIONS}
    schemas = {each["spec"]["names"]["kind"]: each["spec"]["versions"][0] for each in definitions()}
    for document in yaml.safe_load_all(file.read_text()):
        if document["kind"] in models:
            models[document["kind"]].model_validate(document)
            names = schemas[document["kind"]]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            assert document["spec"].keys() <= names.keys()
