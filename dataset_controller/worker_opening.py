"""What a worker of a cache runtime serves: the datasets of this machine that use it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache_runtime import Client
from dataset_controller.opening import OpenDataset, add_origins, open_node_store
from dataset_controller.peering import open_peers
from dataset_controller.sharing import share_in
from sources import Origins, SourceError
from versioning import VersioningError

if TYPE_CHECKING:
    from cache_runtime.peers import Peers, PeerSecurity
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.shares import Share
    from dataset_controller.catalog import Catalog
    from dataset_controller.model import CacheRuntime, Dataset

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenWorker:
    """The parts of a worker.

    Attributes:
        datasets: Names of the datasets whose sources and repositories may be read, and nothing else.
        origins: Those.
        store: The cache of this node.
        peers: The cluster, None if the runtime names none.
        client: Reads and fills the store as the owner of what it is asked for.
        shares: What this node promises to each dataset.
    """

    datasets: tuple[str, ...]
    origins: Origins
    store: NodeStore
    peers: Peers | None
    client: Client
    shares: tuple[Share, ...]


def datasets_using(catalog: Catalog, runtime: str) -> list[Dataset]:
    """Return the datasets of this machine that refer to a cache runtime."""
    found = map(catalog.dataset, catalog.names("Dataset"))
    return [dataset for dataset in found if dataset.spec.cache and dataset.spec.cache.runtime_ref.name == runtime]


def open_worker(catalog: Catalog, runtime: CacheRuntime, access: PeerSecurity | None = None) -> OpenWorker:
    """Open what a worker serves. A source that is down does not keep it from starting.

    Raises:
        CacheError: If no directory of the cache, or the list of workers, can be used.
        SourceConfigError: If the options of a source are wrong.
    """
    store = open_node_store(runtime)
    datasets = datasets_using(catalog, runtime.metadata.name)
    replicas = max((dataset.spec.cache.replicas for dataset in datasets if dataset.spec.cache), default=1)
    peers = open_peers(runtime, access, directory=store.directory, replicas=replicas, serves=True)
    origins = Origins()
    shares = []
    for dataset in datasets:
        opened = OpenDataset(dataset, runtime, access, catalog.secrets)
        add_origins(origins, opened)
        shares.append(share_in(store, peers, dataset, version_bytes=_version_bytes(catalog, opened)))
    client = Client(origins, store, peers=peers)
    names = tuple(dataset.metadata.name for dataset in datasets)
    return OpenWorker(names, origins, store, peers, client, tuple(shares))


def _version_bytes(catalog: Catalog, opened: OpenDataset) -> int:
    """Return the size of the branch that a dataset is on; 0 before its first commit, or while nobody can tell."""
    name = opened.resource.metadata.name
    try:
        head = opened.repository.head(catalog.head(name))
        return opened.repository.tree_of(head).size if head else 0
    except (SourceError, VersioningError) as error:
        _log.warning("size unknown, admission as without one dataset=%s reason=%s", name, error)
        return 0
