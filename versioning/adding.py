"""Files from local disks into a repository: small ones into packs, large ones as objects of their own."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import google_crc32c
from blake3 import blake3

from versioning.blobs import blob_entry, blob_of
from versioning.changes import ChangeSet
from versioning.entries import Entry
from versioning.errors import UnreadableFileError
from versioning.names import check_path
from versioning.packs import PACK_BYTES, PackedMember, PackWriter, StoredObject, WritesObjects, put_file, spooling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BLOB_BYTES = 16 << 20
"""A file larger than this is an object of its own."""
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class AddProgress:
    """How far an addition is: files and bytes read so far."""

    files: int
    bytes: int


def add_files(
    repository: WritesObjects,
    files: Iterable[tuple[str, Path]],
    *,
    pack_size: int = PACK_BYTES,
    blob_size: int = BLOB_BYTES,
    spool: Path | None = None,
    on_progress: Callable[[AddProgress], None] | None = None,
) -> ChangeSet:
    """Upload local files and return the change set that adds them; nothing is committed.

    Each file's bytes are read once, so what is uploaded is what was hashed, even if the file changes meanwhile.

    Args:
        repository: Where the bytes go.
        files: Path in the dataset and local file. Files lie in the packs in this order: sort them for equal packs.
        pack_size: Largest pack, bytes.
        blob_size: Files larger than this become blobs, bytes.
        spool: Directory for temporary files; the system's own by default.
        on_progress: Called after each file.

    Raises:
        UnreadableFileError: Naming the file.
        InvalidNameError: For a path that cannot be stored.
    """
    blobs: list[Entry] = []
    packed: list[tuple[str, PackedMember, int]] = []
    seen_bytes = 0
    with PackWriter(repository, pack_size=pack_size, spool=spool) as writer:
        for number, (path, file) in enumerate(files, start=1):
            check_path(path)
            found = _read_file(repository, path, file, blob_size, spool)
            if isinstance(found, Entry):
                blobs.append(found)
                seen_bytes += found.size
            else:
                data, mtime_ns = found
                packed.append((path, writer.add(path, data), mtime_ns))
                seen_bytes += len(data)
            if on_progress is not None:
                on_progress(AddProgress(number, seen_bytes))
        packs = writer.finish()
    return ChangeSet.of([*blobs, *(packs.entry(path, member, mtime_ns=mtime) for path, member, mtime in packed)])


def _read_file(
    repository: WritesObjects, path: str, file: Path, blob_size: int, spool: Path | None
) -> Entry | tuple[bytes, int]:
    """Upload a large file and return its entry, or read a small one and return its bytes and modification time."""
    with _reading(file):
        opened = open(file, "rb", opener=_open_at_once)  # noqa: SIM115 - only errors of opening it are meant here
    with opened:
        with _reading(file):
            found = os.fstat(opened.fileno())
            mtime_ns = found.st_mtime_ns
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableFileError(str(file), reason="it is no regular file")
            data = opened.read(blob_size + 1)
        if len(data) <= blob_size:
            return data, mtime_ns
        with spooling(spool), tempfile.TemporaryFile(prefix="forebay-blob-", dir=spool) as copy:
            blob, crc32c = _copy(data, opened, copy, file)
            put_file(repository, blob.key, copy.fileno(), blob.size)
    return blob_entry(path, blob, crc32c, mtime_ns)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for somebody who writes into it


def _copy(first: bytes, opened: BinaryIO, copy: BinaryIO, file: Path) -> tuple[StoredObject, int]:
    """Copy an open file and hash the copy; a mapping of the original would crash us if it were cut short."""
    hasher, crc32c, size = blake3(), 0, 0
    chunk = first
    while chunk:
        copy.write(chunk)
        hasher.update(chunk)
        crc32c = google_crc32c.extend(crc32c, chunk)
        size += len(chunk)
        with _reading(file):
            chunk = opened.read(_CHUNK_BYTES)
    copy.flush()
    return blob_of(hasher.digest(), size), crc32c


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn the operating system's errors about a local file into ours."""
    try:
        yield
    except UnreadableFileError:
        raise
    except OSError as error:
        raise UnreadableFileError(str(file), reason=error.strerror or str(error)) from error
