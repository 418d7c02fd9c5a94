"""Which declared fields only a cluster heeds: one file serves a laptop and Kubernetes, and nobody wonders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.alias_generators import to_camel

from dataset_controller.model import CacheRuntime, Dataset
from dataset_controller.operations import DataProcess

if TYPE_CHECKING:
    from dataset_controller.model import Resource
    from dataset_controller.operations import Operation

_OF_RUNTIMES = ("replicas", "port", "pods", "drain_timeout", "autoscale")
_OF_DATASETS = ("sync",)


def without_effect_here(resource: Resource | Operation) -> list[str]:
    """Return the fields that the object sets and that mean nothing on one machine, as they are written."""
    if isinstance(resource, DataProcess):
        return _of_template(resource)
    if not isinstance(resource, Dataset | CacheRuntime):
        return []
    fields = _OF_DATASETS if isinstance(resource, Dataset) else _OF_RUNTIMES
    return [f"spec.{to_camel(name)}" for name in fields if name in resource.spec.model_fields_set]


def _of_template(process: DataProcess) -> list[str]:
    """Name what a pod template says beside the programs that are run, and their variables."""
    template = process.spec.template
    found = [f"spec.template.{name}" for name in template if name != "spec"]
    found += [f"spec.template.spec.{name}" for name in template["spec"] if name not in ("containers", "initContainers")]
    heeded = {"name", "command", "args", "env"}
    others = {name for each in template["spec"]["containers"] for name in each} - heeded
    return [*found, *(f"spec.template.spec.containers[].{name}" for name in sorted(others))]
