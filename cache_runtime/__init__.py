"""The node-local cache: identity -> bytes, near the GPU. Knows no dataset and no commit."""

from cache_runtime.client import Client
from cache_runtime.errors import (
    CacheCapacityError,
    CacheDirectoryError,
    CacheError,
    CacheFullError,
    CacheOffError,
    CacheRangeError,
    CacheTimeoutError,
    ChecksumError,
)
from cache_runtime.filesystem import CachedFileSystem, PathInfo, PathView
from cache_runtime.prewarm import LoadFailure, LoadPlan, LoadProgress, LoadReport, plan_load, run_load
from cache_runtime.stats import ReadSnapshot, ReadStats
from cache_runtime.store import BlockStore, StoreStatus

__all__ = [
    "BlockStore",
    "CacheCapacityError",
    "CacheDirectoryError",
    "CacheError",
    "CacheFullError",
    "CacheOffError",
    "CacheRangeError",
    "CacheTimeoutError",
    "CachedFileSystem",
    "ChecksumError",
    "Client",
    "LoadFailure",
    "LoadPlan",
    "LoadProgress",
    "LoadReport",
    "PathInfo",
    "PathView",
    "ReadSnapshot",
    "ReadStats",
    "StoreStatus",
    "plan_load",
    "run_load",
]
