"""Lists of objects that nothing needs: in a temporary file here, as Parquet in the store."""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa

from sources import SourceNotFoundError
from sources.lazy import LazyModule
from versioning.columns import single, where
from versioning.errors import CorruptRepositoryError
from versioning.maintenance.contents import fixed_ids
from versioning.maintenance.ids import ID_BYTES, IdSet
from versioning.maintenance.keys import ObjectKind
from versioning.maintenance.listing import Listed
from versioning.packs import spooling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from sources import RepositoryStore

CONDEMNED_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("kind", pa.uint8(), nullable=False),
        pa.field("id", pa.binary(ID_BYTES), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
    )
)
"""Kind (a number of `ObjectKind`), id, bytes, and when it was last written by the store's clock, ns since 1970."""

_GROUP_ROWS = 1 << 16
_PART_BYTES = 16 << 20
_parquet: Any = LazyModule("pyarrow.parquet")


class CondemnedList:
    """A list in a temporary file, written once, then read as often as needed. Use as a context manager."""

    def __init__(self) -> None:
        with spooling(None):
            self._file: BinaryIO = tempfile.TemporaryFile(prefix="forebay-condemned-")  # noqa: SIM115 - held until close
        self._writer: Any = None
        self.objects = 0
        self.bytes = 0

    def __enter__(self) -> CondemnedList:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Throw it away."""
        if self._writer is not None:  # broken off while it was written
            self._writer.close()
            self._writer = None
        self._file.close()

    def append(self, found: Listed) -> None:
        """Write some objects at the end."""
        if self._writer is None:
            self._writer = _parquet.ParquetWriter(self._file, CONDEMNED_SCHEMA, compression="zstd")
        count, data = len(found), pa.py_buffer(found.ids.tobytes())
        columns: list[pa.Array[Any]] = [
            pa.array(np.full(count, found.kind, np.uint8)),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), count, [None, data]),
            pa.array(found.sizes),
            pa.array(found.times),
        ]
        table = pa.Table.from_arrays(columns, schema=CONDEMNED_SCHEMA)
        with spooling(None):
            self._writer.write_table(table, row_group_size=_GROUP_ROWS)
        self.objects += len(found)
        self.bytes += int(found.sizes.sum())

    def seal(self) -> None:
        """End the writing."""
        if self._writer is not None:
            with spooling(None):
                self._writer.close()
                self._file.flush()
            self._writer = None

    def upload(self, store: RepositoryStore, key: str) -> None:
        """Write a sealed list that is not empty to the store."""
        size = self._file.seek(0, 2)
        store.put(key, mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ))

    @classmethod
    def download(cls, store: RepositoryStore, key: str) -> CondemnedList:
        """Fetch a list, part by part.

        Raises:
            SourceNotFoundError: If it is not there any more.
        """
        size = store.stat(key).size
        found = cls()
        try:
            for start in range(0, size, _PART_BYTES):
                part = store.read(key, start=start, length=min(_PART_BYTES, size - start), version=None)
                with spooling(None):
                    found._file.write(part)
            found._check(key)
        except BaseException:
            found.close()
            raise
        return found

    def batches(self) -> Iterator[Listed]:
        """Yield the objects in the order they were written, those of one kind at a time."""
        if not self._file.seek(0, 2):
            return
        self._file.seek(0)
        for batch in _parquet.ParquetFile(self._file).iter_batches(batch_size=_GROUP_ROWS):
            table = pa.Table.from_batches([batch])
            kinds = np.asarray(single(table.column("kind")).to_numpy())
            for kind in ObjectKind:
                if (kinds == kind).any():
                    yield _listed(kind, where(table, kinds == kind))

    def sets(self) -> Mapping[ObjectKind, IdSet]:
        """Return the ids by kind: 16 bytes of memory for each."""
        found = {kind: IdSet() for kind in ObjectKind}
        for batch in self.batches():
            found[batch.kind].add(batch.ids)
        return found

    def _check(self, key: str) -> None:
        try:
            self._file.seek(0)
            opened = _parquet.ParquetFile(self._file)
            if not opened.schema_arrow.equals(CONDEMNED_SCHEMA):
                raise CorruptRepositoryError(key, reason="it is no list of condemned objects")
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, SourceNotFoundError):
                raise
            raise CorruptRepositoryError(key, reason=f"it is no list of condemned objects ({error})") from error


def _listed(kind: ObjectKind, table: pa.Table) -> Listed:
    sizes, times = (np.asarray(single(table.column(name)).to_numpy()) for name in ("size", "time"))
    return Listed(kind, fixed_ids(single(table.column("id"))).copy(), sizes, times)
