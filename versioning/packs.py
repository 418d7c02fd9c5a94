"""Packs: many small files in one plain tar, so that nobody pays one object per small file."""

from __future__ import annotations

import mmap
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import google_crc32c
import numpy as np
import pyarrow as pa
from blake3 import blake3

from sources import SourceError
from sources.stores import BeginObject
from versioning.entries import ENTRY_SCHEMA, Entry, EntryKind
from versioning.errors import SpoolError, VersioningError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from sources import WriteObject
    from sources.stores import NewObject
    from versioning.gathering import Members

PACK_BYTES = 64 << 20
"""Usual size of a pack: large enough that requests are few, small enough that a reader can hold some."""
_NONE: NDArray[np.int64] = np.zeros(0, np.int64)

Sums: TypeAlias = tuple[bytes, int]
"""BLAKE3-256 and CRC-32C of some bytes."""


class WritesObjects(Protocol):
    """The part of a repository that packs need."""

    @property
    def store(self) -> WriteObject:
        """Where to write."""
        ...

    @property
    def prefix(self) -> str:
        """Key prefix of the repository."""
        ...


@dataclass(frozen=True, slots=True)
class PackedMember:
    """One file in a pack that is being written.

    Attributes:
        name: As in the tar.
        pack: Which of the writer's packs, from 0.
        offset: Where its bytes begin in the tar.
        size: Bytes.
        oid: BLAKE3-256 of its bytes.
        crc32c: CRC-32C of its bytes.
    """

    name: str
    pack: int
    offset: int
    size: int
    oid: bytes
    crc32c: int


class Placed(NamedTuple):
    """Files that were packed together.

    Attributes:
        members: The files; their view is of no use any more.
        packs: Which of the writer's packs each is in, from 0.
        offsets: Where the bytes of each begin in its pack.
    """

    members: Members
    packs: NDArray[np.int64]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the repository that is named by its hash.

    Attributes:
        key: Relative to the repository's prefix.
        oid: BLAKE3-256 of its bytes.
        size: Bytes.
    """

    key: str
    oid: bytes
    size: int

    @property
    def version(self) -> str:
        """As in `Entry.version`."""
        return f"oid:{self.oid.hex()}"


@dataclass(frozen=True, slots=True)
class PackSet:
    """The packs that a writer has uploaded; `PackedMember.pack` counts them."""

    packs: tuple[StoredObject, ...]

    def entry(
        self,
        path: str,
        member: PackedMember,
        *,
        source: str | None = None,
        mtime_ns: int | None = None,
        meta: str | None = None,
    ) -> Entry:
        """Return the entry of a path whose bytes are this member."""
        pack = self.packs[member.pack]
        return Entry(
            path=path,
            kind=EntryKind.PACKED,
            size=member.size,
            oid=member.oid,
            crc32c=member.crc32c,
            store="",
            key=pack.key,
            version=pack.version,
            offset=member.offset,
            object_size=pack.size,
            source=source,
            mtime_ns=mtime_ns,
            meta=meta,
        )

    def entries(self, placed: Sequence[Placed]) -> pa.Table:
        """Return the entries of files that were packed under their paths in the dataset, in any order."""
        pack = pa.array(np.concatenate([_NONE, *(each.packs for each in placed)]))
        count = len(pack)
        oids = pa.py_buffer(b"".join(each.members.oids for each in placed))
        columns = {
            "path": [path for each in placed for path in each.members.paths],
            "kind": pa.repeat(str(EntryKind.PACKED), count),
            "size": np.concatenate([_NONE, *(each.members.sizes for each in placed)]),
            "oid": pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), count, [None, oids]),
            "crc32c": np.concatenate([_NONE.astype(np.uint32), *(each.members.crc32c for each in placed)]),
            "store": pa.repeat("", count),
            "key": pa.array([each.key for each in self.packs], pa.string()).take(pack),
            "version": pa.array([each.version for each in self.packs], pa.string()).take(pack),
            "offset": np.concatenate([_NONE, *(each.offsets for each in placed)]),
            "object_size": pa.array([each.size for each in self.packs], pa.int64()).take(pack),
            "source": pa.nulls(count, pa.string()),
            "mtime_ns": np.concatenate([_NONE, *(each.members.mtime_ns for each in placed)]),
            "meta": pa.nulls(count, pa.string()),
        }
        return pa.table(columns, schema=ENTRY_SCHEMA)

    def relocate(self, entries: pa.Table, members: Sequence[PackedMember]) -> pa.Table:
        """Return a table of `ENTRY_SCHEMA` whose rows now lie in these members; path, source, mtime and meta stay.

        Args:
            entries: Table of `ENTRY_SCHEMA`.
            members: One per row, in row order.
        """
        packs = [self.packs[member.pack] for member in members]
        changed: dict[str, list[Any]] = {
            "kind": [str(EntryKind.PACKED)] * len(packs),
            "size": [member.size for member in members],
            "oid": [member.oid for member in members],
            "crc32c": [member.crc32c for member in members],
            "store": [""] * len(packs),
            "key": [pack.key for pack in packs],
            "version": [pack.version for pack in packs],
            "offset": [member.offset for member in members],
            "object_size": [pack.size for pack in packs],
        }
        for name, values in changed.items():
            at = entries.schema.get_field_index(name)
            entries = entries.set_column(
                at, entries.schema.field(name), pa.array(values, entries.schema.field(name).type)
            )
        return entries


def sums_of(data: bytes) -> Sums:
    """Return BLAKE3-256 and CRC-32C of some bytes."""
    return blake3(data).digest(), google_crc32c.value(data)


@contextmanager
def spooling(directory: Path | None) -> Iterator[None]:
    """Turn the operating system's errors about temporary files into ours."""
    try:
        yield
    except (VersioningError, SourceError):  # some of them are an OSError too, and not about a temporary file
        raise
    except OSError as error:
        raise SpoolError(str(directory or tempfile.gettempdir()), reason=error.strerror or str(error)) from error


def put_file(store: WriteObject, key: str, fd: int, size: int) -> None:
    """Write a private temporary file into a store, without holding it in memory.

    Nobody else may change the file meanwhile: it is mapped.
    """
    # Not closed by hand: a write that Ctrl-C broke off may still hold it, and closing it then is an error.
    # Nothing cannot be mapped: a large file was cut to nothing before it was read.
    store.put(key, mmap.mmap(fd, size, access=mmap.ACCESS_READ) if size else b"")


def new_object(repository: WritesObjects, directory: str, *, spool: Path | None) -> NewObject:
    """Begin an object of the repository that is named by its hash, which is known when all is written.

    Where the store can, it is written in its place; else into a temporary file, and uploaded when it is complete.

    Args:
        repository: Where it goes.
        directory: What its key will begin with, relative to the repository's prefix.
        spool: Directory of the temporary file; the system's own by default.

    Raises:
        SourceError, SpoolError: If it cannot be begun.
    """
    if isinstance(repository.store, BeginObject):
        return repository.store.begin(repository.prefix + directory)
    return _SpooledObject(repository.store, spool)


class _SpooledObject:
    """A `NewObject` that lies in a temporary file until it is uploaded."""

    def __init__(self, store: WriteObject, spool: Path | None) -> None:
        self._store = store
        self._spool = spool
        with spooling(spool):
            self._file = tempfile.TemporaryFile(prefix="forebay-pack-", dir=spool)  # noqa: SIM115 - until it is closed
        self._size = 0

    def write(self, data: Buffer) -> None:
        with spooling(self._spool):
            self._size += self._file.write(data)

    def publish(self, key: str) -> None:
        with spooling(self._spool):
            self._file.flush()
        put_file(self._store, key, self._file.fileno(), self._size)

    def close(self) -> None:
        with suppress(OSError):  # a full disk that could not take what is thrown away
            self._file.close()
