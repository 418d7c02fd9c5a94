"""What applying a set of objects takes, decided without touching anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset_controller.errors import ManifestError
from dataset_controller.model import CacheRuntime, Dataset, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class CheckSources:
    """List one key of every mount, so that a wrong bucket, key or endpoint is found now."""

    dataset: Dataset


@dataclass(frozen=True)
class EnsureRepository:
    """Open the repository; create it, and probe its store, if it is not there."""

    dataset: Dataset


@dataclass(frozen=True)
class EnsureCache:
    """Create the cache directory if it is missing, and see that it can be written."""

    runtime: CacheRuntime


@dataclass(frozen=True)
class RecordResources:
    """Write the objects to the catalog, in one transaction: the last step, so that a failure leaves nothing."""

    resources: tuple[Resource, ...]


Action = CheckSources | EnsureRepository | EnsureCache | RecordResources


@dataclass(frozen=True)
class Observed:
    """What is there: the recorded objects by (kind, name)."""

    recorded: Mapping[tuple[str, str], Resource]


def plan_apply(desired: Sequence[Resource], observed: Observed) -> list[Action]:
    """Decide what to do, in order. Of what is recorded as declared only the repository and cache are ensured again.

    Raises:
        ManifestError: If a dataset refers to a cache runtime that is neither declared nor recorded, an object is
            declared twice, or a recorded dataset would move to another repository.
    """
    declared: dict[tuple[str, str], Resource] = {}
    for resource in desired:
        if declared.setdefault(_identity(resource), resource) is not resource:
            raise ManifestError("declared twice", source=f"{resource.kind}/{resource.metadata.name}")
    changed = tuple(item for key, item in declared.items() if observed.recorded.get(key) != item)
    actions: list[Action] = []
    for resource in declared.values():
        if isinstance(resource, CacheRuntime):
            actions.append(EnsureCache(resource))
            continue
        if resource in changed:
            _check_references(resource, declared, observed)
            actions.append(CheckSources(resource))
        actions.append(EnsureRepository(resource))
    return [*actions, RecordResources(changed)] if changed else actions


def _check_references(dataset: Dataset, declared: Mapping[tuple[str, str], Resource], observed: Observed) -> None:
    name = dataset.metadata.name
    if dataset.spec.cache is not None:
        runtime = ("CacheRuntime", dataset.spec.cache.runtime_ref.name)
        if runtime not in declared and runtime not in observed.recorded:
            reason = f"there is no CacheRuntime {runtime[1]!r}; declare it in the same file or apply it first"
            raise ManifestError(reason, source=f"Dataset/{name}", field="spec.cache.runtimeRef.name")
    before = observed.recorded.get(_identity(dataset))
    if isinstance(before, Dataset) and before.spec.repo.uri != dataset.spec.repo.uri:
        reason = f"a dataset keeps its repository ({before.spec.repo.uri}); delete the dataset first: ds delete {name}"
        raise ManifestError(reason, source=f"Dataset/{name}", field="spec.repo.uri")


def _identity(resource: Resource) -> tuple[str, str]:
    return resource.kind, resource.metadata.name
