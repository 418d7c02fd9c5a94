"""What a store says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_runtime.store.shares import ShareStatus


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What a cache directory holds.

    Attributes:
        directory: Its path.
        capacity_bytes: What it may use.
        used_bytes: What it uses or has promised to fills, with the index. The bytes of small objects that were evicted
            by name are in it until their slab goes.
        objects: Objects of which anything is cached.
        blocks: Cached blocks of large objects and records of small ones.
        off_reason: Why this process does not fill it any more, None while it does.
        shares: What each share holds of it, by name.
        disks: Of a `DiskSet`, each of its directories.
        commits: Of the index so far: while it stays, nothing came or went. `used_bytes` tells less, as small objects
            fill a slab whose room was taken before. An index that is written anew begins again.
    """

    directory: str
    capacity_bytes: int
    used_bytes: int
    objects: int
    blocks: int
    off_reason: str | None
    shares: tuple[ShareStatus, ...] = ()
    disks: tuple[StoreStatus, ...] = ()
    commits: int = 0
