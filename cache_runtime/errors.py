"""What can go wrong with a cache, grouped by what a caller would do about it.

CacheError
├── CacheDirectoryError   (OSError)          the directory cannot be used: fix it, or name another one
├── CacheCapacityError    (ValueError)       the capacity is too small to work with: fix the input
├── CacheRangeError       (ValueError)       the range lies outside of its object: fix the input
├── CacheShareError       (ValueError)       a share or a label is out of its limits: fix the input
├── ChecksumError         (ValueError)       bytes are not what their identity or checksum says; none were returned
├── CacheFullError        (OSError)          no room, and nothing that may be evicted; reads go on without caching
├── CacheOffError         (OSError)          the disk failed, this process does not use it any more
├── CacheTimeoutError     (TimeoutError)     a lock was not free in time: try again
├── CacheIndexError       (OSError)          the index could not be changed by this process; reads go on
├── ProtocolError         (ValueError)       a worker's or its caller's message is malformed or refused: fix the sender
├── WorkerConfigError     (ValueError)       a worker cannot start like this: fix its configuration
├── WorkerBusyError                          over a limit for now: try again later, or ask another worker
├── MembershipError       (ValueError)       the list of workers is malformed: fix it; the last good one stays in use
├── MountError            (OSError)          a mount cannot be made or undone: the message says what to do
├── PeerError             (ConnectionError)  a worker did not answer as it should; another one or the origin does
└── OutboxError                              what was written here and waits to be uploaded
    ├── OutboxFullError   (OSError)          uploads did not make room in time: wait, or raise the limit
    ├── OutboxForkError   (OSError)          a forked process wrote to a file of its parent: nothing was written
    ├── OutboxDiskError   (OSError)          the local disk failed or is full: nothing was acknowledged
    ├── OutboxBusyError   (BlockingIOError)  a process still writes or sends the parcel: wait for it
    └── ParcelNotFoundError (LookupError)    there is no such parcel: fix the input
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


class CacheShareError(CacheError, ValueError):
    """A share's terms or a pin's label are out of their limits; nothing was changed."""

    kind = "cache_share"

    def __init__(self, name: str, reason: str) -> None:
        """Carry the name, and say which limit."""
        super().__init__(f"share or label {name[:64]!r}: {reason}")
        self.name = name
        self.reason = reason


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


class CacheIndexError(CacheError, OSError):
    """The index may not be changed by this process, for now or for ever; nothing was changed."""

    kind = "cache_index"

    def __init__(self, path: str, reason: str) -> None:
        """Name the index and what is in the way, with the next step."""
        super().__init__(f"cache index {path}: {reason}")
        self.path = path
        self.reason = reason


class ProtocolError(CacheError, ValueError):
    """A request or an answer between workers is malformed, names the wrong object or is over a limit."""

    kind = "bad_request"

    def __init__(self, message: str, *, kind: str = "bad_request") -> None:
        """Say what is wrong, without quoting what was sent; `kind` is one of `protocol.ErrorKind`."""
        super().__init__(message)
        self.kind = kind


class MembershipError(CacheError, ValueError):
    """The list of workers cannot be used; where there was a good one before, it stays in use."""

    kind = "membership"


class MountError(CacheError, OSError):
    """A directory cannot be mounted on, or be unmounted; it is as before."""

    kind = "mount"

    def __init__(self, path: str, reason: str) -> None:
        """Name the mount point, what is in the way and the next step."""
        super().__init__(f"mount {path}: {reason}")
        self.path = path
        self.reason = reason


class PeerError(CacheError, ConnectionError):
    """A worker could not be reached, broke off, or answered with an error; the bytes are asked for elsewhere."""

    kind = "peer"

    def __init__(
        self, member: str, reason: str, *, status: int = 0, failure: str = "", retry_seconds: float | None = None
    ) -> None:
        """Carry the worker's name, the HTTP status (0: no answer came) and the kind it tells, and when to ask again."""
        super().__init__(f"worker {member}: {reason}")
        self.member = member
        self.status = status
        self.failure = failure
        self.retry_seconds = retry_seconds
        self.is_stale = False  # the connection had been idle: the worker may just have closed it
        self.is_slow = False  # it stopped sending, or nearly so, what it had: it would be no faster on another try


class WorkerConfigError(CacheError, ValueError):
    """A worker was refused its configuration, or its directory is another worker's; it did not start."""

    kind = "worker_config"


class WorkerBusyError(CacheError):
    """A worker is over one of its limits, or leaving; nothing was done.

    Attributes:
        kind: `overloaded` for this request, `unavailable` for the worker.
        retry_after_seconds: When to ask again.
    """

    kind = "overloaded"

    def __init__(self, message: str, *, kind: str = "overloaded", retry_after_seconds: int = 1) -> None:
        """Say which limit."""
        super().__init__(message)
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds


class OutboxError(CacheError):
    """Base of the errors about files that wait to be uploaded."""

    kind = "outbox"

    def __str__(self) -> str:
        return str(self.args[0])


class OutboxFullError(OutboxError, OSError):
    """So many bytes wait in the outbox that a writer could not go on; what was closed before stays there."""

    kind = "outbox_full"

    def __init__(self, path: str, waiting_bytes: int, *, limit_bytes: int, seconds: float) -> None:
        """Carry the directory, what waits in it, its limit, and how long the writer waited: 0 if that is in vain."""
        many = f"{waiting_bytes} bytes wait for their upload, of {limit_bytes} allowed, and there was no room for "
        one = f"a file of more than {limit_bytes} bytes, which is all that is allowed, never fits in"
        super().__init__(
            f"outbox {path}: {f'{many}{seconds:g} s' if seconds else one}; look at what waits with: ds writes, or "
            "raise FOREBAY_OUTBOX_LIMIT over the largest file"
        )
        self.path = path
        self.waiting_bytes = waiting_bytes
        self.limit_bytes = limit_bytes
        self.seconds = seconds


class OutboxDiskError(OutboxError, OSError):
    """The outbox cannot be written or read; what was not acknowledged may be gone."""

    kind = "outbox_disk"

    def __init__(self, path: str, reason: str) -> None:
        """Name the path and why it cannot be used."""
        super().__init__(f"outbox {path}: {reason}; free space, or name another directory in FOREBAY_OUTBOX")
        self.path = path
        self.reason = reason


class OutboxForkError(OutboxError, OSError):
    """The file belongs to the process that opened it; nothing was written by this one, which was forked from it."""

    kind = "outbox_fork"

    def __init__(self, process: int) -> None:
        """Carry the process that the file belongs to."""
        super().__init__(f"this file belongs to process {process}; write to one that this process opened")
        self.process = process


class OutboxBusyError(OutboxError, BlockingIOError):
    """A process holds the parcel; it was left alone."""

    kind = "outbox_busy"

    def __init__(self, parcel: str, lock: str) -> None:
        """Carry the parcel's name and the file that the process holds open."""
        super().__init__(
            f"{parcel} is being written or sent by a process; wait until it ends, or find and end it: fuser {lock}"
        )
        self.parcel = parcel
        self.lock = lock


class ParcelNotFoundError(OutboxError, LookupError):
    """There is no such parcel in the outbox."""

    kind = "parcel_not_found"

    def __init__(self, parcel: str, path: str) -> None:
        """Carry the name asked for and the outbox."""
        super().__init__(f"no write {parcel} waits in {path}; list them with: ds writes")
        self.parcel = parcel
        self.path = path
