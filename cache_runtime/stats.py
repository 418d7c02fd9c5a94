"""Counters of what was read from where."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_runtime.store.ghosts import MissReason


@dataclass(frozen=True, slots=True)
class ReadSnapshot:
    """The counters at one moment; `later - earlier` is what happened between two.

    Attributes:
        reads_local: Locations answered by this node's store.
        bytes_local: Bytes of those locations.
        reads_peer: Runs of blocks, and small ranges, that other nodes answered.
        bytes_peer: Bytes of those.
        reads_origin: Requests to origins that returned bytes.
        bytes_origin: Bytes they returned. More than was asked for: a miss fetches whole small objects and whole blocks.
        fills: Objects and runs of blocks written to the store.
        uncached: Fetches that the store had no room for, or that it is off for.
        evicted_bytes: Bytes that this process evicted.
        corrupt_blocks: Blocks and records dropped because their bytes failed their check.
        store_failures: Times a failing disk turned the store off.
        hedges: Requests to a second node because the first one was slow.
        resumed: Answers of another node that broke off and went on at the byte.
        peer_failures: Requests that another node failed: gone, silent, refused, or wrong bytes.
        peers_skipped: Requests not made because the node had failed just before.
        miss_never_cached, miss_evicted, miss_not_admitted, miss_corrupt, miss_store_off: Objects and runs of blocks
            that were not there, by why; see `MissReason`.
        miss_worker_lost: Those, of another node's, that were fetched from elsewhere because it could not be had.
    """

    reads_local: int = 0
    bytes_local: int = 0
    reads_peer: int = 0
    bytes_peer: int = 0
    reads_origin: int = 0
    bytes_origin: int = 0
    fills: int = 0
    uncached: int = 0
    evicted_bytes: int = 0
    corrupt_blocks: int = 0
    store_failures: int = 0
    hedges: int = 0
    resumed: int = 0
    peer_failures: int = 0
    peers_skipped: int = 0
    miss_never_cached: int = 0
    miss_evicted: int = 0
    miss_not_admitted: int = 0
    miss_corrupt: int = 0
    miss_store_off: int = 0
    miss_worker_lost: int = 0

    def __sub__(self, earlier: ReadSnapshot) -> ReadSnapshot:
        return ReadSnapshot(*(a - b for a, b in zip(astuple(self), astuple(earlier), strict=True)))

    def __add__(self, other: ReadSnapshot) -> ReadSnapshot:
        return ReadSnapshot(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class ReadStats:
    """Plain integers of one process, added to without a lock; see `ReadSnapshot` for their meaning."""

    __slots__ = tuple(ReadSnapshot.__slots__)

    reads_local: int
    bytes_local: int
    reads_peer: int
    bytes_peer: int
    reads_origin: int
    bytes_origin: int
    fills: int
    uncached: int
    evicted_bytes: int
    corrupt_blocks: int
    store_failures: int
    hedges: int
    resumed: int
    peer_failures: int
    peers_skipped: int
    miss_never_cached: int
    miss_evicted: int
    miss_not_admitted: int
    miss_corrupt: int
    miss_store_off: int
    miss_worker_lost: int

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    def miss(self, reason: MissReason) -> None:
        """Count a miss."""
        name = f"miss_{reason}"
        setattr(self, name, getattr(self, name) + 1)

    def snapshot(self) -> ReadSnapshot:
        """Copy the counters."""
        return ReadSnapshot(*(getattr(self, name) for name in self.__slots__))
