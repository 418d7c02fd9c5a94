"""What a dataset is promised in a cache, decided without touching anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.store.shares import Share

if TYPE_CHECKING:
    from cache_runtime.peers import Peers
    from cache_runtime.store.nodestore import NodeStore
    from dataset_controller.model import Dataset


def plan_share(dataset: Dataset, *, version_bytes: int, room_bytes: int, workers: int = 0) -> Share:
    """Return a dataset's share of a node's cache.

    Args:
        dataset: As declared.
        version_bytes: Bytes of the version that will be read; 0 where none is meant.
        room_bytes: What the node has room for, within the dataset's quota.
        workers: How many workers divide the version among them; 0: the node caches all of it.
    """
    use = dataset.spec.cache
    if use is None:
        return Share(dataset.metadata.name)
    portion = -(-version_bytes * min(use.replicas, workers) // workers) if workers else version_bytes
    in_rounds = use.admission == "keep" or (use.admission == "auto" and portion > room_bytes)
    return Share(
        dataset.metadata.name,
        priority=use.priority,
        quota_bytes=use.quota,
        cycle_bytes=portion if in_rounds else 0,
    )


def share_in(store: NodeStore | None, peers: Peers | None, dataset: Dataset, *, version_bytes: int) -> Share:
    """Do `plan_share` for a cache and a cluster as they are now."""
    use = dataset.spec.cache
    room = 0 if use is None or store is None else store.budget_bytes(Share(quota_bytes=use.quota))
    workers = 0 if peers is None else len(peers.members())
    return plan_share(dataset, version_bytes=version_bytes, room_bytes=room, workers=workers)
