"""The workers of a cache runtime: a stateful set on the disks of its nodes, and what it needs beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.naming import fitting, labels_of
from dataset_controller.operator.objects.pods import (
    MANIFESTS,
    TOKEN_FILE,
    WORKERS_FILE,
    environment,
    home_volumes,
    secrets_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dataset_controller.model import Dataset, Resource
    from dataset_controller.runtime_model import CacheRuntime

_GRACE_SECONDS = 15
"""After the drain, for what is being answered."""
_MOST_NAME = 52
"""A stateful set adds a number to the name of its pods, and a hash to a label."""


def workers_name(runtime: CacheRuntime) -> str:
    """Return the name of a runtime's stateful set, service, config map and budget."""
    return fitting(f"{runtime.metadata.name}-workers", most=_MOST_NAME)


def token_name(runtime: CacheRuntime) -> str:
    """Return the name of the secret that the workers' token is in."""
    return fitting(f"{runtime.metadata.name}-token")


def worker_names(runtime: CacheRuntime) -> list[str]:
    """Return what the workers are called: what placement goes by."""
    return [f"{workers_name(runtime)}-{number}" for number in range(runtime.spec.replicas)]


def worker_host(runtime: CacheRuntime, worker: str, namespace: str) -> str:
    """Return where a worker is found by name."""
    return f"{worker}.{workers_name(runtime)}.{namespace}.svc.cluster.local"


def manifests_map(runtime: CacheRuntime, datasets: Sequence[Dataset], namespace: str) -> dict[str, Any]:
    """Return the config map of the manifests and of the list of workers.

    Pods read it anew when it changes: neither another worker nor another dataset starts a pod again.
    """
    lines = [
        f"{name} http://{worker_host(runtime, name, namespace)}:{runtime.spec.port}\n" for name in worker_names(runtime)
    ]
    files = {f"cacheruntime-{runtime.metadata.name}.json": _manifest(_in_cluster(runtime))}
    files.update({f"dataset-{each.metadata.name}.json": _manifest(each) for each in datasets})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(runtime, namespace),
        "data": {WORKERS_FILE: "".join(lines), **files},
    }


def headless_service(runtime: CacheRuntime, namespace: str) -> dict[str, Any]:
    """Return the service that gives each worker its name; also to one that is not ready, so that it can drain."""
    port = {"name": "http", "port": runtime.spec.port, "targetPort": "http", "protocol": "TCP"}
    selector = labels_of("worker", runtime=runtime.metadata.name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(runtime, namespace),
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector, "ports": [port]},
    }


def disruption_budget(runtime: CacheRuntime, namespace: str, api_version: str) -> dict[str, Any]:
    """Return what lets nodes be drained one after the other.

    Args:
        runtime: The cache.
        namespace: Its own.
        api_version: "policy/v1", or "policy/v1beta1" of servers before 1.21.
    """
    selector = {"matchLabels": labels_of("worker", runtime=runtime.metadata.name)}
    return {
        "apiVersion": api_version,
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(runtime, namespace),
        "spec": {"maxUnavailable": 1, "selector": selector},
    }


def stateful_set(
    runtime: CacheRuntime, datasets: Sequence[Dataset], namespace: str, default_image: str
) -> dict[str, Any]:
    """Return the workers, each on a node of its own, with the cache on that node's disks.

    What is cached survives a pod that starts again or is replaced: it lies in directories of the node.

    Args:
        runtime: The cache.
        datasets: Those that use it: their secrets are mounted.
        namespace: Its own.
        default_image: If it names none.
    """
    spec, labels = runtime.spec, labels_of("worker", runtime=runtime.metadata.name)
    pods = spec.pods
    others = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    anti_affinity = {"requiredDuringSchedulingIgnoredDuringExecution": [others]}
    volumes, mounts = _volumes(runtime, datasets)
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": round(spec.drain_timeout) + _GRACE_SECONDS,
        "automountServiceAccountToken": False,  # a worker asks the API server nothing
        "affinity": {"podAntiAffinity": anti_affinity},
        "containers": [_container(runtime, mounts, default_image)],
        "volumes": volumes,
    }
    if pods.node_selector:
        pod["nodeSelector"] = pods.node_selector
    if pods.tolerations:
        pod["tolerations"] = pods.tolerations
    if pods.image_pull_secrets:
        pod["imagePullSecrets"] = pods.image_pull_secrets
    metadata: dict[str, Any] = {"labels": {**pods.labels, **labels}}
    if pods.annotations:
        metadata["annotations"] = pods.annotations
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(runtime, namespace),
        "spec": {
            "replicas": spec.replicas,
            "serviceName": workers_name(runtime),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": metadata, "spec": pod},
        },
    }


def _container(runtime: CacheRuntime, mounts: list[dict[str, Any]], default_image: str) -> dict[str, Any]:
    spec = runtime.spec
    container: dict[str, Any] = {
        "name": "worker",
        "image": spec.pods.image or default_image,
        "imagePullPolicy": spec.pods.image_pull_policy,
        "command": [
            "ds", "worker", "--runtime", runtime.metadata.name, "--listen", f"$(POD_IP):{spec.port}",
            "--name", "$(POD_NAME)", "--drain-seconds", f"{spec.drain_timeout:g}", "--log", "json",
        ],
        "env": environment(FOREBAY_WORKER_TOKEN_FILE=TOKEN_FILE),
        "ports": [{"name": "http", "containerPort": spec.port, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": mounts,
    }  # fmt: skip
    if spec.pods.resources:
        container["resources"] = spec.pods.resources
    return container


def _volumes(runtime: CacheRuntime, datasets: Sequence[Dataset]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes, mounts = home_volumes(secrets_of(datasets))
    volumes += [
        {"name": "manifests", "configMap": {"name": workers_name(runtime)}},
        {"name": "token", "secret": {"secretName": token_name(runtime)}},
    ]
    mounts += [
        {"name": "manifests", "mountPath": MANIFESTS, "readOnly": True},
        {"name": "token", "mountPath": TOKEN_FILE.rpartition("/")[0], "readOnly": True},
    ]
    for number, tier in enumerate(runtime.spec.tiers):
        volumes.append({"name": f"tier-{number}", "hostPath": {"path": tier.path, "type": "DirectoryOrCreate"}})
        mounts.append({"name": f"tier-{number}", "mountPath": tier.path})
    return volumes, mounts


def _in_cluster(runtime: CacheRuntime) -> CacheRuntime:
    """Return a runtime as its pods are to see it: with the workers that there are."""
    from dataset_controller.runtime_model import Workers

    workers = Workers(file=f"{MANIFESTS}/{WORKERS_FILE}", token_file=TOKEN_FILE)
    return runtime.model_copy(update={"spec": runtime.spec.model_copy(update={"workers": workers})})


def _manifest(resource: Resource) -> str:
    return json.dumps(resource.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=True)


def _metadata(runtime: CacheRuntime, namespace: str) -> dict[str, Any]:
    return {
        "name": workers_name(runtime),
        "namespace": namespace,
        "labels": labels_of("worker", runtime=runtime.metadata.name),
    }
