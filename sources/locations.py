"""Names for immutable bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

from blake3 import blake3

StoreId = NewType("StoreId", str)
"""Scheme and authority of a store, without credentials: `s3://bucket`, `file://`, `https://host`."""

Version = NewType("Version", str)
"""Opaque identity of one content of a key, tagged with its kind.

`etag:...` and `vid:...` (object stores), `stat:...` (files: times, size, inode), `md5:...` (DVC), `oid:<hex>`
(content-addressed: the bytes hash to it); docs/reference/sources.md has them all. Compare for equality only.
"""

ObjectId = NewType("ObjectId", bytes)
"""16 bytes that name one immutable object everywhere: the key space of the cache."""


def object_id(store: str, key: str, version: str) -> ObjectId:
    """Hash an object's identity: BLAKE3-128 of `store NUL key NUL version`.

    A content-addressed object (`oid:`) is the same object in whatever store and under whatever key it lies.
    """
    identity = version if version.startswith("oid:") else f"{store}\0{key}\0{version}"
    return ObjectId(blake3(identity.encode()).digest(16))


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One immutable object in a store.

    Attributes:
        store: The store's id; what it may be opened with is not part of the identity.
        key: Key in the store, complete (not relative to a mount).
        version: The pinned version.
        size: Length of the whole object, bytes.
        id: Derived from the identity; see `object_id`.
    """

    store: StoreId
    key: str
    version: Version
    size: int
    id: ObjectId = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", object_id(self.store, self.key, self.version))

    @property
    def uri(self) -> str:
        """The object as people write it, without its version."""
        return join_uri(self.store, self.key)


@dataclass(frozen=True, slots=True)
class Location:
    """A range of an immutable object: `[offset, offset + length)`."""

    object: ObjectRef
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a listing or a stat tells about a key now."""

    key: str
    size: int
    version: Version
    mtime_ns: int | None = None


def join_uri(store: str, key: str) -> str:
    """Write a store's id and a key as one URI, which `split_uri` takes apart again."""
    return f"{store}/{key}"
