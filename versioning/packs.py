"""Packs: many small files in one plain tar, so that nobody pays one object per small file."""

from __future__ import annotations

import mmap
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

import google_crc32c
import pyarrow as pa
from blake3 import blake3

from sources import SourceError
from sources.crew import Crew
from versioning.entries import ENTRY_SCHEMA, Entry, EntryKind
from versioning.errors import SpoolError, VersioningError
from versioning.tarfiles import BLOCK, END, member_header, padding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Buffer

    from sources import WriteObject

PACK_BYTES = 64 << 20
"""Usual size of a pack: large enough that requests are few, small enough that a reader can hold some."""
_GATHERED_BYTES = 1 << 20
_UPLOAD_SECONDS = 24 * 3600  # a store gives up by itself long before; this only ends a wait that nothing else would

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

    def entries(self, members: Sequence[tuple[PackedMember, int]]) -> pa.Table:
        """Return the entries of members that are named by their paths in the dataset, with modification times.

        Args:
            members: Each with its file's modification time, nanoseconds since 1970; in any order.
        """
        files = [member for member, _ in members]
        pack = pa.array([member.pack for member in files], pa.int32())
        columns = {
            "path": [member.name for member in files],
            "kind": pa.repeat(str(EntryKind.PACKED), len(files)),
            "size": [member.size for member in files],
            "oid": [member.oid for member in files],
            "crc32c": [member.crc32c for member in files],
            "store": pa.repeat("", len(files)),
            "key": pa.array([each.key for each in self.packs], pa.string()).take(pack),
            "version": pa.array([each.version for each in self.packs], pa.string()).take(pack),
            "offset": [member.offset for member in files],
            "object_size": pa.array([each.size for each in self.packs], pa.int64()).take(pack),
            "source": pa.nulls(len(files), pa.string()),
            "mtime_ns": [mtime_ns for _, mtime_ns in members],
            "meta": pa.nulls(len(files), pa.string()),
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
        self._spool = spool
        self._done: list[StoredObject] = []
        self._sending: Future[None] | None = None
        self._sender = Crew(1, name="forebay-pack")
        self._begin()

    def _begin(self) -> None:
        with spooling(self._spool):
            self._file = tempfile.TemporaryFile(prefix="forebay-pack-", dir=self._spool)  # noqa: SIM115 - until sent
        self._hasher = blake3()
        self._size = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, name: str, data: Buffer, *, sums: Sums | None = None) -> PackedMember:
        """Append a file; may upload the pack that is full, while the next one is gathered.

        Args:
            name: The file's name in the tar: its path in the dataset.
            data: All its bytes.
            sums: Of the bytes, if they are known.

        Raises:
            InvalidNameError: If a tar cannot name it.
            SourceError: If the upload of an earlier pack failed; nothing that was finished is lost.
        """
        content = data if isinstance(data, bytes) else bytes(data)
        size = len(content)
        header, filled = member_header(name, size), padding(size)
        length = len(header) + size + len(filled)
        if self._size and self._size + length + len(END) > self._pack_size:
            self._send()
        offset = self._size + len(header)
        oid, crc32c = sums or sums_of(content)
        self._append(header, content, filled)
        return PackedMember(name, len(self._done), offset, size, oid, crc32c)

    def finish(self) -> PackSet:
        """Upload what is left and return where the packs are; the writer cannot be used afterwards."""
        if self._size:
            self._send()
        self._wait()
        self.close()
        return PackSet(tuple(self._done))

    def close(self) -> None:
        """Throw away what is not uploaded yet."""
        if self._sending is not None:
            self._sending.cancel()
        self._sender.close()
        with suppress(OSError):  # a full disk that could not take what is thrown away
            self._file.close()

    def _append(self, *parts: bytes) -> None:
        """Gather parts: a write for each would cost more than the bytes do."""
        self._parts += parts
        length = sum(map(len, parts))
        self._size += length
        self._parts_bytes += length
        if self._parts_bytes >= _GATHERED_BYTES:
            self._write_parts()

    def _write_parts(self) -> None:
        joined = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        with spooling(self._spool):
            self._file.write(joined)
        self._hasher.update(joined)

    def _send(self) -> None:
        """Begin to upload the pack, after the one before it, and begin another."""
        self._append(END)
        self._write_parts()
        assert self._size % BLOCK == 0
        with spooling(self._spool):
            self._file.flush()
        oid = self._hasher.digest()
        pack = StoredObject(f"packs/{oid.hex()[:2]}/{oid.hex()}.tar", oid, self._size)
        self._wait()
        self._sending = self._sender.submit(partial(_put_and_close, self._repository, pack, self._file))
        self._done.append(pack)
        self._begin()

    def _wait(self) -> None:
        """Wait for the upload under way: no more than two packs lie on the local disk."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result(_UPLOAD_SECONDS)


def sums_of(data: bytes) -> Sums:
    """Return BLAKE3-256 and CRC-32C of some bytes."""
    return blake3(data).digest(), google_crc32c.value(data)


def _put_and_close(repository: WritesObjects, pack: StoredObject, file: IO[bytes]) -> None:
    with file:
        put_file(repository, pack.key, file.fileno(), pack.size)


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
