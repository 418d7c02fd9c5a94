"""One path of a version: what its bytes are and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sources import Location, ObjectRef, StoreId, Version
from versioning.errors import CorruptRepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ENTRY_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("path", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("oid", pa.binary(32)),
        pa.field("crc32c", pa.uint32()),
        pa.field("store", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("object_size", pa.int64(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("meta", pa.string()),
    )
)
"""The columns of a leaf: one row per path, in byte order of the paths. Part of the format; see `Entry`."""


class EntryKind(StrEnum):
    """How an entry's bytes are kept."""

    EXTERNAL = "external"
    """An object of a source, imported without copying."""
    PACKED = "packed"
    """A member of a tar in this repository."""
    BLOB = "blob"
    """An object of its own in this repository."""


@dataclass(frozen=True, slots=True)
class RepositoryRoot:
    """Where a repository lies, without the means to read it.

    Attributes:
        store: Id of the store.
        prefix: Key prefix of everything in the repository; "" or ending in "/".
    """

    store: StoreId
    prefix: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a version.

    Attributes:
        path: Full path in the dataset, no slash in front.
        kind: How the bytes are kept.
        size: Bytes.
        oid: BLAKE3-256 of the bytes; None while nobody has read an external object.
        crc32c: CRC-32C of the bytes; None as for `oid`.
        store: Id of the store that holds the object; "" is the repository's own.
        key: The object's key; relative to the repository's prefix when `store` is "".
        version: The object's pinned version; `oid:<hex>` in the repository.
        offset: Where the bytes begin in the object.
        object_size: Length of the whole object, bytes.
        source: Version of the source object that this content was imported from; kept when the bytes are packed.
        mtime_ns: Modification time of the file that was imported or added, nanoseconds since 1970.
        meta: Labels and such as canonical JSON; None without.
    """

    path: str
    kind: EntryKind
    size: int
    oid: bytes | None
    crc32c: int | None
    store: str
    key: str
    version: str
    offset: int
    object_size: int
    source: str | None = None
    mtime_ns: int | None = None
    meta: str | None = None

    def location(self, root: RepositoryRoot) -> Location:
        """Return where the bytes lie.

        Raises:
            CorruptRepositoryError: If the entry's range or key cannot be one that Forebay wrote.
        """
        ref = _object_ref(self.store, self.key, self.version, self.object_size, root=root)
        return _range_of(ref, self.offset, self.size)


_LOCATION_COLUMNS = ("store", "key", "version", "object_size", "offset", "size")
_COLUMNS = tuple(field.name for field in fields(Entry))


def entries_table(entries: Iterable[Entry]) -> pa.Table:
    """Turn entries into a table of `ENTRY_SCHEMA`, in the order given."""
    rows = list(entries)
    columns = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
    columns["kind"] = [str(kind) for kind in columns["kind"]]
    return pa.table(columns, schema=ENTRY_SCHEMA)


def table_entries(table: pa.Table) -> Iterator[Entry]:
    """Yield the rows of a table of `ENTRY_SCHEMA`."""
    for row in table.to_pylist():
        yield _entry_of(row)


def location_in(
    root: RepositoryRoot, store: str, key: str, version: str, *, object_size: int, offset: int, size: int
) -> Location:
    """Return where bytes lie, from the fields of an entry. Raises as `Entry.location`, which has a whole one."""
    return _range_of(_object_ref(store, key, version, object_size, root=root), offset, size)


def locations(table: pa.Table, root: RepositoryRoot) -> list[Location]:
    """Return where the bytes of each row lie, in row order; one `ObjectRef` is made per distinct object.

    Args:
        table: Needs the columns store, key, version, object_size, offset and size.
        root: Where the repository lies.

    Raises:
        CorruptRepositoryError: As for `Entry.location`.
    """
    refs: dict[tuple[str, str, str, int], ObjectRef] = {}
    found: list[Location] = []
    columns = (table.column(name).to_pylist() for name in _LOCATION_COLUMNS)
    for store, key, version, object_size, offset, size in zip(*columns, strict=True):
        identity = (store, key, version, object_size)
        ref = refs.get(identity)
        if ref is None:
            ref = refs[identity] = _object_ref(*identity, root=root)
        found.append(_range_of(ref, offset, size))
    return found


def _entry_of(row: dict[str, Any]) -> Entry:
    return Entry(**{**row, "kind": EntryKind(row["kind"])})


def _object_ref(store: str, key: str, version: str, size: int, *, root: RepositoryRoot) -> ObjectRef:
    if store:
        return ObjectRef(StoreId(store), key, Version(version), size)
    # A hostile tree must not name bytes outside of the repository.
    if not key.startswith(("packs/", "blobs/")) or ".." in key.split("/"):
        raise CorruptRepositoryError(key, reason="an entry names it as an object of the repository")
    return ObjectRef(root.store, root.prefix + key, Version(version), size)


def _range_of(ref: ObjectRef, offset: int, size: int) -> Location:
    if offset < 0 or size < 0 or offset + size > ref.size:
        raise CorruptRepositoryError(ref.key, reason=f"an entry names bytes [{offset}, {offset + size}) of {ref.size}")
    return Location(ref, offset, size)
