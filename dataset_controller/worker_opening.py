"""What a worker of a cache runtime serves: the datasets of this machine that use it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache_runtime import Client
from dataset_controller.errors import CatalogError, ManifestError
from dataset_controller.opening import OpenDataset, add_origins, open_node_store
from dataset_controller.peering import open_peers
from dataset_controller.sharing import share_in
from sources import Origins, SourceConfigError, SourceError
from versioning import VersioningError

if TYPE_CHECKING:
    from pathlib import Path

    from cache_runtime.peers import Peers, PeerSecurity
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shares import Share
    from dataset_controller.catalog import Catalog
    from dataset_controller.model import CacheRuntime, Dataset

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Served:
    """One dataset that is served.

    Attributes:
        stamp: What it was opened from; another one when it, or a secret of it, changed.
        origins: Its sources and its repository.
        share: What this node promises to it.
    """

    stamp: object
    origins: Origins
    share: Share


@dataclass(frozen=True)
class OpenWorker:
    """The parts of a worker.

    Attributes:
        origins: The sources and repositories of the datasets that it serves, and nothing else.
        store: The cache of this node.
        peers: The cluster, None if the runtime names none.
        client: Reads and fills the store as the owner of what it is asked for.
    """

    origins: Origins
    store: NodeStore
    peers: Peers | None
    client: Client
    _catalog: Catalog
    _runtime: CacheRuntime
    _access: PeerSecurity | None = None
    _served: dict[str, _Served] = field(default_factory=dict, repr=False)
    _refused: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets that are served."""
        return tuple(self._served)

    @property
    def shares(self) -> tuple[Share, ...]:
        """What this node promises to each dataset."""
        return tuple(served.share for served in self._served.values())

    def follow(self) -> bool:
        """Serve the datasets that there are now, and say whether those are others than before.

        A dataset that cannot be opened keeps no other from being served: it is left out, and tried again by the next
        call; what is served of it, from before it was changed, stays.
        """
        try:
            datasets = datasets_using(self._catalog, self._runtime.metadata.name)
        except (CatalogError, ManifestError) as error:
            self._refuse("", str(error))
            return False
        self._refused.pop("", None)
        names = {dataset.metadata.name for dataset in datasets}
        changed = [self._served.pop(name) for name in set(self._served) - names]
        for dataset in datasets:
            name, stamp = dataset.metadata.name, _stamp(dataset, self._catalog.secrets)
            known = self._served.get(name)
            if known is not None and known.stamp == stamp:
                continue
            try:
                self._served[name] = self._open(dataset, stamp)
            except SourceConfigError as error:
                self._refuse(name, str(error))
                continue
            self._refused.pop(name, None)
            changed.append(self._served[name])
        if changed:
            origins = Origins()
            for served in self._served.values():
                origins.add_all(served.origins)
            self.origins.become(origins)
        return bool(changed)

    def _open(self, dataset: Dataset, stamp: object) -> _Served:
        opened = OpenDataset(dataset, self._runtime, self._access, self._catalog.secrets)
        origins = Origins()
        add_origins(origins, opened)
        size = _version_bytes(self._catalog, opened)
        return _Served(stamp, origins, share_in(self.store, self.peers, dataset, version_bytes=size))

    def _refuse(self, name: str, reason: str) -> None:
        if self._refused.get(name) != reason:
            self._refused[name] = reason
            _log.warning("not served, tried again dataset=%s reason=%s", name or "(all)", reason)


def datasets_using(catalog: Catalog, runtime: str) -> list[Dataset]:
    """Return the datasets of this machine that refer to a cache runtime."""
    found = map(catalog.dataset, catalog.names("Dataset"))
    return [dataset for dataset in found if dataset.spec.cache and dataset.spec.cache.runtime_ref.name == runtime]


def open_worker(
    catalog: Catalog, runtime: CacheRuntime, access: PeerSecurity | None = None, *, follows: bool = False
) -> OpenWorker:
    """Open what a worker serves. A source that is down does not keep it from starting.

    Args:
        catalog: What there is.
        runtime: Its cache runtime.
        access: What the environment says to show to workers.
        follows: Whether `follow` will be called, which leaves out what cannot be opened yet.

    Raises:
        CacheError: If no directory of the cache, or the list of workers, can be used.
        SourceConfigError: If the options of a source are wrong, and nobody will follow that.
    """
    store = open_node_store(runtime)
    datasets = datasets_using(catalog, runtime.metadata.name)
    replicas = max((dataset.spec.cache.replicas for dataset in datasets if dataset.spec.cache), default=1)
    peers = open_peers(runtime, access, directory=store.directory, replicas=replicas, serves=True)
    origins = Origins()
    opened = OpenWorker(origins, store, peers, Client(origins, store, peers=peers), catalog, runtime, access)
    opened.follow()
    if opened._refused and not follows:
        opened.client.close()
        raise SourceConfigError(next(iter(opened._refused.values())))
    return opened


def _stamp(dataset: Dataset, secrets: Path) -> object:
    """Return what changes when a dataset, or a secret that it names, does."""
    names = {place.secret_ref.name for place in (*dataset.spec.mounts, dataset.spec.repo) if place.secret_ref}
    files = [file for name in sorted(names) for file in _files(secrets / name)]
    return dataset, files


def _files(directory: Path) -> list[tuple[str, int]]:
    try:
        files = [file for file in directory.iterdir() if not file.name.startswith(".")]
        return sorted((str(file), file.stat().st_mtime_ns) for file in files)
    except OSError:  # opening it will say so
        return []


def _version_bytes(catalog: Catalog, opened: OpenDataset) -> int:
    """Return the size of the branch that a dataset is on; 0 before its first commit, or while nobody can tell."""
    name = opened.resource.metadata.name
    try:
        head = opened.repository.head(catalog.head(name))
        return opened.repository.tree_of(head).size if head else 0
    except (SourceError, VersioningError) as error:
        _log.warning("size unknown, admission as without one dataset=%s reason=%s", name, error)
        return 0
