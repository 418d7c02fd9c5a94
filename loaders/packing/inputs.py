"""Reading the files of a shard into its memory, and summing them up while they are in the processor's cache.

What is hashed: every byte is compared once, when it is read. Where the commit knows a file's CRC-32C and BLAKE3, its
CRC-32C alone is computed (`rehash`: both): it finds what a disk or a network does to bytes, and the stored BLAKE3 is
carried over. A file that nobody has read before gets both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np
from blake3 import blake3

from cache_runtime import ChecksumError
from loaders.errors import CorruptSampleError
from loaders.sharding import cuts
from sources import ObjectRef, SourceError, StoreId, Version
from sources.stores import ReadFiles
from versioning import locations

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from loaders.packing.workplaces import OpenedWorkplace

CHUNK_BYTES = 16 << 20
"""Read at once: enough for the client to join neighbours and to read in parallel."""

UNREADABLE = (SourceError, ChecksumError, CorruptSampleError)
"""What is wrong with an input rather than with the pack."""


class Sums(NamedTuple):
    """BLAKE3-256 and CRC-32C of some files, in their order."""

    oids: list[bytes]
    crcs: list[int]


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

    def read_into(self, rows: pa.Table, memory: memoryview, offsets: list[int], found: Sums) -> None:
        """Put the bytes of each row at its offset, and add their sums to what was found before.

        Args:
            rows: Table of `tasks.TASK_SCHEMA`.
            memory: Takes the bytes.
            offsets: Where those of each row belong in it, ascending.
            found: Grows by the sums of the rows.

        Raises:
            CorruptSampleError: If bytes are not those that were committed.
            SourceError: If bytes cannot be had, or changed at their source.
        """
        wanted = _Wanted(rows, memory, offsets)
        reader = self._one_reader(wanted)
        for first, last in wanted.chunks(CHUNK_BYTES):
            if reader is None:
                self._read_any(wanted, first, last)
            else:
                buffers = wanted.buffers(first, last)
                reader.read_files(zip(wanted.keys[first:last], wanted.versions[first:last], buffers, strict=True))
            self._sum_up(wanted, first, last, found)

    def unreadable(self, rows: pa.Table) -> list[tuple[int, Exception]]:
        """Read rows one by one, and return the number of each that cannot be had, with what is wrong with it."""
        found: list[tuple[int, Exception]] = []
        for row in range(len(rows)):
            buffer = memoryview(bytearray(rows["size"][row].as_py()))
            try:
                self.read_into(rows.slice(row, 1), buffer, [0], Sums([], []))
            except UNREADABLE as error:
                found.append((row, error))
        return found

    def _one_reader(self, wanted: _Wanted) -> ReadFiles | None:
        """Return what reads all of them straight from a local disk, if they are loose files of one."""
        if not wanted.are_whole or "" in wanted.stores:
            return None
        directories = {(store, key.rpartition("/")[0]) for store, key in zip(wanted.stores, wanted.keys, strict=True)}
        readers = [self._reader(*directory) for directory in directories]
        return readers[0] if readers and all(reader is readers[0] for reader in readers) else None

    def _read_any(self, wanted: _Wanted, first: int, last: int) -> None:
        """Read loose files of local disks straight into place, and all else through the cache."""
        files: dict[int, tuple[ReadFiles, list[tuple[str, Version, memoryview]]]] = {}
        others: list[int] = []
        buffers = wanted.buffers(first, last)
        for row in range(first, last):
            store, key = wanted.stores[row], wanted.keys[row]
            reader = self._reader(store, key.rpartition("/")[0]) if store and wanted.is_whole[row] else None
            if reader is None:
                others.append(row)
            else:
                files.setdefault(id(reader), (reader, []))[1].append((key, wanted.versions[row], buffers[row - first]))
        for reader, some in files.values():
            reader.read_files(some)
        if others:
            places = locations(wanted.rows.take(others), self._workplace.root)
            for row, view in zip(others, self._workplace.client.read_many(places), strict=True):
                buffers[row - first][:] = view

    def _reader(self, store: str, directory: str) -> ReadFiles | None:
        """Return what reads the files of a directory whole, if it is of a local disk: one look a directory."""
        place = store, directory
        if place not in self._readers:
            ref = ObjectRef(StoreId(store), f"{directory}/" if directory else "", Version(""), 0)
            origin = self._workplace.client.origins.store_for(ref)
            self._readers[place] = origin if isinstance(origin, ReadFiles) else None
        return self._readers[place]

    def _sum_up(self, wanted: _Wanted, first: int, last: int, found: Sums) -> None:
        """Compare files with the commit, and note their sums.

        Raises:
            CorruptSampleError: If one is not what was committed.
        """
        ranges = list(zip(wanted.offsets[first:last], wanted.sizes[first:last], strict=True))
        known: list[Any] = wanted.known[first:last] if not self._rehash else [None] * len(ranges)
        value, memory, whole = google_crc32c.value, wanted.memory, wanted.array
        crcs = [value(whole[offset : offset + size]) for offset, size in ranges]
        oids = known
        if None in known:
            oids = [
                blake3(memory[offset : offset + size]).digest() if oid is None else oid
                for oid, (offset, size) in zip(known, ranges, strict=True)
            ]
        if crcs != wanted.crcs[first:last] or oids != wanted.oids[first:last]:  # a row at a time only where it may say
            for row, crc, oid in zip(range(first, last), crcs, oids, strict=True):
                expected, digest = wanted.crcs[row], wanted.oids[row]
                if (expected is not None and crc != expected) or (digest is not None and oid != digest):
                    raise wanted.not_as_committed(row)
        found.oids.extend(oids)
        found.crcs.extend(crcs)


class _Wanted:
    """The rows of a task as lists: a column at a time costs a tenth of a row at a time."""

    def __init__(self, rows: pa.Table, memory: memoryview, offsets: list[int]) -> None:
        self.rows = rows
        self.memory = memory
        self.array: Any = np.frombuffer(memory, np.uint8)  # the checksum's extension takes no memoryview
        self.offsets = offsets
        sizes: npt.NDArray[np.int64] = rows["size"].to_numpy()
        self._ends = np.cumsum(sizes)
        self.sizes: list[int] = sizes.tolist()
        columns: list[list[Any]] = [rows[name].to_pylist() for name in ("store", "key", "version", "oid", "crc32c")]
        self.stores, self.keys, self.versions, self.oids, self.crcs = columns
        self.is_whole: list[bool] = (sizes == rows["object_size"].to_numpy()).tolist()
        self.are_whole = all(self.is_whole)
        # A hash without a checksum beside it cannot be carried over: nothing says that the bytes are still its own.
        self.known = [None if crc is None else oid for oid, crc in zip(self.oids, self.crcs, strict=True)]

    def chunks(self, limit: int) -> list[tuple[int, int]]:
        """Cut the rows into ranges of about so many bytes."""
        return list(cuts(self._ends, 0, len(self.sizes), limit))

    def buffers(self, first: int, last: int) -> list[memoryview]:
        """Return the memory of some rows."""
        memory = self.memory
        ranges = zip(self.offsets[first:last], self.sizes[first:last], strict=True)
        return [memory[offset : offset + size] for offset, size in ranges]

    def not_as_committed(self, row: int) -> CorruptSampleError:
        """Describe a file that is not what was committed."""
        path, oid = self.rows["path"][row].as_py(), self.oids[row]
        found = blake3(self.buffers(row, row + 1)[0]).hexdigest()
        expected = "another checksum" if oid is None else oid.hex()[:16]
        return CorruptSampleError(
            f"{path}: its bytes hash to {found[:16]}, the commit says {expected}; the stored or cached"
            " copy is damaged, and nothing was committed",
            key=path,
        )
