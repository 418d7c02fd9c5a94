"""Shards of rows, as MDS and LitData write them: a table of offsets, then rows of a few values each."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_128

from loaders.errors import ShardFormatError
from loaders.records import Fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loaders.formats.reading import ReadsShards
    from loaders.formats.shard_index import Int64Array
    from loaders.formats.shards import Shard


@dataclass(frozen=True)
class RowFormat:
    """What is in a row.

    Attributes:
        columns: Names, in the order of their values.
        sizes: Bytes of each column's values; None where each row says so, in the u32s that it begins with.
        key: Which column is the samples' key, if one is.
        decoders: For columns whose values are not bytes.
    """

    columns: tuple[str, ...]
    sizes: tuple[int | None, ...]
    key: int | None
    decoders: Mapping[str, Callable[[memoryview], object]]


class RowRecords:
    """The rows of shards that begin with `u32 n | u32 offsets[n + 1]`, little-endian.

    The table of a shard is read when the first of its rows is.

    Args:
        shards: The shards, with their uncompressed sizes.
        counts: Rows of each.
        reader: Reads them, by their numbers.
        form: What a row is.
    """

    def __init__(self, shards: Sequence[Shard], counts: Sequence[int], reader: ReadsShards, form: RowFormat) -> None:
        self.shards = list(shards)
        self.reader = reader
        self.form = form
        kept = [column for at, column in enumerate(form.columns) if at != form.key]
        self.fields = tuple(sorted(kept))
        self.decoders = {name: decoder for name, decoder in form.decoders.items() if name in kept}
        self.shard_starts: Int64Array = np.cumsum([0, *counts], dtype=np.int64)
        self.sample_bytes = None
        self._codes = [-1 if at == form.key else self.fields.index(name) for at, name in enumerate(form.columns)]
        self._head = struct.Struct(f"<{sum(size is None for size in form.sizes)}I")
        self._tables: dict[int, memoryview] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    def __getstate__(self) -> dict[str, object]:
        gone = {"_tables", "_lock", "_head"}
        return {name: value for name, value in self.__dict__.items() if name not in gone}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._head = struct.Struct(f"<{sum(size is None for size in self.form.sizes)}I")
        self._tables, self._lock = {}, threading.Lock()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the columns, and of each shard's name, size and rows: keys would have to be read."""
        hasher = xxh3_128(repr((self.form.columns, self.form.sizes)).encode())
        for shard, start in zip(self.shards, self.shard_starts.tolist(), strict=False):
            hasher.update(f"{shard.name}\0{shard.size}\0{start}\0".encode())
        return hasher.hexdigest()

    def keys_of(self, numbers: Int64Array) -> list[str]:
        """Return the keys of some samples: of the key column, or `SHARD:ROW`."""
        shards, rows = self._places(numbers)
        if self.form.key is None:
            return [f"{self.shards[shard].name}:{row}" for shard, row in zip(shards, rows, strict=True)]
        values = [self._split(row, shard, at) for row, shard, at in self._rows(numbers)]
        return [str(value[self.form.key], "utf-8", "replace") for value in values]

    def fetch(self, numbers: Int64Array) -> Fetched:
        """Return the bytes of some samples; see `Records.fetch`.

        Raises:
            ShardFormatError: If a shard is damaged.
            SourceError, CacheError: If bytes cannot be had.
        """
        data: list[memoryview] = []
        fields: list[int] = []
        places = self._rows(numbers)
        for row, shard, at in places:
            for code, value in zip(self._codes, self._split(row, shard, at), strict=True):
                if code >= 0:
                    data.append(value)
                    fields.append(code)
        width = len(self.fields)

        def place(member: int) -> str:
            _, shard, at = places[member // width]
            return f"{self.shards[shard].uri} at {at}"

        return Fetched([width] * len(places), fields, data, None, place)

    def _places(self, numbers: Int64Array) -> tuple[list[int], list[int]]:
        shards = np.searchsorted(self.shard_starts, numbers, side="right") - 1
        return shards.tolist(), (numbers - self.shard_starts[shards]).tolist()

    def _rows(self, numbers: Int64Array) -> list[tuple[memoryview, int, int]]:
        """Return the bytes of rows, each with its shard and where it begins there."""
        shards, rows = self._places(numbers)
        offsets: list[int] = []
        lengths: list[int] = []
        for shard, row in zip(shards, rows, strict=True):
            table = self._tables.get(shard) or self._table(shard)
            begin, end = table[row], table[row + 1]
            if not begin <= end <= self.shards[shard].size:
                raise self._damaged(shard, begin, f"row {row} ends at {end} of {self.shards[shard].size} bytes")
            offsets.append(begin)
            lengths.append(end - begin)
        return list(zip(self.reader.read(shards, offsets, lengths), shards, offsets, strict=True))

    def _table(self, shard: int) -> memoryview:
        """Read the table of a shard."""
        with self._lock:
            count = int(self.shard_starts[shard + 1] - self.shard_starts[shard])
            length = 4 * (count + 2)
            if length > self.shards[shard].size:
                raise self._damaged(shard, 0, f"{self.shards[shard].size} bytes cannot hold {count} rows")
            (data,) = self.reader.read([shard], [0], [length])
            numbers = np.frombuffer(data, "<u4").astype(np.uint32, copy=False)
            if int(numbers[0]) != count:
                raise self._damaged(shard, 0, f"it has {int(numbers[0])} rows, its index says {count}")
            self._tables[shard] = table = memoryview(numbers[1:].data)
            return table

    def _split(self, row: memoryview, shard: int, at: int) -> list[memoryview]:
        """Cut a row into its values."""
        head = self._head
        sizes = iter(head.unpack_from(row, 0) if len(row) >= head.size else ())
        widths = [next(sizes, -1) if size is None else size for size in self.form.sizes]
        ends = list(accumulate(widths, initial=head.size))
        if ends[-1] != len(row) or -1 in widths:
            raise self._damaged(shard, at, f"a row of {len(row)} bytes has values of {ends[-1]}")
        return [row[begin:end] for begin, end in pairwise(ends)]

    def _damaged(self, shard: int, offset: int, what: str) -> ShardFormatError:
        uri = self.shards[shard].uri
        return ShardFormatError(f"{uri} is damaged at byte {offset}: {what}; fetch it again", uri=uri, offset=offset)
