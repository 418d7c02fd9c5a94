"""From a declared dataset to its open stores, repository and cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cache_runtime import BlockStore, Client
from sources import Origins, RepositoryStore, SourceConfigError, Store, SwapObject, open_store
from versioning import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dataset_controller.model import CacheRuntime, Dataset, Repo


@dataclass(frozen=True)
class OpenDataset:
    """A dataset whose parts open when they are first used.

    Attributes:
        resource: As declared.
        runtime: The cache runtime it refers to, if any.
    """

    resource: Dataset
    runtime: CacheRuntime | None

    @cached_property
    def stores(self) -> Mapping[str, Store]:
        """The store of each mount, by the mount's name."""
        mounts = self.resource.spec.mounts
        return {mount.name: open_store(mount.uri, mount.options, limits=mount.store_limits) for mount in mounts}

    @cached_property
    def repository(self) -> Repository:
        """The repository."""
        repo = self.resource.spec.repo
        return Repository.open(open_repository_store(repo), repo.prefix)

    @cached_property
    def origins(self) -> Origins:
        """Where blocks may be filled from: the mounts and the repository, nothing else."""
        origins = Origins()
        for mount in self.resource.spec.mounts:
            origins.add(mount.prefix, self.stores[mount.name])
        origins.add(self.repository.prefix, self.repository.store)
        return origins

    @cached_property
    def client(self) -> Client:
        """Reads through this node's cache; straight from the origins where the dataset names no cache."""
        return Client(self.origins, self.block_store)

    @cached_property
    def block_store(self) -> BlockStore | None:
        """The cache directory of this node, if the dataset names a cache."""
        return open_block_store(self.runtime) if self.runtime else None


def open_block_store(runtime: CacheRuntime) -> BlockStore:
    """Open, and create if missing, the cache directory of a runtime. Errors as in `BlockStore.open`."""
    (tier,) = runtime.spec.tiers
    return BlockStore.open(Path(tier.path), capacity_bytes=tier.capacity, free_floor_bytes=tier.free_floor)


def open_repository_store(repo: Repo) -> RepositoryStore:
    """Open the store of a repository.

    Raises:
        SourceConfigError: If the store has no compare-and-swap.
    """
    store = open_store(repo.uri, repo.options, limits=repo.store_limits)
    if not isinstance(store, SwapObject):
        raise SourceConfigError(
            f"{repo.uri}: this store has no conditional writes; keep the repository on s3://, gs://, az:// or file://"
        )
    return store
