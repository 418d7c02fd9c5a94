"""Where bytes live: stores that Forebay reads, pins and writes, and the names of what is in them."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sources.errors import (
        SourceAuthError,
        SourceChangedError,
        SourceConfigError,
        SourceError,
        SourceFullError,
        SourceNotFoundError,
        SourceUnavailableError,
        SwapLostError,
        UnsafeSwapError,
    )
    from sources.files import FileStore
    from sources.inventory import Inventory, find_inventory, inventory_batches
    from sources.listing import ScanProgress
    from sources.locations import Location, ObjectId, ObjectRef, ObjectStat, StoreId, Version, join_uri, object_id
    from sources.opening import open_store
    from sources.origins import Origins
    from sources.probing import SwapReport, probe_swaps
    from sources.reading import Limits, Range, SteadyStore, scan
    from sources.stores import (
        LISTING_SCHEMA,
        DirectoryPage,
        ListDirectories,
        ListObjects,
        ListPages,
        ReadInto,
        ReadRange,
        RepositoryStore,
        Store,
        SwapObject,
        WriteObject,
        batch_of,
        stats_of,
    )
    from sources.uris import SourceUri, split_uri
else:
    __getattr__ = lazily(
        __name__,
        {
            "errors": (
                "SourceAuthError",
                "SourceChangedError",
                "SourceConfigError",
                "SourceError",
                "SourceFullError",
                "SourceNotFoundError",
                "SourceUnavailableError",
                "SwapLostError",
                "UnsafeSwapError",
            ),
            "files": ("FileStore",),
            "inventory": ("Inventory", "find_inventory", "inventory_batches"),
            "listing": ("ScanProgress",),
            "locations": (
                "Location",
                "ObjectId",
                "ObjectRef",
                "ObjectStat",
                "StoreId",
                "Version",
                "join_uri",
                "object_id",
            ),
            "opening": ("open_store",),
            "origins": ("Origins",),
            "probing": ("SwapReport", "probe_swaps"),
            "reading": ("Limits", "Range", "SteadyStore", "scan"),
            "stores": (
                "LISTING_SCHEMA",
                "DirectoryPage",
                "ListDirectories",
                "ListObjects",
                "ListPages",
                "ReadInto",
                "ReadRange",
                "RepositoryStore",
                "Store",
                "SwapObject",
                "WriteObject",
                "batch_of",
                "stats_of",
            ),
            "uris": ("SourceUri", "split_uri"),
        },
    )

__all__ = [
    "LISTING_SCHEMA",
    "DirectoryPage",
    "FileStore",
    "Inventory",
    "Limits",
    "ListDirectories",
    "ListObjects",
    "ListPages",
    "Location",
    "ObjectId",
    "ObjectRef",
    "ObjectStat",
    "Origins",
    "Range",
    "ReadInto",
    "ReadRange",
    "RepositoryStore",
    "ScanProgress",
    "SourceAuthError",
    "SourceChangedError",
    "SourceConfigError",
    "SourceError",
    "SourceFullError",
    "SourceNotFoundError",
    "SourceUnavailableError",
    "SourceUri",
    "SteadyStore",
    "Store",
    "StoreId",
    "SwapLostError",
    "SwapObject",
    "SwapReport",
    "UnsafeSwapError",
    "Version",
    "WriteObject",
    "batch_of",
    "find_inventory",
    "inventory_batches",
    "join_uri",
    "object_id",
    "open_store",
    "probe_swaps",
    "scan",
    "split_uri",
    "stats_of",
]
