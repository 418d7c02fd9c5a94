"""What can go wrong with a cache, grouped by what a caller would do about it.

CacheError
├── CacheDirectoryError   (OSError)          the directory cannot be used: fix it, or name another one
├── CacheCapacityError    (ValueError)       the capacity is too small to work with: fix the input
├── CacheRangeError       (ValueError)       the range lies outside of its object: fix the input
├── ChecksumError         (ValueError)       bytes are not what their identity or checksum says; none were returned
├── CacheFullError        (OSError)          no room, and nothing that may be evicted; reads go on without caching
├── CacheOffError         (OSError)          the disk failed, this process does not use it any more
└── CacheTimeoutError     (TimeoutError)     a lock was not free in time: try again
"""

from __future__ import annotations


class CacheError(Exception):
    """Base of every error of this package."""

    kind = "cache"


class CacheDirectoryError(CacheError, OSError):
    """The cache directory cannot be created, read or written; nothing was changed in it."""

    kind = "cache_directory"

    def __init__(self, path: str, reason: str) -> None:
        """Name the path and why it cannot be used."""
        super().__init__(f"cache directory {path}: {reason}; check its owner and mode, or choose another directory")
        self.path = path
        self.reason = reason


class CacheCapacityError(CacheError, ValueError):
    """The capacity is below what the store needs to work."""

    kind = "cache_capacity"

    def __init__(self, capacity_bytes: int, *, minimum_bytes: int) -> None:
        """Carry the capacity asked for and the smallest one allowed, bytes."""
        super().__init__(f"a cache of {capacity_bytes} bytes is too small; give it at least {minimum_bytes} bytes")
        self.capacity_bytes = capacity_bytes
        self.minimum_bytes = minimum_bytes


class CacheRangeError(CacheError, ValueError):
    """`[offset, offset + length)` is not inside of the object; nothing was read."""

    kind = "cache_range"

    def __init__(self, uri: str, *, offset: int, length: int, size: int) -> None:
        """Carry the object, the range asked for and the object's size, bytes."""
        super().__init__(f"{uri}: {length} bytes at {offset} are outside of the object, which has {size} bytes")
        self.uri = uri
        self.offset = offset
        self.length = length
        self.size = size


class ChecksumError(CacheError, ValueError):
    """The bytes of an object differ from its digest; they were neither returned nor cached."""

    kind = "checksum"

    def __init__(self, uri: str, *, expected: str, found: str) -> None:
        """Carry the object, and the digest expected and found."""
        super().__init__(f"{uri}: its bytes hash to {found}, expected {expected}; restore the object at its origin")
        self.uri = uri
        self.expected = expected
        self.found = found


class CacheFullError(CacheError, OSError):
    """There is no room and nothing may be evicted; what is cached stays cached."""

    kind = "cache_full"

    def __init__(self, path: str, *, need_bytes: int, capacity_bytes: int) -> None:
        """Carry the directory, the bytes that found no room, and the capacity."""
        super().__init__(
            f"cache directory {path}: no room for {need_bytes} bytes within its {capacity_bytes} bytes; "
            "raise the capacity or free disk space"
        )
        self.path = path
        self.need_bytes = need_bytes
        self.capacity_bytes = capacity_bytes


class CacheOffError(CacheError, OSError):
    """The store met a failing disk and is not used by this process any more; what is on disk stays there."""

    kind = "cache_off"

    def __init__(self, path: str, reason: str) -> None:
        """Name the directory and the failure."""
        super().__init__(
            f"cache directory {path} is not filled any more: {reason}; free space or replace the disk, then restart"
        )
        self.path = path
        self.reason = reason


class CacheTimeoutError(CacheError, TimeoutError):
    """Another thread or process held a lock for too long; nothing was changed."""

    kind = "cache_timeout"

    def __init__(self, what: str, *, seconds: float) -> None:
        """Name the lock and how long it was waited for."""
        super().__init__(
            f"{what}: still locked after {seconds:g} s; look for a stopped process that uses the cache, or try again"
        )
        self.what = what
        self.seconds = seconds
