"""Reading Parquet that somebody else wrote, with a limit on memory: a few bytes can stand for many gigabytes.

What a file says about itself is checked before anything is decoded, page by page, since that is where buffers get their
sizes. Pages can still grow when they are decoded, unless each value is written in full (PLAIN): a dictionary's value,
or a common prefix, may be repeated in each row. So rows are decoded in runs that are short enough even if each had the
longest value of such a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sources.lazy import LazyModule
from versioning.thrift import Compact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_parquet: Any = LazyModule("pyarrow.parquet")
MAX_BYTES = 512 << 20
"""Of a file, of its pages and of its decoded columns: 32768 rows of the longest paths and keys are half of it."""
MAX_ROWS = 1 << 20
_MAX_COLUMNS = 64
_RUN_BYTES = 512 << 20
_MAGIC, _TAIL_BYTES = b"PAR1", 8
# Fields of parquet.thrift: of the file, a row group, a column chunk, its metadata and a page's header.
_ROW_COUNT, _ROW_GROUPS, _COLUMNS, _FILE_PATH, _COLUMN, _ENCRYPTION = 3, 4, 1, 1, 3, (8, 9)
_TYPE, _PACKED_SIZE, _FIRST_PAGE, _DICTIONARY_PAGE, _BYTE_ARRAY = 1, 7, 9, 11, 6
_PAGE_TYPE, _UNPACKED_BYTES, _PACKED_BYTES = 1, 2, 3
_DATA_PAGES = {0: (5, 2), 3: (8, 4)}  # by type, the field of the description and, in that, of the encoding
_PLAIN = 0


def read_parquet(data: bytes) -> pa.Table:
    """Decode a Parquet file.

    Raises:
        ValueError: If it would need more than the limits, or its pages are not where it says.
        pyarrow.ArrowException, OSError: If it is damaged.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes are more than {MAX_BYTES:,}")
    largest = _largest_page(data, _description(data))
    file = _parquet.ParquetFile(pa.BufferReader(data))
    batches, held = [], 0
    for batch in file.iter_batches(batch_size=max(1, min(MAX_ROWS, _RUN_BYTES // largest)), use_threads=False):
        held += batch.nbytes
        if held > MAX_BYTES:
            raise ValueError(f"its columns have more than {MAX_BYTES:,} bytes")
        batches.append(batch)
    return pa.Table.from_batches(batches, file.schema_arrow)


def _description(data: bytes) -> Mapping[int, Any]:
    """Return the fields of the file's footer, after checking its counts."""
    if len(data) < _TAIL_BYTES or data[-4:] != _MAGIC:
        raise ValueError("it is no Parquet")
    start = len(data) - _TAIL_BYTES - int.from_bytes(data[-_TAIL_BYTES:-4], "little")
    if start < 0:
        raise ValueError("its footer is longer than it")
    described = Compact(data, start).struct()
    rows, groups = described.get(_ROW_COUNT), described.get(_ROW_GROUPS)
    if not isinstance(rows, int) or not isinstance(groups, list) or not 0 <= rows <= MAX_ROWS:
        raise ValueError(f"{rows} rows are too many, or none that can be counted")
    return described


def _largest_page(data: bytes, described: Mapping[int, Any]) -> int:
    """Return the length of the largest page that may grow, of columns whose values have no fixed length; at least 1."""
    largest, total = 1, 0
    for group in described[_ROW_GROUPS]:
        for column in _columns(group):
            for size, grows in _pages(data, _first_page(column), column[_PACKED_SIZE]):
                total += size
                if total > MAX_BYTES:
                    raise ValueError(f"its pages have more than {MAX_BYTES:,} bytes")
                if grows and column[_TYPE] == _BYTE_ARRAY:
                    largest = max(largest, size)
    return largest


def _columns(group: Any) -> list[Mapping[int, Any]]:
    """Return the metadata of a row group's columns.

    Raises:
        ValueError: If a column is encrypted, lies in another file, or has no place or type: pyarrow would end the
            process on some of these.
    """
    chunks = group.get(_COLUMNS) if isinstance(group, dict) else None
    if not isinstance(chunks, list) or len(chunks) > _MAX_COLUMNS:
        raise ValueError(f"it has no columns, or more than {_MAX_COLUMNS}")
    found: list[Mapping[int, Any]] = []
    for chunk in chunks:
        column = chunk.get(_COLUMN) if isinstance(chunk, dict) else None
        if not isinstance(column, dict) or any(field in chunk for field in (_FILE_PATH, *_ENCRYPTION)):
            raise ValueError("a column is encrypted or elsewhere")
        if not all(isinstance(column.get(field), int) for field in (_TYPE, _PACKED_SIZE, _FIRST_PAGE)):
            raise ValueError("a column has no place or type")
        found.append(column)
    return found


def _first_page(column: Mapping[int, Any]) -> int:
    first: int = column[_FIRST_PAGE]
    dictionary = column.get(_DICTIONARY_PAGE)
    return min(first, dictionary) if isinstance(dictionary, int) and dictionary > 0 else first


def _pages(data: bytes, start: int, length: int) -> Iterator[tuple[int, bool]]:
    """Yield the lengths of a column's pages when they are unpacked, and whether decoding may repeat their values."""
    if start < 0 or length < 0 or start + length > len(data):
        raise ValueError("a column lies outside of the file")
    position = start
    while position < start + length:
        header = Compact(data, position)
        fields = header.struct()
        packed, unpacked = fields.get(_PACKED_BYTES), fields.get(_UNPACKED_BYTES)
        if not (isinstance(packed, int) and isinstance(unpacked, int) and packed >= 0 and unpacked >= 0):
            raise ValueError("a page without a size")
        yield unpacked, not _is_plain(fields)
        position = header.position + packed


def _is_plain(header: Mapping[int, Any]) -> bool:
    """Say whether a page is of values, each written in full; a dictionary is not, since rows repeat it."""
    field, encoding = _DATA_PAGES.get(header.get(_PAGE_TYPE, -1), (-1, -1))
    described = header.get(field)
    return isinstance(described, dict) and described.get(encoding) == _PLAIN
