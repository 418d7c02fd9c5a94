"""Packs: many small files in one plain tar, so that nobody pays one object per small file."""

from __future__ import annotations

import mmap
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import google_crc32c
import pyarrow as pa
from blake3 import blake3

from sources import SourceError
from versioning.entries import Entry, EntryKind
from versioning.errors import SpoolError, VersioningError
from versioning.tarfiles import BLOCK, END, member_header, padding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Buffer

    from sources import WriteObject

PACK_BYTES = 64 << 20
"""Usual size of a pack: large enough that requests are few, small enough that a reader can hold some."""


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


class PackWriter:
    """Writes files into tars of a repository, in the order they are added; equal files give equal tars.

    A tar is gathered in a temporary file and uploaded whole, under its hash, when the next file would make it larger
    than `pack_size`. Use as a context manager, or call `finish` or `close`.

    Args:
        repository: Where the packs go.
        pack_size: Largest tar, bytes, unless one file alone is larger.
        spool: Directory of the temporary file; the system's own by default.
    """

    def __init__(self, repository: WritesObjects, *, pack_size: int = PACK_BYTES, spool: Path | None = None) -> None:
        self._repository = repository
        self._pack_size = pack_size
        self._done: list[StoredObject] = []
        self._spool = spool
        with spooling(spool):
            self._file = tempfile.TemporaryFile(prefix="forebay-pack-", dir=spool)  # noqa: SIM115 - held until close
        self._hasher = blake3()
        self._size = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, name: str, data: Buffer) -> PackedMember:
        """Append a file; may upload the pack that is full.

        Args:
            name: The file's name in the tar: its path in the dataset.
            data: All its bytes.

        Raises:
            InvalidNameError: If a tar cannot name it.
            SourceError: If the upload fails; nothing that was finished is lost.
        """
        view = memoryview(data).cast("B")
        header = member_header(name, len(view))
        filled = padding(len(view))
        length = len(header) + len(view) + len(filled)
        if self._size and self._size + length + len(END) > self._pack_size:
            self._upload()
        offset = self._size + len(header)
        oid = blake3(view).digest()
        self._append(header, view, filled)
        return PackedMember(name, len(self._done), offset, len(view), oid, google_crc32c.value(bytes(view)))

    def finish(self) -> PackSet:
        """Upload what is left and return where the packs are; the writer cannot be used afterwards."""
        if self._size:
            self._upload()
        self.close()
        return PackSet(tuple(self._done))

    def close(self) -> None:
        """Throw away what is not uploaded yet."""
        with suppress(OSError):  # a full disk that could not take what is thrown away
            self._file.close()

    def _append(self, *parts: Buffer) -> None:
        for part in parts:
            with spooling(self._spool):
                self._file.write(part)
            self._hasher.update(part)
            self._size += memoryview(part).nbytes

    def _upload(self) -> None:
        self._append(END)
        assert self._size % BLOCK == 0
        with spooling(self._spool):
            self._file.flush()
        oid = self._hasher.digest()
        pack = StoredObject(f"packs/{oid.hex()[:2]}/{oid.hex()}.tar", oid, self._size)
        put_file(self._repository, pack.key, self._file.fileno(), self._size)
        self._done.append(pack)
        self._file.seek(0)
        self._file.truncate()
        self._hasher = blake3()
        self._size = 0


@contextmanager
def spooling(directory: Path | None) -> Iterator[None]:
    """Turn the operating system's errors about temporary files into ours."""
    try:
        yield
    except (VersioningError, SourceError):  # some of them are an OSError too, and not about a temporary file
        raise
    except OSError as error:
        raise SpoolError(str(directory or tempfile.gettempdir()), reason=error.strerror or str(error)) from error


def put_file(repository: WritesObjects, key: str, fd: int, size: int) -> None:
    """Write a private temporary file into the repository, without holding it in memory.

    Nobody else may change the file meanwhile: it is mapped.
    """
    # Not closed by hand: a write that Ctrl-C broke off may still hold it, and closing it then is an error.
    repository.store.put(repository.prefix + key, mmap.mmap(fd, size, access=mmap.ACCESS_READ))
