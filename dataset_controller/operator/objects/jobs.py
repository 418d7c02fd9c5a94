"""The jobs of operations: what all have, and that of a load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dataset_controller.operator.naming import RUN, SLOT, SPEC_DIGEST, fitting, labels_of
from dataset_controller.operator.objects.agent import AGENT
from dataset_controller.operator.objects.pods import (
    MANIFESTS,
    NON_ROOT,
    RESTRICTED,
    TOKEN_FILE,
    environment,
    home_volumes,
    secrets_of,
)
from dataset_controller.operator.objects.workers import token_name, workers_name

if TYPE_CHECKING:
    from dataset_controller.model import Dataset
    from dataset_controller.operations import DataLoad, Operation
    from dataset_controller.runtime_model import CacheRuntime

_GRACE_SECONDS = 30
_MOST_NAME = 57
"""A job adds five letters to the name of its pods."""


def verb_of(operation: Operation) -> str:
    """Return what an operation does, in one word: "load"."""
    return operation.kind.removeprefix("Data").lower()


def job_name(operation: Operation, run: int) -> str:
    """Return the name of a run's job."""
    end = f"-{verb_of(operation)}-{run}"
    return fitting(operation.metadata.name, most=_MOST_NAME - len(end)) + end


def run_of(job: dict[str, Any]) -> int:
    """Return which run a job is of; 0 if it says none."""
    text = (job["metadata"].get("annotations") or {}).get(RUN, "")
    return int(text) if text.isdigit() else 0


class Run(NamedTuple):
    """One run.

    Attributes:
        number: From 1.
        digest: Of the specification that it is made for.
        slot: The time that it was scheduled for, as Kubernetes writes it; "" without a schedule.
    """

    number: int
    digest: str
    slot: str = ""


def load_job(
    load: DataLoad, run: Run, dataset: Dataset, runtime: CacheRuntime, *, namespace: str, image: str
) -> dict[str, Any]:
    """Return the job of a run; it is made once, and never changed.

    Args:
        load: What is to be loaded.
        run: Which one.
        dataset: Its dataset.
        runtime: The cache of that.
        namespace: Of all of them.
        image: If the runtime names none.
    """
    return job_of(load, run, _pod(load, dataset, runtime, namespace, image), namespace)


def job_of(operation: Operation, run: Run, pod: dict[str, Any], namespace: str) -> dict[str, Any]:
    """Return the job of a run: what all operations have beside their pod; see `load_job`.

    Args:
        operation: What is to be done.
        run: Which one.
        pod: Specification of its pod.
        namespace: Of the job.
    """
    verb = verb_of(operation)
    labels = labels_of("job", operation=f"data{verb}-{operation.metadata.name}")
    annotations = {RUN: str(run.number), SPEC_DIGEST: run.digest}
    if run.slot:
        annotations[SLOT] = run.slot
    spec: dict[str, Any] = {
        "backoffLimit": operation.spec.retries,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    if operation.spec.deadline is not None:
        spec["activeDeadlineSeconds"] = max(1, round(operation.spec.deadline))
    metadata = {
        "name": job_name(operation, run.number),
        "namespace": namespace,
        "labels": labels,
        "annotations": annotations,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _pod(load: DataLoad, dataset: Dataset, runtime: CacheRuntime, namespace: str, image: str) -> dict[str, Any]:
    volumes, mounts = home_volumes(secrets_of([dataset]))
    volumes += [
        {"name": "manifests", "configMap": {"name": workers_name(runtime)}},
        {"name": "token", "secret": {"secretName": token_name(runtime)}},
    ]
    mounts += [
        {"name": "manifests", "mountPath": MANIFESTS, "readOnly": True},
        {"name": "token", "mountPath": TOKEN_FILE.rpartition("/")[0], "readOnly": True},
    ]
    pods = runtime.spec.pods
    container = {
        "name": "load",
        "image": pods.image or image,
        "imagePullPolicy": pods.image_pull_policy,
        "command": ["ds", "agent", "load", load.metadata.name, "--namespace", namespace, "--log", "json"],
        "env": environment(FOREBAY_WORKER_TOKEN_FILE=TOKEN_FILE),
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",  # what a pod said stays to be read
        "serviceAccountName": AGENT,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": NON_ROOT,
        "containers": [container],
        "volumes": volumes,
    }
    if pods.image_pull_secrets:
        pod["imagePullSecrets"] = pods.image_pull_secrets
    return pod
