"""The node-local cache: identity -> bytes, near the GPU. Knows no dataset and no commit."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_runtime.async_client import AsyncClient
    from cache_runtime.client import Client
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
    from cache_runtime.loading import LoadFailure, LoadPlan, LoadProgress, LoadReport, LoadStop, plan_load, run_load
    from cache_runtime.outbox.adopting import adopt
    from cache_runtime.outbox.files import ParcelFile
    from cache_runtime.outbox.parcels import KeptParcel, Outbox, Parcel
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
    from cache_runtime.readahead import Announced
    from cache_runtime.stats import ReadSnapshot, ReadStats
    from cache_runtime.store.blockstore import BlockStore
    from cache_runtime.store.disks import Disk, DiskSet, open_store
    from cache_runtime.store.ghosts import MissReason
    from cache_runtime.store.nodestore import NodeStore
    from cache_runtime.store.pins import PinStatus
    from cache_runtime.store.scrubbing import ScrubReport
    from cache_runtime.store.shares import Share, ShareStatus
    from cache_runtime.store.shelf import Lent
    from cache_runtime.store.status import StoreStatus
else:
    __getattr__ = lazily(
        __name__,
        {
            "async_client": ("AsyncClient",),
            "readahead": ("Announced",),
            "client": ("Client",),
            "errors": (
                "CacheCapacityError",
                "CacheDirectoryError",
                "CacheError",
                "CacheFullError",
                "CacheOffError",
                "CacheRangeError",
                "CacheShareError",
                "CacheTimeoutError",
                "ChecksumError",
                "MembershipError",
                "OutboxBusyError",
                "OutboxDiskError",
                "OutboxError",
                "OutboxForkError",
                "OutboxFullError",
                "ParcelNotFoundError",
                "PeerError",
            ),
            "explaining": ("CandidateState", "Explanation", "GroupState"),
            "filesystem": ("CachedFileSystem", "PathInfo", "PathView"),
            "loading": ("LoadFailure", "LoadPlan", "LoadProgress", "LoadReport", "LoadStop", "plan_load", "run_load"),
            "outbox.adopting": ("adopt",),
            "outbox.files": ("ParcelFile",),
            "outbox.parcels": ("KeptParcel", "Outbox", "Parcel"),
            "peers": (
                "DnsMembers",
                "FileMembers",
                "Member",
                "Members",
                "Membership",
                "Peers",
                "PeerSecurity",
                "StaticMembers",
                "Timeouts",
            ),
            "stats": ("ReadSnapshot", "ReadStats"),
            "store.blockstore": ("BlockStore",),
            "store.disks": ("Disk", "DiskSet", "open_store"),
            "store.ghosts": ("MissReason",),
            "store.nodestore": ("NodeStore",),
            "store.pins": ("PinStatus",),
            "store.scrubbing": ("ScrubReport",),
            "store.shares": ("Share", "ShareStatus"),
            "store.shelf": ("Lent",),
            "store.status": ("StoreStatus",),
        },
    )

__all__ = [
    "Announced",
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
