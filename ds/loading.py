"""Bringing a version into the cache: into the workers of the cluster, or into this node alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cache_runtime import loading
from ds.errors import UsageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from cache_runtime import Client
    from cache_runtime.loading import LoadPlan, LoadProgress, LoadReport
    from cache_runtime.peers import Peers
    from cache_runtime.store.shares import Share
    from dataset_controller import OpenDataset
    from ds.operations.choosing import ChosenFiles
    from ds.version_files import VersionFiles


@dataclass(frozen=True)
class LoadOptions:
    """How to load.

    Attributes:
        here: Into this node's cache alone, also where its runtime has workers.
        replicas: How many workers are to have each block; None: as the dataset says.
        priority: Of the dataset's bytes in the cache, until it is read with its own again; None: as the dataset says.
        concurrency: Requests of this node at a time.
        deadline_seconds: The load ends after so long; what it fetched stays. None: no deadline.
    """

    here: bool = False
    replicas: int | None = None
    priority: int | None = None
    concurrency: int = 16
    deadline_seconds: float | None = None


@dataclass(frozen=True)
class PlannedLoad:
    """A load that may be run.

    Attributes:
        plan: What it would do.
        peers: The workers that it goes into; None: this node.
        client: Reads and fills; None where only workers do.
        share: Whose the bytes will be.
        options: As given.
    """

    plan: LoadPlan
    peers: Peers | None
    client: Client | None
    share: Share
    options: LoadOptions

    def run(
        self, *, on_progress: Callable[[LoadProgress], None] | None = None, cancel: threading.Event | None = None
    ) -> LoadReport:
        """Fetch what is missing, then look whether all of it is there; see `run_load` and `run_distributed`."""
        seconds = self.options.deadline_seconds
        if self.peers is not None:
            return loading.run_distributed(
                self.peers,
                self.plan,
                on_progress=on_progress,
                share=self.share,
                deadline_seconds=seconds,
                cancel=cancel,
            )
        assert self.client is not None
        return loading.run_load(
            self.client,
            self.plan,
            on_progress=on_progress,
            concurrency=self.options.concurrency,
            share=self.share,
            deadline_seconds=seconds,
            cancel=cancel,
        )


def plan_version_load(opened: OpenDataset, files: VersionFiles | ChosenFiles, options: LoadOptions) -> PlannedLoad:
    """Find out what loading some files of a version takes; fetches nothing.

    Raises:
        UsageError: If the dataset has no cache, or several replicas are wanted without workers.
        MembershipError: If the runtime has workers, but their list is empty.
    """
    if opened.runtime is None:
        name = opened.resource.metadata.name
        raise UsageError(f"dataset {name} names no cache: add spec.cache.runtimeRef to its manifest")
    client = opened.client_for(files.version_bytes)
    share = opened.share_for(files.version_bytes)
    if options.priority is not None:
        share = replace(share, priority=options.priority)
    peers = None if options.here else opened.peers
    if peers is None:
        if (options.replicas or 1) > 1:
            raise UsageError("--replicas needs workers: this load goes into one node's cache")
        return PlannedLoad(loading.plan_load(client, files, share=share), None, client, share, options)
    plan = loading.plan_distributed(peers, files, replicas=options.replicas or peers.replicas, share=share)
    return PlannedLoad(plan, peers, client, share, options)
