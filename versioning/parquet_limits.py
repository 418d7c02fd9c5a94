"""Reading Parquet that somebody else wrote, with a limit on memory: a few bytes can stand for many gigabytes.

What a file says about itself is checked before anything is decoded, page by page, since that is where buffers get their
sizes. Pages can still grow when they are decoded: a dictionary's value, or a common prefix, is written once and may be
repeated in each row. So rows are decoded in runs that are short enough even if each had the longest value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

_parquet: Any = pyarrow.parquet
MAX_BYTES = 512 << 20
"""Of a file, of its pages and of its decoded columns: 32768 rows of the longest paths and keys are half of it."""
MAX_ROWS = 1 << 20
_MAX_COLUMNS = 64
_RUN_BYTES = 512 << 20
_MAX_DEPTH = 8
_BOOLEANS, _INTEGERS, _BYTE, _DOUBLE, _BINARY, _STRUCT = (1, 2), (4, 5, 6), 3, 7, 8, 12
_UNPACKED_BYTES, _PACKED_BYTES = 2, 3  # fields of a page's header


def read_parquet(data: bytes) -> pa.Table:
    """Decode a Parquet file.

    Raises:
        ValueError: If it would need more than the limits, or its pages are not where it says.
        pyarrow.ArrowException, OSError: If it is damaged.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes are more than {MAX_BYTES:,}")
    file = _parquet.ParquetFile(pa.BufferReader(data))
    metadata = file.metadata
    if metadata.num_rows > MAX_ROWS or metadata.num_columns > _MAX_COLUMNS or metadata.num_row_groups > MAX_ROWS:
        raise ValueError(f"{metadata.num_rows:,} rows in {metadata.num_columns:,} columns are too many")
    largest = _largest_page(data, metadata)
    batches, held = [], 0
    for batch in file.iter_batches(batch_size=max(1, min(MAX_ROWS, _RUN_BYTES // largest)), use_threads=False):
        held += batch.nbytes
        if held > MAX_BYTES:
            raise ValueError(f"its columns have more than {MAX_BYTES:,} bytes")
        batches.append(batch)
    return pa.Table.from_batches(batches, file.schema_arrow)


def _largest_page(data: bytes, metadata: Any) -> int:
    """Return the length of the largest page of a column whose values have no fixed length, at least 1."""
    largest, total = 1, 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            starts = [column.data_page_offset]
            if column.dictionary_page_offset is not None:
                starts.append(column.dictionary_page_offset)
            for size in _page_sizes(data, min(starts), column.total_compressed_size):
                total += size
                if total > MAX_BYTES:
                    raise ValueError(f"its pages have more than {MAX_BYTES:,} bytes")
                if column.physical_type == "BYTE_ARRAY":
                    largest = max(largest, size)
    return largest


def _page_sizes(data: bytes, start: int, length: int) -> Iterator[int]:
    """Yield the lengths of a column's pages when they are unpacked."""
    if start < 0 or length < 0 or start + length > len(data):
        raise ValueError("a column lies outside of the file")
    position = start
    while position < start + length:
        fields, position = _Compact(data, position).struct()
        packed, unpacked = fields.get(_PACKED_BYTES, -1), fields.get(_UNPACKED_BYTES, -1)
        if packed < 0 or unpacked < 0:
            raise ValueError("a page without a size")
        yield unpacked
        position += packed


class _Compact:
    """Reads the integers of a struct in Thrift's compact protocol, and skips the rest of it."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def struct(self, depth: int = 0) -> tuple[dict[int, int], int]:
        """Return the integer fields by number, and where the struct ends."""
        fields: dict[int, int] = {}
        number = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self._integer()
            value = self._value(kind, depth)
            if value is not None:
                fields[number] = value
        return fields, self._position

    def _value(self, kind: int, depth: int) -> int | None:
        if depth > _MAX_DEPTH:
            raise ValueError("a page's header is nested too deep")
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            self.struct(depth + 1)
        elif kind == _BINARY:
            length = self._varint()  # which moves the position
            self._position += length
        elif kind == _DOUBLE:
            self._position += 8
        elif kind == _BYTE:
            self._position += 1
        elif kind not in _BOOLEANS:  # lists and maps: no page header has any
            raise ValueError("a page's header has a field of an unknown type")
        return None

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number in a page's header is too long")

    def _byte(self) -> int:
        if self._position >= len(self._data):
            raise ValueError("a page's header goes beyond the file")
        self._position += 1
        return self._data[self._position - 1]
