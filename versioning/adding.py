"""Files from local disks into a repository: small ones into packs, large ones as objects of their own."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np
import pyarrow as pa
from blake3 import blake3

from versioning.blobs import blob_entry, blob_of
from versioning.changes import ChangeSet
from versioning.columns import compute, sorted_by_path, take
from versioning.entries import ENTRY_SCHEMA, Entry, entries_table
from versioning.errors import UnreadableFileError
from versioning.packs import PACK_BYTES, StoredObject, WritesObjects, new_object
from versioning.packwriter import PackWriter
from versioning.readahead import reading_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from sources.stores import NewObject
    from versioning.filereading import File
    from versioning.packs import PackSet, Placed

BLOB_BYTES = 16 << 20
"""A file larger than this is an object of its own."""
_CHUNK_BYTES = 4 << 20

STAT_SCHEMA: pa.Schema = pa.schema(
    [("size", pa.int64()), ("mtime_ns", pa.int64()), ("ctime_ns", pa.int64()), ("inode", pa.uint64())]
)
"""What is kept of the stat of a file."""


@dataclass(frozen=True, slots=True)
class AddProgress:
    """How far an addition is: files and bytes read so far."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class AddOptions:
    """How files are added.

    Attributes:
        pack_size: Largest pack, bytes.
        blob_size: Files larger than this become blobs, bytes.
        spool: Directory for temporary files; the system's own by default.
        follow: Whether a symbolic link to a file stands for that file; else it is an error.
        readers: How many processes read the files, 0 for threads of this one; by default as many as there are
            processors if there are thousands of files. What is stored does not depend on it.
    """

    pack_size: int = PACK_BYTES
    blob_size: int = BLOB_BYTES
    spool: Path | None = None
    follow: bool = True
    readers: int | None = None


class AddedFiles(NamedTuple):
    """Files that were uploaded.

    Attributes:
        changes: The change set that adds them.
        stats: Table of `STAT_SCHEMA`, row by row those of `changes.upserts`: from before the bytes were read, so that
            what is written later changes them.
    """

    changes: ChangeSet
    stats: pa.Table


def add_files(
    repository: WritesObjects,
    files: Iterable[File],
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
        on_progress: Called every few files.

    Raises:
        UnreadableFileError: Naming the file.
        InvalidNameError: For a path that cannot be stored.
    """
    options = AddOptions(pack_size, blob_size, spool)
    return upload_files(repository, files, options, on_progress=on_progress).changes


def upload_files(
    repository: WritesObjects,
    files: Iterable[File],
    options: AddOptions,
    *,
    on_progress: Callable[[AddProgress], None] | None = None,
) -> AddedFiles:
    """Do what `add_files` does, and return the stat of each file, too."""
    report = on_progress or (lambda _: None)
    blobs: list[tuple[Entry, os.stat_result]] = []
    placed: list[Placed] = []
    seen_files = seen_bytes = 0
    writing = PackWriter(repository, pack_size=options.pack_size, spool=options.spool)
    reading = reading_ahead(files, limit=options.blob_size, follow=options.follow, readers=options.readers)
    with writing as writer, reading as batches:
        for members, large, *_ in batches:
            placed.append(writer.extend(members))
            seen_files += len(members.paths)
            seen_bytes += int(members.sizes.sum())
            report(AddProgress(seen_files, seen_bytes))
            for path, file in large:
                blobs.append(_add_large(repository, path, file, options))
                seen_files, seen_bytes = seen_files + 1, seen_bytes + blobs[-1][0].size
                report(AddProgress(seen_files, seen_bytes))
        packs = writer.finish()
    return _added(packs, placed, blobs)


def _added(packs: PackSet, placed: list[Placed], blobs: list[tuple[Entry, os.stat_result]]) -> AddedFiles:
    """Put the rows of all files together; of those with one path the last, and a blob before a packed file."""
    entries = pa.concat_tables([packs.entries(placed), entries_table(entry for entry, _ in blobs)])
    found = [status for _, status in blobs]
    ctime_ns = [*(each.members.ctime_ns for each in placed), [each.st_ctime_ns for each in found]]
    inodes = [*(each.members.inodes for each in placed), [each.st_ino for each in found]]
    entries = entries.append_column(_CTIME, pa.array(np.concatenate([np.array(each, np.int64) for each in ctime_ns])))
    entries = entries.append_column(_INODE, pa.array(np.concatenate([np.array(each, np.uint64) for each in inodes])))
    rows = sorted_by_path(_last_of_each(entries))
    stats = [rows.column(name) for name in ("size", "mtime_ns", _CTIME, _INODE)]
    return AddedFiles(ChangeSet.of_table(rows.select(ENTRY_SCHEMA.names)), pa.table(stats, schema=STAT_SCHEMA))


_CTIME, _INODE = "stat.ctime_ns", "stat.inode"


def _last_of_each(entries: pa.Table) -> pa.Table:
    """Leave out rows whose path comes again."""
    paths = entries.column("path")
    if len(compute.unique(paths)) == len(paths):
        return entries
    last = {path: row for row, path in enumerate(paths.to_pylist())}
    return take(entries, np.array(sorted(last.values()), dtype=np.int64))


def _add_large(
    repository: WritesObjects, path: str, file: Path | str, options: AddOptions
) -> tuple[Entry, os.stat_result]:
    """Upload a large file and return its entry."""

    def open_at_once(name: str, flags: int) -> int:  # a FIFO would wait for somebody who writes into it
        return os.open(name, flags | os.O_NONBLOCK | (0 if options.follow else os.O_NOFOLLOW))

    with _reading(file):
        opened = open(file, "rb", buffering=0, opener=open_at_once)  # noqa: SIM115 - only errors of opening it
    with opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode):  # it was when it was found to be large; a FIFO reads as an empty file
            raise UnreadableFileError(str(file), reason="it is no regular file")
        content = new_object(repository, "blobs/", spool=options.spool)
        try:
            blob, crc32c = _copy(opened, content, file)
            content.publish(repository.prefix + blob.key)
        finally:
            content.close()
    return blob_entry(path, blob, crc32c, found.st_mtime_ns), found


def _copy(opened: BinaryIO, content: NewObject, file: Path | str) -> tuple[StoredObject, int]:
    """Copy an open file and hash the copy; a mapping of the original would crash us if it were cut short."""
    hasher, crc32c, size = blake3(), 0, 0
    while True:
        with _reading(file):
            chunk = opened.read(_CHUNK_BYTES)
        if not chunk:
            break
        content.write(chunk)
        hasher.update(chunk)
        crc32c = google_crc32c.extend(crc32c, chunk)
        size += len(chunk)
    return blob_of(hasher.digest(), size), crc32c


@contextmanager
def _reading(file: Path | str) -> Iterator[None]:
    """Turn the operating system's errors about a local file into ours."""
    try:
        yield
    except UnreadableFileError:
        raise
    except OSError as error:
        raise UnreadableFileError(str(file), reason=error.strerror or str(error)) from error
