"""The node-local cache: identity -> bytes, near the GPU. Knows no dataset and no commit."""

from cache_runtime.adopting import adopt
from cache_runtime.async_client import AsyncClient
from cache_runtime.client import Client
from cache_runtime.disks import Disk, DiskSet, open_store
from cache_runtime.errors import (
    CacheCapacityError,
    CacheDirectoryError,
    CacheError,
    CacheFullError,
    CacheOffError,
    CacheRangeError,
    CacheShareError,
    CacheTimeoutError,
    ChecksumError,
    MembershipError,
    OutboxBusyError,
    OutboxDiskError,
    OutboxError,
    OutboxForkError,
    OutboxFullError,
    ParcelNotFoundError,
    PeerError,
)
from cache_runtime.explaining import CandidateState, Explanation, GroupState
from cache_runtime.filesystem import CachedFileSystem, PathInfo, PathView
from cache_runtime.ghosts import MissReason
from cache_runtime.loading import LoadFailure, LoadPlan, LoadProgress, LoadReport, LoadStop, plan_load, run_load
from cache_runtime.nodestore import NodeStore
from cache_runtime.outbox import KeptParcel, Outbox, Parcel
from cache_runtime.parcelfiles import ParcelFile
from cache_runtime.peers import (
    DnsMembers,
    FileMembers,
    Member,
    Members,
    Membership,
    Peers,
    PeerSecurity,
    StaticMembers,
    Timeouts,
)
from cache_runtime.pins import PinStatus
from cache_runtime.scrubbing import ScrubReport
from cache_runtime.shares import Share, ShareStatus
from cache_runtime.shelf import Lent
from cache_runtime.stats import ReadSnapshot, ReadStats
from cache_runtime.store import BlockStore
from cache_runtime.storestatus import StoreStatus

__all__ = [
    "AsyncClient",
    "BlockStore",
    "CacheCapacityError",
    "CacheDirectoryError",
    "CacheError",
    "CacheFullError",
    "CacheOffError",
    "CacheRangeError",
    "CacheShareError",
    "CacheTimeoutError",
    "CachedFileSystem",
    "CandidateState",
    "ChecksumError",
    "Client",
    "Disk",
    "DiskSet",
    "DnsMembers",
    "Explanation",
    "FileMembers",
    "GroupState",
    "KeptParcel",
    "Lent",
    "LoadFailure",
    "LoadPlan",
    "LoadProgress",
    "LoadReport",
    "LoadStop",
    "Member",
    "Members",
    "Membership",
    "MembershipError",
    "MissReason",
    "NodeStore",
    "Outbox",
    "OutboxBusyError",
    "OutboxDiskError",
    "OutboxError",
    "OutboxForkError",
    "OutboxFullError",
    "Parcel",
    "ParcelFile",
    "ParcelNotFoundError",
    "PathInfo",
    "PathView",
    "PeerError",
    "PeerSecurity",
    "Peers",
    "PinStatus",
    "ReadSnapshot",
    "ReadStats",
    "ScrubReport",
    "Share",
    "ShareStatus",
    "StaticMembers",
    "StoreStatus",
    "Timeouts",
    "adopt",
    "open_store",
    "plan_load",
    "run_load",
]
