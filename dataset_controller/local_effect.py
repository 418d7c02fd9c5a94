"""Which declared fields only a cluster heeds: one file serves a laptop and Kubernetes, and nobody wonders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.alias_generators import to_camel

from dataset_controller.model import Dataset

if TYPE_CHECKING:
    from dataset_controller.model import Resource

_OF_RUNTIMES = ("replicas", "port", "pods", "drain_timeout", "autoscale")
_OF_DATASETS = ("sync",)


def without_effect_here(resource: Resource) -> list[str]:
    """Return the fields that the object sets and that mean nothing on one machine, as they are written."""
    fields = _OF_DATASETS if isinstance(resource, Dataset) else _OF_RUNTIMES
    return [f"spec.{to_camel(name)}" for name in fields if name in resource.spec.model_fields_set]
