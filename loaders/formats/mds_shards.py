"""MDS shards as they are written, for mosaicml-streaming; docs/reference/shard-format.md has their bytes."""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from loaders.errors import SampleError
from loaders.formats.mds_values import encoder, fixed_size, infer_encoding
from loaders.formats.outputs import disk_errors, place_of, write_all
from loaders.formats.shards import Finder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loaders.formats.outputs import Output

INDEX_NAME = "index.json"
_MOST_BYTES = (1 << 32) - 1  # offsets are u32
_PARTS = 1000


class MdsShards:
    """Writes samples into MDS shards; one shard is in memory, because its table of offsets comes first.

    Args:
        output: Where they go.
        columns: Name -> encoding; by default those of the first sample. `__key__` is a column of its own.
        shard_size: Most bytes of a shard, unless one sample alone is larger.
        submit: Runs what makes a shard durable while the next one is written.
    """

    suffix = ".mds"

    def __init__(
        self,
        output: Output,
        *,
        columns: Mapping[str, str] | None,
        shard_size: int,
        submit: Callable[[Callable[[], None]], None],
    ) -> None:
        self._output = output
        self._limit = min(shard_size, _MOST_BYTES)
        self._submit = submit
        self._done: list[dict[str, Any]] = []
        self._columns: list[tuple[str, str, Callable[[Any], bytes], int | None]] = []
        if columns is not None:
            self._set_columns({"__key__": "str", **columns})
        self._begin()

    def _begin(self) -> None:
        self._lengths: list[int] = []
        self._parts: list[bytes] = []  # the caller's own bytes: joined, each would be copied twice
        self._size = 0

    def _set_columns(self, columns: Mapping[str, str]) -> None:
        self._columns = [
            (name, columns[name], encoder(columns[name]), fixed_size(columns[name])) for name in sorted(columns)
        ]
        config = {
            "column_encodings": [encoding for _, encoding, _, _ in self._columns],
            "column_names": [name for name, _, _, _ in self._columns],
            "column_sizes": [size for _, _, _, size in self._columns],
            "compression": None,
            "format": "mds",
            "hashes": [],
            "size_limit": self._limit,
            "version": 2,
        }
        self._config = config
        self._config_bytes = json.dumps(config, sort_keys=True).encode()

    def add(self, key: str, sample: Mapping[str, object], name: Callable[[], str]) -> None:
        """Append a sample.

        Raises:
            SampleError: If a column is missing or cannot hold its value; nothing of the sample was written.
        """
        if not self._columns:
            self._set_columns({field: infer_encoding(value) for field, value in sample.items()})
        parts = self._row(key, sample)
        length = sum(map(len, parts))
        if self._lengths and self._size + length + 4 > self._limit:
            self.finish(name)
        if not self._lengths:
            self._size = 8 + len(self._config_bytes)
        if self._size + length + 4 > _MOST_BYTES:
            raise SampleError(f"sample {key!r} is larger than an MDS shard can be: 4 GiB")
        self._lengths.append(length)
        self._parts += parts
        self._size += length + 4

    def _row(self, key: str, sample: Mapping[str, object]) -> list[bytes]:
        if len(sample) != len(self._columns):
            raise SampleError(
                f"sample {key!r} has {sorted(sample)}, the columns are {[row[0] for row in self._columns]}"
            )
        values: list[bytes] = []
        sizes: list[int] = []
        for name, encoding, encode, size in self._columns:
            try:
                value = sample[name]
                data = value if type(value) is bytes else encode(value)
            except KeyError as error:
                raise SampleError(f"sample {key!r} has no {name!r}") from error
            except (TypeError, ValueError, AttributeError, struct.error, OverflowError) as error:
                raise SampleError(f"sample {key!r}: column {name!r} of encoding {encoding!r}: {error}") from error
            if size is None:
                sizes.append(len(data))
            elif len(data) != size:
                raise SampleError(f"sample {key!r}: column {name!r} has {len(data)} bytes, {encoding!r} has {size}")
            values.append(data)
        return [struct.pack(f"<{len(sizes)}I", *sizes), *values]

    def finish(self, name: Callable[[], str]) -> None:
        """End the shard, if one was begun: it is given its name soon."""
        if not self._lengths:
            return
        lengths, total = self._lengths, self._size
        ends = np.cumsum([0, *lengths], dtype=np.int64) + 4 + 4 * (len(lengths) + 1) + len(self._config_bytes)
        assert int(ends[-1]) == total
        head = struct.pack("<I", len(lengths)) + ends.astype("<u4").tobytes() + self._config_bytes
        parts = [head, *self._parts]
        shard, output = name(), self._output
        self._done.append(self._entry(shard, len(lengths), total))
        self._begin()

        def publish() -> None:
            file = output.create()
            if output.reserves:
                with suppress(OSError):  # a disk that is nearly full: the write says whether there is room
                    os.posix_fallocate(file.fileno(), 0, total)
            with disk_errors(output.place):
                for start in range(0, len(parts), _PARTS):
                    write_all(file.fileno(), parts[start : start + _PARTS])
            output.publish(file, shard)

        self._submit(publish)

    def _entry(self, name: str, samples: int, size: int) -> dict[str, Any]:
        raw = {"basename": name, "bytes": size, "hashes": {}}
        return {**self._config, "raw_data": raw, "samples": samples, "zip_data": None}

    def abandon(self) -> None:
        """Throw away the shard that is not finished."""
        self._begin()

    def end(self) -> None:
        """Write `index.json`, without which nobody finds the shards."""
        document = {"shards": self._done, "version": 2}
        self._output.put(INDEX_NAME, json.dumps(document, sort_keys=True).encode())
        self._output.sync()

    def recall(self, name: str) -> int:
        """Take a shard that was written before into the index; return how many samples it has.

        Raises:
            ShardFormatError: If it is damaged, or has other columns than those that were given.
        """
        from loaders.formats.mds import read_config
        from loaders.formats.reading import open_shards

        finder = Finder(self._output.options)
        (shard,) = finder.find(place_of(self._output, name))
        count, config = read_config(shard, open_shards([shard], finder, None))
        columns = dict(zip(config["column_names"], config["column_encodings"], strict=True))
        found = [(column, encoding) for column, encoding, _, _ in self._columns]
        if found and sorted(columns.items()) != found:
            raise SampleError(f"{shard.uri} has the columns {columns}, the writer {dict(found)}; write elsewhere")
        self._set_columns(columns)
        self._config["size_limit"] = config.get("size_limit")
        self._done.append(self._entry(name, count, shard.size))
        self._config["size_limit"] = self._limit
        return count
