"""Reading Parquet: a row is a sample, a column a field."""

from __future__ import annotations

import io
import json
import threading
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128

from loaders.decoding import decode_image
from loaders.errors import NoSamplesError, ShardFormatError
from loaders.formats.reading import open_shards
from loaders.records import Fetched
from sources import SourceError
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache_runtime import Client
    from loaders.formats.reading import ReadsShards
    from loaders.formats.shard_index import Int64Array
    from loaders.formats.shards import Finder, Shard

_KEPT_BYTES = 256 << 20
"""Of row groups that were read: samples at random need theirs again soon."""
_OPENED_AT_A_TIME = 16
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG")


def open_parquet(shards: Sequence[Shard], finder: Finder, client: Client | None) -> ParquetRecords:
    """Open files of one schema.

    Args:
        shards: The files.
        finder: Found them.
        client: Reads them, if they are not local.

    Raises:
        ShardFormatError: If one is no Parquet, or their columns differ.
        NoSamplesError: If there are no rows.
    """
    reader = open_shards(shards, finder, client)
    crew = Crew(_OPENED_AT_A_TIME, name="forebay-parquet")
    try:
        files = crew.map(lambda number: _metadata(reader, number, shards[number]), range(len(shards)))
    finally:
        crew.close()
    schema = files[0].schema.to_arrow_schema()
    for file, shard in zip(files, shards, strict=True):
        if not file.schema.to_arrow_schema().equals(schema):
            raise ShardFormatError(
                f"{shard.uri} has other columns than {shards[0].uri}; open them apart", uri=shard.uri
            )
    groups = [
        _Group(number, group, file.row_group(group).num_rows)
        for number, file in enumerate(files)
        for group in range(file.num_row_groups)
    ]
    if not any(group.rows for group in groups):
        raise NoSamplesError(f"{shards[0].uri}: no rows")
    return ParquetRecords(shards, reader, schema, groups)


class _Group(NamedTuple):
    shard: int
    number: int
    rows: int


class ParquetRecords:
    """The rows of Parquet files. A null is a field that the sample has not.

    Binary and string columns are given as they are stored, lists of numbers and numbers as their bytes, anything else
    as JSON; `decoders` makes values of them.
    """

    def __init__(
        self, shards: Sequence[Shard], reader: ReadsShards, schema: pa.Schema, groups: Sequence[_Group]
    ) -> None:
        self.shards = list(shards)
        self.reader = reader
        self.groups = list(groups)
        self.names = [name for name in schema.names if name != "__key__"]
        self.fields = tuple(sorted(self.names))
        self.has_keys = "__key__" in schema.names
        self.schema = schema
        self.sample_bytes = None
        self.group_starts: Int64Array = np.cumsum([0, *[group.rows for group in groups]], dtype=np.int64)
        of_shard = [sum(group.rows for group in groups if group.shard == number) for number in range(len(shards))]
        self.shard_starts: Int64Array = np.cumsum([0, *of_shard], dtype=np.int64)
        self._kept: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._kept, self._lock = OrderedDict(), threading.Lock()

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    @cached_property
    def decoders(self) -> dict[str, Callable[[memoryview], Any]]:
        """What makes values of the bytes of columns."""
        found = {name: _decoder(self.schema.field(name).type) for name in self.names}
        return {name: decode for name, decode in found.items() if decode is not None}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the schema, and of each file's name, size and row groups."""
        hasher = xxh3_128(self.schema.remove_metadata().to_string().encode())
        for group in self.groups:
            shard = self.shards[group.shard]
            hasher.update(f"{shard.name}\0{shard.size}\0{group.number}\0{group.rows}\0".encode())
        return hasher.hexdigest()

    def keys_of(self, numbers: Int64Array) -> list[str]:
        """Return the keys of some samples: of the column `__key__`, or `FILE:ROW`."""
        if not self.has_keys:
            shards = np.searchsorted(self.shard_starts, numbers, side="right") - 1
            rows = numbers - self.shard_starts[shards]
            return [f"{self.shards[s].name}:{r}" for s, r in zip(shards.tolist(), rows.tolist(), strict=True)]
        return [str(self._group(group)["__key__"][row].as_py()) for group, row in self._places(numbers)]

    def fetch(self, numbers: Int64Array) -> Fetched:
        """Return the bytes of some samples; see `Records.fetch`.

        Raises:
            ShardFormatError: If a file is damaged.
            SourceError, CacheError: If bytes cannot be had.
        """
        places = self._places(numbers)
        counts: list[int] = []
        fields: list[int] = []
        data: list[memoryview] = []
        names: list[str] = []
        for group, row in places:
            columns = self._group(group)
            before = len(data)
            for code, name in enumerate(self.fields):
                value = columns[name][row]
                if value.is_valid:
                    fields.append(code)
                    data.append(_bytes_of(value))
            counts.append(len(data) - before)
            names += [f"{self.shards[self.groups[group].shard].uri} row group {self.groups[group].number}"] * counts[-1]
        return Fetched(counts, fields, data, None, names.__getitem__)

    def _places(self, numbers: Int64Array) -> list[tuple[int, int]]:
        groups = np.searchsorted(self.group_starts, numbers, side="right") - 1
        return list(zip(groups.tolist(), (numbers - self.group_starts[groups]).tolist(), strict=True))

    def _group(self, number: int) -> dict[str, Any]:
        """Return the columns of a row group, each as one array."""
        with self._lock:
            kept = self._kept.get(number)
            if kept is None:
                kept = self._kept[number] = self._read(number)
            self._kept.move_to_end(number)
            while len(self._kept) > 1 and sum(map(_size, self._kept.values())) > _KEPT_BYTES:
                self._kept.popitem(last=False)
            return kept

    def _read(self, number: int) -> dict[str, Any]:
        group = self.groups[number]
        shard = self.shards[group.shard]
        try:
            file = pq.ParquetFile(pa.PythonFile(_ShardFile(self.reader, group.shard, shard.size), mode="r"))
            table = file.read_row_group(group.number)
        except SourceError:  # some of them are an OSError, too
            raise
        except (pa.ArrowException, OSError) as error:
            raise ShardFormatError(f"{shard.uri}, row group {group.number}: {error}", uri=shard.uri) from error
        return {name: _one(table[name]) for name in table.column_names}


def _one(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _size(columns: dict[str, Any]) -> int:
    return sum(column.nbytes for column in columns.values())


def _metadata(reader: ReadsShards, number: int, shard: Shard) -> Any:
    try:
        return pq.read_metadata(pa.PythonFile(_ShardFile(reader, number, shard.size), mode="r"))
    except SourceError:  # some of them are an OSError, too
        raise
    except (pa.ArrowException, OSError) as error:
        raise ShardFormatError(f"{shard.uri} is no Parquet file: {error}", uri=shard.uri) from error


class _ShardFile(io.RawIOBase):
    """A shard as a file for Arrow."""

    def __init__(self, reader: ReadsShards, shard: int, size: int) -> None:
        super().__init__()
        self._reader = reader
        self._shard = shard
        self._size = size
        self._at = 0

    def read(self, length: int | None = -1, /) -> bytes:
        start = self._at
        stop = self._size if length is None or length < 0 else min(self._size, start + length)
        if start >= stop:
            return b""
        (data,) = self._reader.read([self._shard], [start], [stop - start])
        self._at = stop
        return bytes(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _is_bytes(kind: Any) -> bool:
    types = pa.types
    is_binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(is_binary or types.is_string(kind) or types.is_large_string(kind))


def _is_media(kind: Any) -> bool:
    """Say whether a column is as HF datasets store images and sounds: a struct of bytes and path."""
    return bool(pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"})


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_vector(kind: Any) -> bool:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(is_list and _is_number(kind.value_type))


def _bytes_of(value: Any) -> memoryview:
    kind = value.type
    if _is_bytes(kind):
        return memoryview(value.as_buffer())
    if _is_media(kind):
        inner = value["bytes"]
        return memoryview(inner.as_buffer() if inner.is_valid else b"")
    if _is_number(kind):
        return memoryview(np.asarray(value.as_py(), kind.to_pandas_dtype()).tobytes())
    if _is_vector(kind) and not value.values.null_count:
        return memoryview(np.ascontiguousarray(value.values.to_numpy(zero_copy_only=False)).tobytes())
    return memoryview(json.dumps(value.as_py(), default=str).encode())


def _decoder(kind: Any) -> Callable[[memoryview], Any] | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text
    if _is_bytes(kind):
        return None
    if _is_media(kind):
        return _media
    if _is_number(kind):
        return _Number(kind.to_pandas_dtype())
    return _Vector(kind.value_type.to_pandas_dtype()) if _is_vector(kind) else _json


def _text(data: memoryview) -> str:
    return str(data, "utf-8")


def _json(data: memoryview) -> Any:
    return json.loads(bytes(data))


def _media(data: memoryview) -> Any:
    return decode_image(data) if bytes(data[:4]).startswith(_IMAGES) else bytes(data)


class _Number:
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def __call__(self, data: memoryview) -> Any:
        return np.frombuffer(data, self.dtype)[0].item()


class _Vector:
    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def __call__(self, data: memoryview) -> Any:
        return np.frombuffer(data, self.dtype)
