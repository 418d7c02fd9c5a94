"""Reading the files of a shard into the shard's own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from blake3 import blake3

from cache_runtime import ChecksumError
from loaders.errors import CorruptSampleError
from sources import ObjectRef, SourceError, StoreId, Version
from sources.stores import ReadFiles
from versioning import locations

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from loaders.packing.workplaces import OpenedWorkplace

CHUNK_BYTES = 16 << 20
"""Read at once: enough for the client to join neighbours and to read in parallel."""

UNREADABLE = (SourceError, ChecksumError, CorruptSampleError)
"""What is wrong with an input rather than with the pack."""


class Inputs:
    """Reads rows of a task.

    Args:
        workplace: Reads the bytes.
        rehash: Compute each file's hash even where its CRC-32C says that it is what was committed.
    """

    def __init__(self, workplace: OpenedWorkplace, *, rehash: bool) -> None:
        self._workplace = workplace
        self._rehash = rehash
        self._readers: dict[tuple[str, str], ReadFiles | None] = {}

    def read_into(self, rows: pa.Table, buffers: Sequence[memoryview]) -> list[tuple[bytes, int]]:
        """Fill a buffer for each row; return BLAKE3-256 and CRC-32C of each.

        Raises:
            CorruptSampleError: If bytes are not those that were committed.
            SourceError: If bytes cannot be had, or changed at their source.
        """
        self._fill(rows, buffers)
        oids, crcs = rows["oid"].to_pylist(), rows["crc32c"].to_pylist()
        checked = map(self._checked, buffers, oids, crcs)
        found: list[tuple[bytes, int]] = []
        for sums in checked:
            if sums is None:
                raise _not_as_committed(rows, len(found), bytes(blake3(buffers[len(found)]).digest()))
            found.append(sums)
        return found

    def unreadable(self, rows: pa.Table) -> list[tuple[int, Exception]]:
        """Read rows one by one, and return the number of each that cannot be had, with what is wrong with it."""
        found: list[tuple[int, Exception]] = []
        for row in range(len(rows)):
            buffer = memoryview(bytearray(rows["size"][row].as_py()))
            try:
                self.read_into(rows.slice(row, 1), [buffer])
            except UNREADABLE as error:
                found.append((row, error))
        return found

    def _fill(self, rows: pa.Table, buffers: Sequence[memoryview]) -> None:
        """Read loose files of a local disk straight into the buffers, and all else through the cache."""
        files: dict[int, tuple[ReadFiles, list[tuple[str, Version, memoryview]]]] = {}
        others: list[int] = []
        columns = (rows[name].to_pylist() for name in ("store", "key", "version", "size", "object_size"))
        for number, (store, key, version, size, object_size) in enumerate(zip(*columns, strict=True)):
            reader = self._reader(store, key) if store and size == object_size else None
            if reader is None:
                others.append(number)
            else:
                files.setdefault(id(reader), (reader, []))[1].append((key, version, buffers[number]))
        for reader, wanted in files.values():
            reader.read_files(wanted)
        if others:
            places = locations(rows.take(others), self._workplace.root)
            for number, view in zip(others, self._workplace.client.read_many(places), strict=True):
                buffers[number][:] = view

    def _reader(self, store: str, key: str) -> ReadFiles | None:
        """Return what reads the files of a key's directory whole, if it is a local disk: one look a directory."""
        directory = store, key.rpartition("/")[0]
        if directory not in self._readers:
            ref = ObjectRef(StoreId(store), key, Version(""), 0)
            found = self._workplace.client.origins.store_for(ref)
            self._readers[directory] = found if isinstance(found, ReadFiles) else None
        return self._readers[directory]

    def _checked(self, buffer: memoryview, oid: bytes | None, crc32c: int | None) -> tuple[bytes, int] | None:
        """Sum up bytes; None if they are not those that were committed."""
        whole: Any = np.frombuffer(buffer, np.uint8)  # the checksum's extension takes no memoryview
        found = google_crc32c.value(whole)
        if crc32c is not None and found != crc32c:
            return None
        if oid is not None and crc32c is not None and not self._rehash:
            return oid, found
        digest = blake3(buffer).digest()
        return (digest, found) if oid in (None, digest) else None


def _not_as_committed(rows: pa.Table, row: int, found: bytes) -> CorruptSampleError:
    path, oid = rows["path"][row].as_py(), rows["oid"][row].as_py()
    expected = "another checksum" if oid is None else oid.hex()[:16]
    return CorruptSampleError(
        f"{path}: its bytes hash to {found.hex()[:16]}, the commit says {expected}; the stored or cached"
        " copy is damaged, and nothing was committed",
        key=path,
    )
