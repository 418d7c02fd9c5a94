"""What users of the chart may set; its `values.yaml` and `values.schema.json` are generated from here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dataset_controller.fields import LocalPath, Model, Name
from dataset_controller.operator.deploying.installing import RESOURCES
from dataset_controller.operator.deploying.node_driver import CACHE, KUBELET


class Image(Model):
    """Which image runs."""

    repository: str = "forebay"
    tag: str = ""
    """The chart's `appVersion`, if it is empty."""
    digest: str = ""
    """`sha256:...`, which goes before the tag."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[dict[Literal["name"], Name]] = Field(default=[])
    """`- name: SECRET` each, of the controller's pods; those of workers are a CacheRuntime's."""


class Csi(Model):
    """The CSI driver, by which pods see a Dataset as a volume."""

    enabled: bool = False
    """Its pods are privileged and run on every node; the release's namespace must allow that."""
    cache: LocalPath = CACHE
    """Directory of each node; the tiers of caches that volumes read through lie below it."""
    kubelet_dir: LocalPath = KUBELET
    """The kubelet's root on each node."""
    claims: bool = False
    """Each Dataset has a PersistentVolumeClaim of its name; not if `namespaces` are named, as volumes are the whole
    cluster's, and so is the controller's right to make them."""


class Values(Model):
    """Values of the chart."""

    image: Image = Image()
    """Of the controller, and of the workers, agents and jobs that it makes."""
    replicas: int = Field(default=1, ge=1)
    """Controllers; one acts, another takes over within 20 seconds of its death."""
    namespaces: list[Name] = Field(default=[])
    """Namespaces that are served; its rights end there. None: all of the cluster."""
    people_roles: bool = True
    """Let those who have the roles view, edit and admin of a namespace see and change our objects in it."""
    metrics_service: bool = True
    """A Service in front of the metrics."""
    webhook: bool = True
    """The API server asks the controller about our objects, and about pods that name a dataset."""
    csi: Csi = Csi()
    """Off unless it is enabled."""
    resources: dict[str, Any] = Field(default=RESOURCES)
    """Of the controller's container."""
    node_selector: dict[str, str] = Field(default={})
    """Of the controller's pods, as what follows."""
    tolerations: list[dict[str, Any]] = Field(default=[])
    affinity: dict[str, Any] = Field(default={})
    priority_class_name: str = ""
    pod_labels: dict[str, str] = Field(default={})
    pod_annotations: dict[str, str] = Field(default={})
