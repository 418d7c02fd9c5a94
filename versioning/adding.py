"""Files from local disks into a repository: small ones into packs, large ones as objects of their own."""

from __future__ import annotations

import os
import stat
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias

import google_crc32c
import numpy as np
import pyarrow as pa
from blake3 import blake3

from versioning.blobs import blob_entry, blob_of
from versioning.changes import ChangeSet
from versioning.columns import compute, concat, take
from versioning.entries import ENTRY_SCHEMA, Entry, entries_table
from versioning.errors import UnreadableFileError
from versioning.names import check_path, check_paths
from versioning.packs import (
    PACK_BYTES,
    PackedMember,
    PackWriter,
    StoredObject,
    Sums,
    WritesObjects,
    put_file,
    spooling,
    sums_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

BLOB_BYTES = 16 << 20
"""A file larger than this is an object of its own."""
_CHUNK_BYTES = 4 << 20
_READERS = 2
_BATCH_FILES, _BATCH_BYTES = 128, 16 << 20  # of each reader: what is read ahead, at most
_READ_SECONDS = 24 * 3600  # a network file system may hang for long; this only ends a wait that nothing else would


@dataclass(frozen=True, slots=True)
class AddProgress:
    """How far an addition is: files and bytes read so far."""

    files: int
    bytes: int


def add_files(
    repository: WritesObjects,
    files: Iterable[tuple[str, Path | str]],
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
    report = on_progress or (lambda _: None)
    blobs: list[Entry] = []
    packed: list[tuple[PackedMember, int]] = []
    seen_bytes = 0
    writing = PackWriter(repository, pack_size=pack_size, spool=spool)
    with writing as writer, _reading_ahead(files, blob_size) as batches:
        for batch in batches:
            for path, file, read in batch:
                found = read or _read_small(file, blob_size)
                if found is None:
                    blobs.append(_add_large(repository, path, file, spool))
                    seen_bytes += blobs[-1].size
                    report(AddProgress(len(blobs) + len(packed), seen_bytes))
                else:
                    packed.append((writer.add(path, found.data, sums=found.sums), found.mtime_ns))
                    seen_bytes += len(found.data)
            report(AddProgress(len(blobs) + len(packed), seen_bytes))
        packs = writer.finish()
    return ChangeSet.of_table(_last_of_each(concat([packs.entries(packed), entries_table(blobs)], ENTRY_SCHEMA)))


def _last_of_each(entries: pa.Table) -> pa.Table:
    """Leave out rows whose path comes again; the small files come first, so that a blob of that path wins."""
    paths = entries.column("path")
    if len(compute.unique(paths)) == len(paths):
        return entries
    last = {path: row for row, path in enumerate(paths.to_pylist())}
    return take(entries, np.array(sorted(last.values()), dtype=np.int64))


class _Read(NamedTuple):
    """A small file's bytes and what is known of them."""

    data: bytes
    mtime_ns: int
    sums: Sums


_Batch: TypeAlias = "list[tuple[str, Path | str, _Read | None]]"


@contextmanager
def _reading_ahead(files: Iterable[tuple[str, Path | str]], blob_size: int) -> Iterator[Iterator[_Batch]]:
    """Read and hash files on other threads, in the order given; what is too much to hold is left for the caller."""
    with ThreadPoolExecutor(_READERS, "forebay-add") as pool:

        def batches() -> Iterator[_Batch]:
            rest = iter(files)
            pending: deque[Future[_Batch]] = deque()
            while batch := list(islice(rest, _BATCH_FILES)):
                _check_paths([path for path, _ in batch])
                pending.append(pool.submit(_read_batch, batch, blob_size))
                if len(pending) > _READERS:
                    yield pending.popleft().result(_READ_SECONDS)
            while pending:
                yield pending.popleft().result(_READ_SECONDS)

        try:
            yield batches()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _check_paths(paths: list[str]) -> None:
    try:
        check_paths(pa.array(paths, pa.string()))
    except UnicodeEncodeError:
        for path in paths:
            check_path(path)


def _read_batch(files: list[tuple[str, Path | str]], blob_size: int) -> _Batch:
    room = _BATCH_BYTES
    read: _Batch = []
    for path, file in files:
        found = _read_small(file, min(blob_size, room)) if room > 0 else None
        room -= len(found.data) if found is not None else 0
        read.append((path, file, found))
    return read


def _read_small(file: Path | str, limit: int) -> _Read | None:
    """Read a file; None if it has more bytes than `limit`."""
    try:
        fd = os.open(
            file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )  # a FIFO would wait for somebody to write into it
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise UnreadableFileError(str(file), reason="it is no regular file")
            data = _read_up_to(fd, found.st_size, limit) if found.st_size <= limit else None
        finally:
            os.close(fd)
    except UnreadableFileError:
        raise
    except OSError as error:
        raise UnreadableFileError(str(file), reason=error.strerror or str(error)) from error
    return None if data is None else _Read(data, found.st_mtime_ns, sums_of(data))


def _read_up_to(fd: int, expected: int, limit: int) -> bytes | None:
    """Read to the end; None if that is beyond `limit`."""
    data = os.read(fd, expected + 1)  # a byte too many: if it is not there, that was the end
    while len(data) != expected:
        if len(data) > limit:
            return None
        more = os.read(fd, limit + 1 - len(data))  # it grew or shrank, or lies on NFS
        if not more:
            break
        data += more
    return data


def _add_large(repository: WritesObjects, path: str, file: Path | str, spool: Path | None) -> Entry:
    """Upload a large file and return its entry."""
    with _reading(file):
        opened = open(file, "rb", opener=_open_at_once)  # noqa: SIM115 - only errors of opening it are meant here
    with opened:
        mtime_ns = os.fstat(opened.fileno()).st_mtime_ns
        with spooling(spool), tempfile.TemporaryFile(prefix="forebay-blob-", dir=spool) as copy:
            blob, crc32c = _copy(opened, copy, file)
            put_file(repository, blob.key, copy.fileno(), blob.size)
    return blob_entry(path, blob, crc32c, mtime_ns)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for somebody who writes into it


def _copy(opened: BinaryIO, copy: BinaryIO, file: Path | str) -> tuple[StoredObject, int]:
    """Copy an open file and hash the copy; a mapping of the original would crash us if it were cut short."""
    hasher, crc32c, size = blake3(), 0, 0
    while True:
        with _reading(file):
            chunk = opened.read(_CHUNK_BYTES)
        if not chunk:
            break
        copy.write(chunk)
        hasher.update(chunk)
        crc32c = google_crc32c.extend(crc32c, chunk)
        size += len(chunk)
    copy.flush()
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
