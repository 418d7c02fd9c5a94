"""The control plane of one machine: plans, does it, and records it in the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dataset_controller.importing import check_sources
from dataset_controller.local_effect import without_effect_here
from dataset_controller.opening import OpenDataset, ensure_directories, open_repository_store
from dataset_controller.planner import Action, CheckSources, EnsureCache, EnsureRepository, Observed, plan_apply
from versioning import Repository, RepositoryExistsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cache_runtime.peers import PeerSecurity
    from dataset_controller.catalog import Catalog
    from dataset_controller.model import Dataset, Resource


@dataclass(frozen=True)
class Applied:
    """What became of one object.

    Attributes:
        kind: Its kind.
        name: Its name.
        change: As kubectl says it.
        without_effect: Fields that it sets and that only a cluster heeds.
    """

    kind: str
    name: str
    change: Literal["created", "configured", "unchanged"]
    without_effect: tuple[str, ...] = ()


def apply(catalog: Catalog, desired: Sequence[Resource]) -> list[Applied]:
    """Make what is declared true on this machine. Run again after a failure: nothing was recorded.

    Raises:
        ManifestError: If the objects do not fit together.
        SourceError, VersioningError, CacheError: If a source, the repository or the cache directory cannot be used.
    """
    recorded: dict[tuple[str, str], Resource] = {
        (resource.kind, resource.metadata.name): found.resource
        for resource in [*desired, *_runtimes_used(desired, catalog)]
        if (found := catalog.find(resource.kind, resource.metadata.name))
    }
    for action in plan_apply(desired, Observed(recorded)):
        _perform(catalog, action)
    return [_applied(resource, recorded.get((resource.kind, resource.metadata.name))) for resource in desired]


def open_dataset(catalog: Catalog, name: str, access: PeerSecurity | None = None) -> OpenDataset:
    """Open an applied dataset.

    Args:
        catalog: What was applied.
        name: The dataset.
        access: What the environment says to show to workers.

    Raises:
        DatasetNotFoundError: If it was never applied here.
    """
    dataset = catalog.dataset(name)
    return OpenDataset(dataset, catalog.runtime_of(dataset), access, catalog.secrets)


def _runtimes_used(desired: Sequence[Resource], catalog: Catalog) -> list[Resource]:
    names = [item.spec.cache.runtime_ref.name for item in desired if item.kind == "Dataset" and item.spec.cache]
    return [record.resource for name in names if (record := catalog.find("CacheRuntime", name))]


def _perform(catalog: Catalog, action: Action) -> None:
    if isinstance(action, CheckSources):
        check_sources(OpenDataset(action.dataset, None, secrets=catalog.secrets))
    elif isinstance(action, EnsureRepository):
        ensure_repository(action.dataset, catalog.secrets)
    elif isinstance(action, EnsureCache):
        ensure_directories(action.runtime)
    else:
        catalog.put(list(action.resources))


def ensure_repository(dataset: Dataset, secrets: Path) -> None:
    """Create the repository of a dataset, if it is not there. Errors as in `Repository.init` and `Repository.open`."""
    repo = dataset.spec.repo
    store = open_repository_store(repo, secrets)
    try:
        Repository.init(store, repo.prefix)
    except RepositoryExistsError:
        Repository.open(store, repo.prefix)  # says so if this version cannot read it


def _applied(resource: Resource, before: Resource | None) -> Applied:
    change: Literal["created", "configured", "unchanged"] = "created"
    if before is not None:
        change = "unchanged" if before == resource else "configured"
    return Applied(resource.kind, resource.metadata.name, change, tuple(without_effect_here(resource)))
