"""Large files: each an object of its own in the repository, named by its hash."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy
from blake3 import blake3

from versioning.entries import Entry, EntryKind
from versioning.errors import UnreadableFileError
from versioning.names import check_path
from versioning.packs import StoredObject, WritesObjects

if TYPE_CHECKING:
    from pathlib import Path

_SLICE_BYTES = 16 << 20  # the two sums read a slice while it is in the processor's reach


def put_blob(
    repository: WritesObjects, path: str, file: Path, *, crc32c: int | None = None, mtime_ns: int | None = None
) -> Entry:
    """Upload a local file as an object of its own and return the entry that names it; nothing is committed.

    Args:
        repository: Where the bytes go.
        path: Path in the dataset.
        file: Not empty, and nobody else may change it meanwhile: it is mapped.
        crc32c: What its bytes must sum up to, if that is known.
        mtime_ns: Modification time for the entry, nanoseconds since 1970.

    Raises:
        UnreadableFileError: If it cannot be read, is empty, or has another checksum; nothing was uploaded.
        InvalidNameError: For a path that cannot be stored.
    """
    check_path(path)
    try:
        with open(file, "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size == 0:
                raise UnreadableFileError(str(file), reason="it is empty; small files go into packs")
            data = mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        if isinstance(error, UnreadableFileError):
            raise
        raise UnreadableFileError(str(file), reason=error.strerror or str(error)) from error
    oid, found = _sums(data)
    if crc32c not in (None, found):
        raise UnreadableFileError(str(file), reason=f"its bytes changed on the disk: crc32c {found}, not {crc32c}")
    blob = blob_of(oid, size)
    # Not unmapped by hand: a write that Ctrl-C broke off may still hold it, and closing it then is an error.
    repository.store.put(repository.prefix + blob.key, data)
    return blob_entry(path, blob, found, mtime_ns)


def blob_of(oid: bytes, size: int) -> StoredObject:
    """Name the object that holds content with this hash."""
    return StoredObject(f"blobs/{oid.hex()[:2]}/{oid.hex()}", oid, size)


def blob_entry(path: str, blob: StoredObject, crc32c: int, mtime_ns: int | None) -> Entry:
    """Return the entry of a path whose bytes are all of this object."""
    return Entry(
        path=path,
        kind=EntryKind.BLOB,
        size=blob.size,
        oid=blob.oid,
        crc32c=crc32c,
        store="",
        key=blob.key,
        version=blob.version,
        offset=0,
        object_size=blob.size,
        mtime_ns=mtime_ns,
    )


def _sums(data: mmap.mmap) -> tuple[bytes, int]:
    """Return BLAKE3-256 and CRC-32C of mapped bytes."""
    hasher, crc32c = blake3(), 0
    whole: Any = numpy.frombuffer(data, numpy.uint8)  # the checksum's extension takes no memoryview
    for start in range(0, len(whole), _SLICE_BYTES):
        part = whole[start : start + _SLICE_BYTES]
        hasher.update(part)
        crc32c = google_crc32c.extend(crc32c, part)
    return hasher.digest(), crc32c
