"""What a store can do, as small protocols: take the smallest one that a function needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from sources.locations import ObjectStat, StoreId, Version


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
