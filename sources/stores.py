"""What a store can do, as small protocols: take the smallest one that a function needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from sources.errors import SourceConfigError
from sources.locations import ObjectStat, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

    from sources.errors import SourceError
    from sources.locations import StoreId


_COLUMNS: list[pa.Field[Any]] = [
    pa.field("key", pa.string(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("version", pa.string(), nullable=False),
    pa.field("mtime_ns", pa.int64()),
]
LISTING_SCHEMA = pa.schema(_COLUMNS)
"""Columns of a listing: those of `ObjectStat`."""


def stats_of(batch: pa.RecordBatch) -> Iterator[ObjectStat]:
    """Yield the rows of a listing one by one."""
    for key, size, version, mtime_ns in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield ObjectStat(key, size, Version(version), mtime_ns)


def batch_of(stats: Iterable[ObjectStat]) -> pa.RecordBatch:
    """Build one batch of a listing.

    Raises:
        SourceConfigError: If a key is not valid Unicode, as the name of a file may be.
    """
    return batch_of_rows((stat.key, stat.size, stat.version, stat.mtime_ns) for stat in stats)


def batch_of_rows(rows: Iterable[tuple[str, int, str, int | None]]) -> pa.RecordBatch:
    """Do what `batch_of` does with the fields of `ObjectStat`, for stores that tell many per millisecond."""
    columns = list(zip(*rows, strict=True)) or [()] * len(LISTING_SCHEMA)
    try:
        arrays = [pa.array(column, field.type) for column, field in zip(columns, LISTING_SCHEMA, strict=True)]
    except UnicodeEncodeError as error:
        name = os.fsencode(str(error.object))
        raise SourceConfigError(f"the name {name!r} is not valid UTF-8; rename it at its source") from error
    return pa.RecordBatch.from_arrays(arrays, schema=LISTING_SCHEMA)


class DirectoryPage(NamedTuple):
    """What lies directly in one directory of a hierarchical store.

    Attributes:
        files: Of `LISTING_SCHEMA`, in byte order of key.
        directories: Keys of its directories, complete and ending in "/", in byte order.
    """

    files: pa.RecordBatch
    directories: list[str]


class ListObjects(Protocol):
    """Enumerate keys."""

    @property
    def id(self) -> StoreId:
        """The store's id, as recorded in commits."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield every object whose key starts with `prefix`, lazily, each key once.

        The order is the store's own: sort if it matters. A prefix that names a directory ends in "/".

        Raises:
            SourceNotFoundError: If the bucket or root directory does not exist (an empty prefix is not an error).
            SourceAuthError, SourceUnavailableError: As they say.
        """
        ...

    def stat(self, key: str) -> ObjectStat:
        """Look one key up.

        Raises:
            SourceNotFoundError: If it is not there.
        """
        ...


@runtime_checkable
class ListPages(Protocol):
    """Enumerate a flat key space from any key on: what object stores can."""

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        """Yield batches of `LISTING_SCHEMA` with the keys that start with `prefix` and come after `after`.

        In the server's order: byte order of keys, unless the server keeps another. Errors as in `ListObjects.list`.
        """
        ...


@runtime_checkable
class ListDirectories(Protocol):
    """Enumerate one directory at a time: what hierarchical stores can."""

    def scan_directory(self, directory: str) -> DirectoryPage:
        """List what lies directly in `directory`, "" or ending in "/".

        Raises:
            SourceNotFoundError: If there is no such directory.
        """
        ...


class ReadRange(Protocol):
    """Read bytes of a pinned object."""

    @property
    def id(self) -> StoreId:
        """The store's id, as recorded in commits."""
        ...

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """Return exactly `length` bytes from `start`.

        Thread-safe. With a `version`, either all bytes belong to it or nothing is returned. An `oid:` version is not
        checked by the store: the caller compares the hash.

        Raises:
            SourceChangedError: If the key holds another version, or (with a version) nothing.
            SourceNotFoundError: If it holds nothing and no version was asked for.
            SourceUnavailableError: Also if the body ended short after the retries.
        """
        ...


@runtime_checkable
class ReadInto(Protocol):
    """Read bytes of a pinned object into memory of the caller."""

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """Fill the whole buffer from `start`, or raise as `ReadRange.read` does.

        Raises:
            SourceUnavailableError: With `received` set: so many bytes of the buffer are right.
        """
        ...


class Wanted(NamedTuple):
    """A short range that is to be read; `number` is what its reader calls it by."""

    number: int
    key: str
    start: int
    length: int
    version: Version | None


class Wants(Protocol):
    """Many short ranges that are wanted, handed out when each may be asked for; for one thread."""

    @property
    def is_over(self) -> bool:
        """Whether nobody wants what is in progress any more."""
        ...

    def next(self, *, may_wait: bool) -> Wanted | None:
        """Return what to ask for now, once; None: nothing now.

        Args:
            may_wait: Nothing is in progress, so this may block until something may be asked for.
        """
        ...

    def pause_seconds(self) -> float | None:
        """Say after what time to ask `next` again that returned None; None: nothing is left but what is in progress."""
        ...

    def bring(self, wanted: Wanted, data: Buffer) -> None:
        """Take exactly the bytes of a range."""
        ...

    def fail(self, wanted: Wanted, error: SourceError) -> None:
        """Take what the one request for a range ended in; the range may be handed out again later."""
        ...

    def leave(self, wanted: Wanted) -> None:
        """Take a range back that has to be read with `read`."""
        ...


@runtime_checkable
class ReadTogether(Protocol):
    """Read many short ranges at a time in one thread."""

    @property
    def can_read_together(self) -> bool:
        """Whether `read_together` would read anything now; else all ranges are read one by one."""
        ...

    def read_together(self, wants: Wants, *, at_once: int) -> None:
        """Ask for what is wanted, each once, until nothing is left, it is over, or it cannot be read so.

        Args:
            wants: Hands out the ranges and takes the bytes, or errors as of `ReadRange.read`.
            at_once: Requests at a time.
        """
        ...


@runtime_checkable
class ReadFiles(Protocol):
    """Read many small objects whole, cheaper than one by one: what a local disk can."""

    def read_files(self, files: Iterable[tuple[str, Version, memoryview]]) -> None:
        """Fill the buffer of each (key, version, buffer) with all bytes of the object, or raise as `read_into` does.

        Raises:
            SourceChangedError: For the first that is not at its version, or has not as many bytes as its buffer; those
                before it are read.
        """
        ...


class WriteObject(Protocol):
    """Write and delete whole objects."""

    @property
    def id(self) -> StoreId:
        """The store's id, as recorded in commits."""
        ...

    def put(self, key: str, data: Buffer) -> None:
        """Write an object whole, durably, replacing what is there; readers see the old or the new one, never a mix."""
        ...

    def delete(self, key: str) -> None:
        """Delete a key; deleting what is not there succeeds."""
        ...


class NewObject(Protocol):
    """An object whose bytes are written before its key is known; nobody sees it until it is published."""

    def write(self, data: Buffer) -> None:
        """Append bytes. Raises as `WriteObject.put`."""
        ...

    def publish(self, key: str) -> None:
        """Give it a key below its directory, as `WriteObject.put` of all that was written does; once."""
        ...

    def close(self) -> None:
        """Let go of it, and throw it away if it was not published; may be called again."""
        ...


@runtime_checkable
class BeginObject(Protocol):
    """Write an object piece by piece, without a copy on another disk: what a directory can."""

    def begin(self, directory: str, *, uncached: bool = False) -> NewObject:
        """Begin an object whose key will begin with `directory`, which ends in "/". Raises as `WriteObject.put`.

        Args:
            directory: Where.
            uncached: Leave the page cache to others: the object will hardly be read here at once.
        """
        ...


@runtime_checkable
class DropUnfinished(Protocol):
    """Delete what writers that were killed have left beside the objects: what a directory must."""

    def drop_unfinished(self, prefix: str, *, before_ns: int) -> int:
        """Delete unfinished writes below a prefix that nobody has written to since `before_ns`; return how many."""
        ...


@runtime_checkable
class SwapObject(Protocol):
    """Compare-and-swap on one small object: the primitive that refs need."""

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """Read an object whole, with the version that `swap` compares.

        Raises:
            SourceNotFoundError: If it is not there.
        """
        ...

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """Replace `expect` by `data` (None: create), durably, or change nothing.

        Of several racing callers with the same `expect` exactly one succeeds. A lost *response* may raise
        SourceUnavailableError although the write took effect: put a transaction id into `data` and read back.

        Raises:
            SwapLostError: If the key does not hold `expect`.
        """
        ...


class Store(ListObjects, ReadRange, WriteObject, Protocol):
    """A store that lists, reads and writes; the ones that hold a repository are `SwapObject` too."""


class RepositoryStore(Store, SwapObject, Protocol):
    """All that a repository needs."""
