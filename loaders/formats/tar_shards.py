"""Tar shards as they are written: members, the index as the last one, and the same beside the tar."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import google_crc32c

from loaders.errors import SampleError
from loaders.formats.index_files import INDEX_SUFFIX, index_of
from loaders.formats.indexing import INDEX_MEMBER, split_name
from loaders.formats.outputs import disk_errors, place_of, write_all
from loaders.formats.reading import open_shards
from loaders.formats.shard_index import IndexBuilder, as_member
from loaders.formats.shards import Finder
from loaders.formats.tar_headers import TarHeaders
from loaders.formats.values import encode_field
from versioning.tarfiles import END

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import IO

    from loaders.formats.outputs import Output

_GATHERED_BYTES = 1 << 20
_GATHERED_PARTS = 1000  # of one writev: IOV_MAX is 1024
_RESERVED_BYTES = 16 << 20
_PLAIN_KEY = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_/-]*)?[A-Za-z0-9-]\Z").match
"""Says at once that most keys can name files; what it does not know is looked at closely."""
_crc32c = google_crc32c.value
_PADDING = [bytes(-size % 512) for size in range(512)]


class TarShards:
    """Writes samples into tars, one after the other.

    Args:
        output: Where they go.
        shard_size: Most bytes of a tar, without its index, unless one sample alone is larger.
        submit: Runs what makes a shard durable while the next one is written.
    """

    suffix = ".tar"

    def __init__(self, output: Output, *, shard_size: int, submit: Callable[[Callable[[], None]], None]) -> None:
        self._output = output
        self._shard_size = shard_size
        self._submit = submit
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._headers = TarHeaders()
        self._last_key: str | None = None
        self._file: IO[bytes] | None = None
        self._begin()

    def _begin(self) -> None:
        self._index = IndexBuilder()
        self._size = self._written = self._reserved = 0
        self._parts: list[bytes] = []
        self._last_key = None

    def add(self, key: str, sample: Mapping[str, object], name: Callable[[], str]) -> None:
        """Append a sample.

        Raises:
            SampleError: If a tar, or what reads it, cannot take it for one sample; nothing of it was written.
        """
        fields = self._orders.get(names := tuple(sample)) or self._order(names)
        values: list[bytes] = []
        length = 0
        for field in fields:
            value = sample[field]
            data = value if type(value) is bytes else encode_field(field, value)
            values.append(data)
            length += len(data) + 1023 & -512
        if key != self._last_key and not _PLAIN_KEY(key):
            self._check_key(key)
        if self._size and self._size + length + len(END) > self._shard_size:
            self.finish(name)
        elif key == self._last_key:
            raise SampleError(f"two samples in a row have the key {key!r}: a tar would join them")
        self._append(key, fields, values)
        self._last_key = key

    def _order(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the fields of a sample, sorted; each set of names is looked at once."""
        order = tuple(sorted(name for name in names if name != "__key__"))
        for field in order:
            if split_name(f"k.{field}") != ("k", field):
                raise SampleError(f"field {field!r} is no extension in lower case, without a slash")
        if not order:
            raise SampleError("a sample has no fields but its key")
        self._orders[names] = order
        return order

    def _check_key(self, key: str) -> None:
        if split_name(f"{key}.x") != (key, "x") or "\0" in key or key.startswith("/"):
            raise SampleError(
                f"the key {key!r} cannot name files: no dot in its last part, not empty, no __meta__ name"
            )

    def _append(self, key: str, fields: tuple[str, ...], values: list[bytes]) -> None:
        headers = self._headers.of_sample(key, fields, values)  # may refuse a name: before anything is changed
        parts, size = self._parts, self._size
        offsets: list[int] = []
        lengths: list[int] = []
        crcs: list[int] = []
        for header, value in zip(headers, values, strict=True):
            length = len(value)
            size += len(header)
            offsets.append(size)
            lengths.append(length)
            crcs.append(_crc32c(value))
            parts += header, value, _PADDING[length & 511]
            size += length + 511 & -512
        self._index.add_sample(key, fields, offsets, lengths, crcs)
        self._size = size
        if size - self._written >= _GATHERED_BYTES or len(parts) >= _GATHERED_PARTS:
            self._flush()

    def _flush(self) -> None:
        """Write what is gathered: a write for each part would cost more than the bytes do."""
        if self._file is None:
            self._file = self._output.create()
        parts, self._parts = self._parts, []
        begin, self._written = self._written, self._size
        if self._output.reserves and self._size > self._reserved:  # half of what the kernel does for a write
            self._reserved = self._size + _RESERVED_BYTES
            with suppress(OSError):  # a disk that is nearly full: the write says whether there is room
                os.posix_fallocate(self._file.fileno(), begin, self._reserved - begin)
        with disk_errors(self._output.place):
            for start in range(0, len(parts), _GATHERED_PARTS):
                write_all(self._file.fileno(), parts[start : start + _GATHERED_PARTS])

    def finish(self, name: Callable[[], str]) -> None:
        """End the shard, if one was begun: it and its index are given their names soon."""
        if not len(self._index):
            return
        # The index tells the length of the tar that holds it, and has the same length whatever that is.
        index = self._index.build(0)
        content = as_member(index.encode())
        total = self._size + 512 + len(content) + len(END)
        encoded = replace(index, shard_bytes=total).encode()
        self._parts += (self._headers.header(INDEX_MEMBER, len(content)), as_member(encoded), END)
        self._size = total
        self._flush()
        file, self._file = self._file, None
        assert file is not None
        with disk_errors(self._output.place):
            file.truncate(total)  # what was reserved for more
        shard, output = name(), self._output

        def publish() -> None:
            output.publish(file, shard)  # first: a name that somebody else took meanwhile keeps its own index
            output.put(shard + INDEX_SUFFIX, encoded)  # until then, and after a kill, the one in the tar is used
            output.sync()

        self._begin()
        self._submit(publish)

    def abandon(self) -> None:
        """Throw away the shard that is not finished."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def end(self) -> None:
        """Do what is left when all shards are there: nothing."""

    def recall(self, name: str) -> int:
        """Return how many samples a shard that was written before has.

        Raises:
            ShardFormatError: If its index is damaged.
            SourceError: If it cannot be read.
        """
        finder = Finder(self._output.options)
        (shard,) = finder.find(place_of(self._output, name))
        index = index_of(shard, open_shards([shard], finder, None), 0, rule="path", finder=finder)
        if finder.exists(shard.uri + INDEX_SUFFIX) is None:  # the writer was killed between the two
            self._output.put(name + INDEX_SUFFIX, index.encode())
        return len(index)
