"""The jobs of packs, migrations and processes: their pods read what is declared from the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.operations import DataLoad, DataProcess, dataset_names, place_secrets
from dataset_controller.operator.objects.agent import AGENT
from dataset_controller.operator.objects.jobs import Run, job_of, load_job, verb_of
from dataset_controller.operator.objects.pods import HOME, NON_ROOT, RESTRICTED, home_volumes, secrets_of

if TYPE_CHECKING:
    from dataset_controller.operator.planning.runs import ObservedOperation

_GRACE_SECONDS = 60
"""For a commit that is being made."""
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_SECONDS = 3600
WORK = "/forebay"
"""Where the containers of a process find their files."""
INPUT, OUTPUT = f"{WORK}/input", f"{WORK}/output"


def operation_job(observed: ObservedOperation, run: Run) -> dict[str, Any]:
    """Return the job of a run; it is made once, and never changed. What it needs must be there."""
    operation = observed.operation
    namespace = observed.owner["metadata"]["namespace"]
    if isinstance(operation, DataLoad):
        dataset = observed.datasets[dataset_names(operation)[0]]
        assert observed.runtime is not None
        return load_job(operation, run, dataset, observed.runtime, namespace=namespace, image=observed.image)
    if isinstance(operation, DataProcess):
        return _process_job(operation, observed, run, namespace)
    volumes, mounts = _home(observed)
    container = _container(verb_of(operation), ["ds", "agent", verb_of(operation)], mounts, observed)
    pod = {
        "restartPolicy": "Never",  # what a pod said stays to be read
        "serviceAccountName": AGENT,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": NON_ROOT,
        "containers": [container],
        "volumes": volumes,
    }
    return job_of(operation, run, pod, namespace)


def _process_job(operation: DataProcess, observed: ObservedOperation, run: Run, namespace: str) -> dict[str, Any]:
    """Return the job of a process: files are brought, the user's containers run one after the other, then the commit.

    Only the first and the last container have the credentials of the dataset and of the API server.
    """
    template = operation.spec.template
    theirs: dict[str, Any] = dict(template["spec"])
    volumes, mounts = _home(observed)
    volumes += [{"name": "forebay-work", "emptyDir": {}}, {"name": "forebay-account", "projected": _account()}]
    shared = {"name": "forebay-work", "mountPath": WORK}
    own = [*mounts, shared, {"name": "forebay-account", "mountPath": _ACCOUNT, "readOnly": True}]
    brings = _container("forebay-input", ["ds", "agent", "process", "--bring"], own, observed)
    commits = _container("forebay-commit", ["ds", "agent", "process", "--commit"], own, observed)
    users = [_users(each, shared, operation) for each in (*theirs.get("initContainers", ()), *theirs["containers"])]
    pod = {
        **theirs,
        "restartPolicy": "Never",
        "serviceAccountName": AGENT,
        "automountServiceAccountToken": False,
        "securityContext": {**NON_ROOT, **theirs.get("securityContext", {})},
        "initContainers": [brings, *users],
        "containers": [commits],
        "volumes": [*theirs.get("volumes", ()), *volumes],
    }
    job = job_of(operation, run, pod, namespace)
    metadata, given = job["spec"]["template"]["metadata"], template.get("metadata") or {}
    metadata["labels"] = {**given.get("labels", {}), **metadata["labels"]}
    if given.get("annotations"):
        metadata["annotations"] = given["annotations"]
    return job


def _users(container: dict[str, Any], shared: dict[str, Any], operation: DataProcess) -> dict[str, Any]:
    """Return a container of the user, which finds its files."""
    (dataset,) = dataset_names(operation)
    texts = {"FOREBAY_INPUT": INPUT, "FOREBAY_OUTPUT": OUTPUT, "FOREBAY_DATASET": dataset}
    own = [{"name": name, "value": value} for name, value in texts.items()]
    known = {each["name"] for each in own}
    env = [each for each in container.get("env", ()) if each.get("name") not in known]
    return {**container, "env": [*own, *env], "volumeMounts": [*container.get("volumeMounts", ()), shared]}


def _container(
    name: str, command: list[str], mounts: list[dict[str, Any]], observed: ObservedOperation
) -> dict[str, Any]:
    metadata = observed.owner["metadata"]
    fields = {"POD_NAME": "metadata.name", "NODE_NAME": "spec.nodeName"}
    names = [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()]
    return {
        "name": name,
        "image": observed.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*command, metadata["name"], "--namespace", metadata["namespace"], "--log", "json"],
        "env": [*names, {"name": "FOREBAY_HOME", "value": HOME}],
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }


def _home(observed: ObservedOperation) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts of the home, with all secrets that the operation or its datasets name."""
    datasets = [observed.datasets[name] for name in dataset_names(observed.operation)]
    return home_volumes(sorted({*secrets_of(datasets), *place_secrets(observed.operation)}))


def _account() -> dict[str, Any]:
    """Return what the containers that ask the API server mount: the user's own may not be the agent."""
    return {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]
    }
