"""Shards that are compressed as a whole."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from loaders.errors import ShardFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loaders.formats.reading import ReadsShards
    from loaders.formats.shards import Shard

_MOST_UNPACKED_BYTES = 512 << 20


class Unpacked:
    """Reads compressed shards: each is unpacked whole, and the last few are kept.

    Args:
        shards: The compressed files.
        reader: Reads them.
        codecs: How each is compressed; None: not.
        sizes: Of each, unpacked.
    """

    def __init__(
        self, shards: Sequence[Shard], reader: ReadsShards, codecs: Sequence[str | None], sizes: Sequence[int]
    ) -> None:
        self._shards = list(shards)
        self._reader = reader
        self._codecs = list(codecs)
        self._sizes = list(sizes)
        self._kept: OrderedDict[int, memoryview] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return Unpacked, (self._shards, self._reader, self._codecs, self._sizes)

    def read(self, shards: list[int], offsets: list[int], lengths: list[int]) -> list[memoryview]:
        """See `ReadsShards.read`.

        Raises:
            ShardFormatError: If a shard cannot be unpacked.
        """
        with self._lock:
            views = {number: self._whole(number) for number in sorted(set(shards))}
        return [views[s][o : o + n] for s, o, n in zip(shards, offsets, lengths, strict=True)]

    def _whole(self, number: int) -> memoryview:
        view = self._kept.get(number)
        if view is None:
            (packed,) = self._reader.read([number], [0], [self._shards[number].size])
            codec = self._codecs[number]
            view = self._kept[number] = packed if codec is None else self._unpack(number, packed, codec)
        self._kept.move_to_end(number)
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _MOST_UNPACKED_BYTES:
            self._kept.popitem(last=False)
        return view

    def _unpack(self, number: int, packed: memoryview, codec: Any) -> memoryview:
        size, uri = self._sizes[number], self._shards[number].uri
        try:
            with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(packed)), codec) as stream:
                data = stream.read(size + 1)  # no more than it should have, whatever it holds
        except (OSError, pa.ArrowException) as error:
            raise ShardFormatError(f"{uri} cannot be unpacked: {error}", uri=uri) from error
        if len(data) != size:
            raise ShardFormatError(f"{uri} has {len(data)} bytes or more unpacked; its index says {size}", uri=uri)
        return memoryview(data)
