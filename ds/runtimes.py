"""The cache runtimes of this machine: their directories, their workers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cache_runtime.peers import Member, Peers, StaticMembers
from cache_runtime.peers.presence import find_worker
from dataset_controller import CacheRuntime, open_node_store, open_peers
from ds.errors import UsageError

if TYPE_CHECKING:
    from cache_runtime.peers.presence import RunningWorker
    from cache_runtime.store.nodestore import NodeStore
    from ds.settings import Settings


@dataclass(frozen=True)
class Runtime:
    """A cache runtime that was applied here; its parts open when they are first used.

    Attributes:
        resource: As declared.
        settings: Token for its workers.
    """

    resource: CacheRuntime
    settings: Settings

    @property
    def name(self) -> str:
        """As in its manifest."""
        return self.resource.metadata.name

    @property
    def directories(self) -> list[str]:
        """Its cache directories."""
        return [tier.path for tier in self.resource.spec.tiers]

    @cached_property
    def store(self) -> NodeStore:
        """The cache of this node."""
        return open_node_store(self.resource)

    @cached_property
    def peers(self) -> Peers | None:
        """The workers, if it names some. Raises as `dataset_controller.open_peers`."""
        return open_peers(self.resource, self.settings.access)

    @cached_property
    def watched(self) -> Peers | None:
        """The workers to look at: those of the cluster, else the one that serves this node, if one runs."""
        if self.peers is not None:
            return self.peers
        worker = self.worker
        if worker is None:
            return None
        return Peers(StaticMembers([Member(worker.name, worker.url)]), security=self.settings.access)

    @property
    def worker(self) -> RunningWorker | None:
        """The worker of this machine that serves it now, if one runs."""
        found = map(find_worker, self.directories)
        return next((worker for worker in found if worker is not None), None)


def find_runtime(name: str, settings: Settings) -> Runtime:
    """Return a cache runtime.

    Raises:
        UsageError: If none of this name was applied here.
    """
    catalog = settings.catalog()
    record = catalog.find("CacheRuntime", name)
    if record is None or not isinstance(record.resource, CacheRuntime):
        known = ", ".join(catalog.names("CacheRuntime")) or "none"
        raise UsageError(f"no cache runtime {name!r}; known: {known}")
    return Runtime(record.resource, settings)


def chosen_runtimes(name: str | None, settings: Settings) -> list[Runtime]:
    """Return the named cache runtime, or all of this machine. Raises as `find_runtime`."""
    names = [name] if name else settings.catalog().names("CacheRuntime")
    return [find_runtime(found, settings) for found in names]


def only_runtime(name: str | None, settings: Settings) -> Runtime:
    """Return the named cache runtime, or the only one of this machine.

    Raises:
        UsageError: If there is none, or there are several.
    """
    found = chosen_runtimes(name, settings)
    if not found:
        raise UsageError("there is no cache runtime yet; declare one and run: ds apply -f dataset.yaml")
    if len(found) > 1:
        raise UsageError(f"which cache runtime? use --runtime; known: {', '.join(each.name for each in found)}")
    return found[0]
