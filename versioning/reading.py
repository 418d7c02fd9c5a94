"""Bytes of small files of a version, such as its own configuration; for data, read through a cache instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

from versioning.entries import EntryKind
from versioning.errors import CorruptRepositoryError

if TYPE_CHECKING:
    from versioning.entries import Entry
    from versioning.repository import Repository


def read_stored(repository: Repository, entry: Entry, *, max_bytes: int) -> bytes:
    """Return a file's bytes, verified.

    Raises:
        ValueError: If it lies outside of the repository, or is larger than `max_bytes`.
        CorruptRepositoryError: If its bytes are not those of its hash.
    """
    if entry.kind == EntryKind.EXTERNAL or entry.oid is None:
        raise ValueError("it lies outside of the repository; copy it in with: ds add")
    if entry.size > max_bytes:
        raise ValueError(f"it has {entry.size:,} bytes, more than {max_bytes:,}")
    where = entry.location(repository.root)
    data = bytes(repository.store.read(where.object.key, start=where.offset, length=where.length, version=None))
    if blake3(data).digest() != entry.oid:
        raise CorruptRepositoryError(where.object.key, reason=f"the bytes of {entry.path} do not match their hash")
    return data
