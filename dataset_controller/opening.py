"""From a declared dataset to its open stores, repository and cache; what reads through no cache loads none."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cache_runtime
from dataset_controller.secrets import with_secret
from sources import Origins, RepositoryStore, SourceConfigError, Store, SwapObject, open_store
from versioning import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache_runtime import Client
    from cache_runtime.peers import Peers, PeerSecurity
    from cache_runtime.store.disks import Disk
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shares import Share
    from dataset_controller.model import CacheRuntime, Dataset, Mount, Repo
    from dataset_controller.plain import PlainManifest


@dataclass(frozen=True)
class OpenDataset:
    """A dataset whose parts open when they are first used.

    Attributes:
        resource: As declared.
        runtime: The cache runtime it refers to, if any.
        access: What the environment says to show to workers.
        secrets: Directory of the secrets that the dataset may name.
        opened: The repository, where it is open already.
    """

    resource: Dataset
    runtime: CacheRuntime | None
    access: PeerSecurity | None = None
    secrets: Path | None = None
    opened: Repository | None = field(default=None, repr=False)
    _clients: dict[Share, Client] = field(default_factory=dict, repr=False)

    @cached_property
    def stores(self) -> Mapping[str, Store]:
        """The store of each mount, by the mount's name."""
        return {
            mount.name: open_store(mount.uri, self.options_of(mount), limits=mount.store_limits)
            for mount in self.resource.spec.mounts
        }

    @cached_property
    def repository_store(self) -> RepositoryStore:
        """The store of the repository."""
        return self.opened.store if self.opened else open_repository_store(self.resource.spec.repo, self.secrets)

    def options_of(self, mount: Mount) -> dict[str, Any]:
        """Return the options of a mount's store, those of its secret too. Raises as `with_secret`."""
        return with_secret(mount.options, mount.secret_ref, self.secrets)

    @cached_property
    def repository(self) -> Repository:
        """The repository."""
        return self.opened or Repository.open(self.repository_store, self.resource.spec.repo.prefix)

    @cached_property
    def origins(self) -> Origins:
        """Where blocks may be filled from: the mounts and the repository, nothing else."""
        origins = Origins()
        add_origins(origins, self)
        return origins

    @cached_property
    def client(self) -> Client:
        """Reads through this node's cache; straight from the origins where the dataset names no cache."""
        return self.client_for(0)

    def client_for(self, version_bytes: int) -> Client:
        """Return a client for a version of so many bytes: a cache that is too small for it keeps what it has."""
        share = self.share_for(version_bytes)
        if share not in self._clients:
            self._clients[share] = cache_runtime.Client(self.origins, self.block_store, peers=self.peers, share=share)
        return self._clients[share]

    def share_for(self, version_bytes: int) -> Share:
        """Return the dataset's share of this node's cache, see `plan_share`."""
        from dataset_controller.sharing import share_in

        return share_in(self.block_store, self.peers, self.resource, version_bytes=version_bytes)

    @cached_property
    def block_store(self) -> NodeStore | None:
        """The cache of this node, if the dataset names one."""
        return open_node_store(self.runtime) if self.runtime else None

    @cached_property
    def peers(self) -> Peers | None:
        """The workers of the cache, if it has some."""
        if self.runtime is None or self.block_store is None or self.resource.spec.cache is None:
            return None
        from dataset_controller.peering import open_peers

        replicas = self.resource.spec.cache.replicas
        return open_peers(self.runtime, self.access, directory=self.block_store.directory, replicas=replicas)


def add_origins(origins: Origins, opened: OpenDataset) -> None:
    """Allow reads of a dataset's sources and repository."""
    for mount in opened.resource.spec.mounts:
        origins.add(mount.prefix, opened.stores[mount.name])
    origins.add(opened.resource.spec.repo.prefix, opened.repository_store)


def open_node_store(runtime: CacheRuntime) -> NodeStore:
    """Open, and create if missing, the cache directories of a runtime; one that fails beside others is left out.

    Errors as in `cache_runtime.store.disks.open_store`.
    """
    return cache_runtime.open_store(_disks(runtime))


def ensure_directories(runtime: CacheRuntime) -> None:
    """Create the cache directories of a runtime, and see that each can be used. Errors as in `BlockStore.open`."""
    for disk in _disks(runtime):
        cache_runtime.open_store([disk])


def _disks(runtime: CacheRuntime) -> list[Disk]:
    tiers = runtime.spec.tiers
    return [
        cache_runtime.Disk(Path(tier.path), capacity_bytes=tier.capacity, free_floor_bytes=tier.free_floor)
        for tier in tiers
    ]


def open_repository_store(repo: Repo, secrets: Path | None = None) -> RepositoryStore:
    """Open the store of a repository.

    Args:
        repo: As declared.
        secrets: Directory of the secrets.

    Raises:
        SourceConfigError: If the store has no compare-and-swap, or its secret is not there.
    """
    return _swapping(
        open_store(repo.uri, with_secret(repo.options, repo.secret_ref, secrets), limits=repo.store_limits), repo.uri
    )


def open_plain_repository(manifest: PlainManifest) -> Repository:
    """Open the repository of a manifest that declares nothing else. Raises as `open_repository_store`."""
    return Repository.open(_swapping(open_store(manifest.uri), manifest.uri), manifest.prefix)


def _swapping(store: Store, uri: str) -> RepositoryStore:
    if not isinstance(store, SwapObject):
        raise SourceConfigError(
            f"{uri}: this store has no conditional writes; keep the repository on s3://, gs://, az:// or file://"
        )
    return store
