"""Records of tar shards."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_128

from loaders.errors import NoSamplesError, ShardFormatError
from loaders.formats.index_files import index_of
from loaders.formats.shard_index import Int64Array, ShardIndex, check_ranges
from loaders.records import Fetched
from sources.crew import Crew

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from loaders.formats.reading import ReadsShards
    from loaders.formats.shards import Finder, Shard
    from loaders.keys import KeyRule

_INDEXES_AT_A_TIME = 16


class TarRecords:
    """The samples of tars, in the order of the tars and of their members.

    Args:
        shards: The tars.
        reader: Reads them, by their numbers.
        indexes: Of each tar.
    """

    def __init__(self, shards: Sequence[Shard], reader: ReadsShards, indexes: Sequence[ShardIndex]) -> None:
        self.shards = list(shards)
        self.reader = reader
        self.fields = tuple(sorted({field for index in indexes for field in index.fields}))
        self.shard_starts: Int64Array = np.cumsum([0, *map(len, indexes)], dtype=np.int64)
        self._indexes = list(indexes)
        self._sizes = np.array([shard.size for shard in shards], np.int64)
        self._join()

    @classmethod
    def open(cls, shards: Sequence[Shard], reader: ReadsShards, finder: Finder, *, rule: KeyRule) -> TarRecords:
        """Read or make the index of every shard.

        Raises:
            NoSamplesError: If there is no sample in them.
            ShardFormatError, DuplicateFieldError, SourceError: See `index_of`.
        """
        crew = Crew(_INDEXES_AT_A_TIME, name="forebay-index")

        def one(number: int) -> ShardIndex:
            return index_of(shards[number], reader, number, rule=rule, finder=finder)

        try:
            indexes = [one(0)] if len(shards) == 1 else crew.map(one, range(len(shards)))
        finally:
            crew.close()
        records = cls(shards, reader, indexes)
        if not len(records):
            named = ", ".join(shard.uri for shard in shards[:3])
            raise NoSamplesError(f"{named}: no member has a name of the form KEY.FIELD; give another key rule")
        return records

    def _join(self) -> None:
        """Put the tables of all shards one after the other; those of a single one stay views of its map."""
        indexes = self._indexes
        widths = {index.width for index in indexes if len(index)}
        self._width = widths.pop() if len(widths) == 1 else None
        self._starts: Int64Array | None = None
        if self._width is None:
            members = np.cumsum([0, *[len(index.offsets) for index in indexes]]).tolist()
            parts = [index.member_starts()[:-1] + before for index, before in zip(indexes, members, strict=False)]
            self._starts = np.concatenate([*parts, members[-1:]]).astype(np.int64)
        if len(indexes) == 1:
            (one,) = indexes
            self._offsets, self._lengths, self._crcs = one.offsets, one.lengths, one.crcs
            self._codes: npt.NDArray[np.uint16] = one.codes
            self._key_ends = one.key_ends
            return
        for index, shard in zip(indexes, self.shards, strict=True):
            index.check(shard.uri)
        self._offsets = np.concatenate([index.offsets for index in indexes])
        self._lengths = np.concatenate([index.lengths for index in indexes])
        self._codes = np.concatenate([self._ranks(index)[index.codes] for index in indexes])
        self._key_ends = np.concatenate([index.key_ends for index in indexes])  # n + 1 of each shard
        crcs = [index.crcs for index in indexes if index.crcs is not None]
        self._crcs = np.concatenate(crcs) if len(crcs) == len(indexes) else None

    def _ranks(self, index: ShardIndex) -> npt.NDArray[np.uint16]:
        return np.array([self.fields.index(field) for field in index.fields], np.uint16)

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    def __getstate__(self) -> dict[str, object]:
        """Leave the maps behind: the tables are carried as arrays, the files are opened anew."""
        state = {name: value for name, value in self.__dict__.items() if name != "_indexes"}
        state["_keys"] = [(index.key_ends, bytes(index.keys)) for index in self._indexes]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    @cached_property
    def _keys(self) -> list[tuple[Int64Array, memoryview | bytes]]:
        return [(index.key_ends, index.keys) for index in self._indexes]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of keys, fields and lengths in order, not of where they lie."""
        hasher = xxh3_128("\0".join(self.fields).encode())
        for ends, keys in self._keys:
            hasher.update(np.ascontiguousarray(ends).data)
            hasher.update(keys)
        starts = np.zeros(0, np.int64) if self._starts is None else self._starts
        for array in (starts, self._codes, self._lengths):
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    @cached_property
    def sample_bytes(self) -> Int64Array:
        """Bytes of each sample."""
        if self._starts is None:
            sums: Int64Array = self._lengths.reshape(len(self), -1).sum(axis=1)
            return sums
        ends = np.concatenate([[0], np.cumsum(self._lengths)])
        return np.diff(ends[self._starts]).astype(np.int64)

    def keys_of(self, numbers: Int64Array) -> list[str]:
        """Return the keys of some samples, in the order asked for."""
        shards = self._shards_of(numbers)
        at = numbers + shards
        keys = self._keys
        begins, ends = self._key_ends[at].tolist(), self._key_ends[at + 1].tolist()
        return [str(keys[s][1][b:e], "utf-8", "replace") for s, b, e in zip(shards.tolist(), begins, ends, strict=True)]

    def _shards_of(self, numbers: Int64Array) -> Int64Array:
        if len(self.shards) == 1:
            return np.zeros(len(numbers), np.int64)
        return np.searchsorted(self.shard_starts, numbers, side="right") - 1

    def fetch(self, numbers: Int64Array) -> Fetched:
        """Return the bytes of some samples; see `Records.fetch`.

        Raises:
            ShardFormatError: If the index names bytes that a shard has not.
            SourceError, CacheError: If bytes cannot be had.
        """
        shards = self._shards_of(numbers)
        counts, members, shards = self._members_of(numbers, shards)
        offsets, lengths, codes = self._offsets[members], self._lengths[members], self._codes[members]
        check_ranges(offsets, lengths, self._sizes[shards], self.shards[0].uri)
        if len(codes) and codes.max() >= len(self.fields):
            raise ShardFormatError(f"{self.shards[0].uri}: its index is damaged; run: ds index --force")
        rows = shards.tolist(), offsets.tolist()
        data = self.reader.read(rows[0], rows[1], lengths.tolist())
        crcs = None if self._crcs is None else self._crcs[members].tolist()

        def place(member: int) -> str:
            return f"{self.shards[rows[0][member]].uri} at {rows[1][member]}"

        return Fetched(counts, codes.tolist(), data, crcs, place)

    def _members_of(self, numbers: Int64Array, shards: Int64Array) -> tuple[list[int], Int64Array, Int64Array]:
        """Return how many members each sample has, which, and the shard of each."""
        if self._starts is None:
            width = self._width or 0
            members = (numbers[:, None] * width + np.arange(width)).ravel()
            return [width] * len(numbers), members, np.repeat(shards, width)
        begins = self._starts[numbers]
        widths = self._starts[numbers + 1] - begins
        ends = np.cumsum(widths)
        members = np.repeat(begins - (ends - widths), widths) + np.arange(int(ends[-1]) if len(ends) else 0)
        return widths.tolist(), members, np.repeat(shards, widths)
