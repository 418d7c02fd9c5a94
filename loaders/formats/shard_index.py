"""The index of one shard: where each field of each sample lies. Bytes as in docs/reference/shard-format.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from loaders.errors import ShardFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

Int64Array = npt.NDArray[np.int64]

MAGIC = b"FBAYIDX1"  # the digit is the version: a reader refuses one that it does not know
END_MAGIC = b"FBAYEND1"
_HEADER = struct.Struct(
    "<8sIIQQQQQI"
)  # magic, flags, fields, samples, members, key bytes, field bytes, shard bytes, crc
_HEADER_BYTES = 64
_TRAILER = struct.Struct("<Q8s")
TRAILER_BYTES = _TRAILER.size
HEADER_BYTES = _HEADER_BYTES
_HAS_CRCS, _HAS_STARTS, _HAS_MARK = 1, 2, 4
_MARK = struct.Struct("<I")
_CHECKED_BYTES = 4 << 20  # sums of a larger body are compared where it is read from elsewhere: 0.5 ms at most here
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """The samples of one shard in their order.

    Attributes:
        fields: Field names, sorted.
        width: Members of every sample, if all have as many; those of sample i are [width * i, width * i + width).
        starts: Otherwise int64, shape (n + 1,): members of sample i are [starts[i], starts[i + 1]).
        offsets: int64, where each member's bytes begin in the shard.
        lengths: int64, bytes of each member.
        codes: uint16, index into `fields` of each member.
        crcs: uint32, crc32c of each member; None if they are not known.
        key_ends: int64, shape (n + 1,): key i is `keys[key_ends[i] : key_ends[i + 1]]`.
        keys: The keys in UTF-8, one after the other.
        shard_bytes: Length of the shard that this is the index of.
        mark: See `mark_of`; None if it is not known, as in the index that is a part of the shard.
    """

    fields: tuple[str, ...]
    width: int | None
    starts: Int64Array | None
    offsets: Int64Array
    lengths: Int64Array
    codes: npt.NDArray[np.uint16]
    crcs: npt.NDArray[np.uint32] | None
    key_ends: Int64Array
    keys: memoryview
    shard_bytes: int
    mark: int | None = None

    def __len__(self) -> int:
        return len(self.key_ends) - 1

    def member_starts(self) -> Int64Array:
        """Return `starts`, made where they follow from `width`."""
        return np.arange(len(self) + 1, dtype=np.int64) * (self.width or 0) if self.starts is None else self.starts

    def key(self, sample: int) -> str:
        """Return the key of a sample."""
        begin, end = self.key_ends[sample : sample + 2].tolist()
        return str(self.keys[begin:end], "utf-8")

    def marked_blocks(self) -> list[int]:
        """Return where the headers of the first, the middle and the last member begin: what `mark_of` sums up."""
        count = len(self.offsets)
        members = sorted({0, count // 2, count - 1}) if count else []
        return [max(0, int(self.offsets[member]) - _BLOCK) for member in members]

    def encode(self) -> bytes:
        """Return the bytes of an `.idx` file."""
        names = "\0".join(self.fields).encode()
        columns: list[tuple[Any, str]] = [(self.key_ends, "<i8")]
        columns += [(self.starts, "<i8")] if self.starts is not None else []
        columns += [(self.offsets, "<i8"), (self.lengths, "<i8")]
        columns += [(self.crcs, "<u4")] if self.crcs is not None else []
        columns += [(self.codes, "<u2")]
        body = b"".join([np.ascontiguousarray(column, kind).tobytes() for column, kind in columns] + [names, self.keys])
        body += b"" if self.mark is None else _MARK.pack(self.mark)
        flags = (0 if self.crcs is None else _HAS_CRCS) | (0 if self.starts is None else _HAS_STARTS)
        flags |= 0 if self.mark is None else _HAS_MARK
        counts = (len(self.fields), len(self), len(self.offsets), len(self.keys), len(names), self.shard_bytes)
        header = _HEADER.pack(MAGIC, flags, *counts, google_crc32c.value(body))
        return header + struct.pack("<I", google_crc32c.value(header)) + body

    def check(self, uri: str) -> None:
        """Compare all ranges with each other and with the shard.

        Raises:
            ShardFormatError: If one does not fit.
        """
        tables = [(self.key_ends, len(self.keys))]
        if self.starts is not None:
            tables.append((self.starts, len(self.offsets)))
        if any(table[0] != 0 or table[-1] != end or (np.diff(table) < 0).any() for table, end in tables):
            raise ShardFormatError(f"{uri}: the index is damaged: its tables do not fit each other", uri=uri)
        check_ranges(self.offsets, self.lengths, self.shard_bytes, uri)
        if len(self.codes) and int(self.codes.max()) >= len(self.fields):
            raise ShardFormatError(f"{uri}: the index is damaged: it names a field that it has not", uri=uri)


def check_ranges(offsets: Any, lengths: Any, size: Any, uri: str) -> None:
    """Raise `ShardFormatError` unless all ranges lie within `size` bytes."""
    if ((offsets < 0) | (lengths < 0) | (offsets > size - lengths)).any():
        raise ShardFormatError(f"{uri}: its index names bytes that it has not; run: ds index --force", uri=uri)


def decode_index(data: Buffer, uri: str, *, thorough: bool = False) -> ShardIndex:
    """Read the bytes of an `.idx` file; the arrays are views of them.

    Args:
        data: Its bytes, a map for instance.
        uri: Names it in errors.
        thorough: Compare the sum of a large body, too. Without, what is damaged in one is noticed when it is used.

    Raises:
        ShardFormatError: If it is damaged, or of another format or version.
    """
    view = memoryview(data).cast("B")
    if not is_index(view):
        raise ShardFormatError(f"{uri} is no index of Forebay, or one of a later version", uri=uri)
    header = bytes(view[:_HEADER_BYTES])
    if len(header) < _HEADER_BYTES or google_crc32c.value(header[:-4]) != int.from_bytes(header[-4:], "little"):
        raise ShardFormatError(f"{uri}: the header of the index is damaged; run: ds index --force", uri=uri)
    _, flags, fields, samples, members, key_bytes, name_bytes, shard_bytes, crc = _HEADER.unpack(header[:-4])
    is_uneven = bool(flags & _HAS_STARTS)
    widths = [8 * (samples + 1), 8 * (samples + 1) * is_uneven, 8 * members, 8 * members]
    widths += [4 * members * (flags & _HAS_CRCS), 2 * members]
    widths += [name_bytes, key_bytes, _MARK.size if flags & _HAS_MARK else 0]
    ends = np.cumsum([_HEADER_BYTES, *widths], dtype=object).tolist()
    body = view[_HEADER_BYTES : ends[-1]]
    if ends[-1] != len(view) or flags & ~(_HAS_CRCS | _HAS_STARTS | _HAS_MARK):
        raise ShardFormatError(
            f"{uri}: {len(view)} bytes where its header says {ends[-1]}; run: ds index --force", uri=uri
        )
    small = len(body) <= _CHECKED_BYTES
    if (thorough or small) and google_crc32c.value(np.frombuffer(body, np.uint8)) != crc:
        raise ShardFormatError(f"{uri}: the index is damaged: its sum is wrong; run: ds index --force", uri=uri)
    parts = [view[begin:end] for begin, end in pairwise(ends)]
    names = tuple(str(parts[6], "utf-8").split("\0")) if fields else ()
    index = ShardIndex(
        fields=names,
        width=None if is_uneven else members // max(samples, 1),
        key_ends=np.frombuffer(parts[0], "<i8"),
        starts=np.frombuffer(parts[1], "<i8") if is_uneven else None,
        offsets=np.frombuffer(parts[2], "<i8"),
        lengths=np.frombuffer(parts[3], "<i8"),
        crcs=np.frombuffer(parts[4], "<u4") if flags & _HAS_CRCS else None,
        codes=np.frombuffer(parts[5], "<u2"),
        keys=parts[7],
        shard_bytes=shard_bytes,
        mark=_MARK.unpack(parts[8])[0] if flags & _HAS_MARK else None,
    )
    is_even = is_uneven or members == samples * (index.width or 0)
    if len(names) != fields or list(names) != sorted(set(names)) or not is_even:
        raise ShardFormatError(f"{uri}: the index is damaged: its numbers do not fit each other", uri=uri)
    if thorough or small or is_uneven:
        index.check(uri)
    return index


def mark_of(blocks: Iterable[Buffer]) -> int:
    """Return what tells a shard from another one of its size: the crc32c of some headers, one after the other.

    Of headers, not of what they head: damage to that is noticed by the members' own sums, which this index has.
    """
    sums: int = google_crc32c.value(b"".join(bytes(memoryview(block)) for block in blocks))
    return sums


def is_index(data: Buffer) -> bool:
    """Say whether bytes begin as an index of ours of this version does."""
    return bytes(memoryview(data)[: len(MAGIC)]) == MAGIC


def member_size(index_bytes: int) -> int:
    """Return the length of the member `__index__` for an index of this length: whole blocks, with the trailer."""
    return index_bytes + TRAILER_BYTES + _BLOCK - 1 & -_BLOCK


def as_member(encoded: bytes) -> bytes:
    """Return the content of a member `__index__`: the index, zeros, and where it ends what tells its length."""
    filling = bytes(member_size(len(encoded)) - len(encoded) - TRAILER_BYTES)
    return encoded + filling + _TRAILER.pack(len(encoded), END_MAGIC)


def trailer_length(trailer: Buffer) -> int | None:
    """Return the length of the index that a trailer follows; None if it is no trailer."""
    length, magic = _TRAILER.unpack(bytes(memoryview(trailer)))
    return int(length) if magic == END_MAGIC else None


class IndexBuilder:
    """Gathers the members of one shard, sample after sample."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._keys: list[str] = []
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._codes: list[int] = []
        self._fields: dict[str, int] = {}
        self._known: dict[tuple[str, ...], list[int]] = {}
        self.crcs: list[int] | None = []

    def __len__(self) -> int:
        return len(self._keys)

    def begin_sample(self, key: str) -> None:
        """Begin a sample; the members that follow are its own."""
        self._starts.append(len(self._offsets))
        self._keys.append(key)

    def add_sample(
        self, key: str, fields: tuple[str, ...], offsets: list[int], lengths: list[int], crcs: list[int]
    ) -> None:
        """Add a sample with all of its members."""
        codes = self._known.get(fields)
        if codes is None:
            codes = self._known[fields] = [self._fields.setdefault(field, len(self._fields)) for field in fields]
        self._starts.append(len(self._offsets))
        self._keys.append(key)
        self._codes += codes
        self._offsets += offsets
        self._lengths += lengths
        if self.crcs is not None:
            self.crcs += crcs

    def add_member(self, field: str, offset: int, length: int, crc: int | None) -> None:
        """Add a member to the sample; without a crc32c the index has none at all."""
        self._codes.append(self._fields.setdefault(field, len(self._fields)))
        self._offsets.append(offset)
        self._lengths.append(length)
        if crc is None:
            self.crcs = None
        elif self.crcs is not None:
            self.crcs.append(crc)

    def build(self, shard_bytes: int) -> ShardIndex:
        """Return the index, for a shard of this length."""
        names = sorted(self._fields)
        if len(names) > 1 << 16:
            raise ShardFormatError(f"{len(names)} fields in one shard; at most 65536: check the key rule")
        number = {self._fields[name]: rank for rank, name in enumerate(names)}
        ranks = np.array([number[code] for code in range(len(names))], np.uint16)
        codes = np.array(self._codes, np.int64)
        keys = [key.encode() for key in self._keys]
        starts = np.array([*self._starts, len(self._offsets)], np.int64)
        widths = np.diff(starts)
        is_even = not len(widths) or bool((widths == widths[0]).all())
        return ShardIndex(
            fields=tuple(names),
            width=(int(widths[0]) if len(widths) else 0) if is_even else None,
            starts=None if is_even else starts,
            offsets=np.array(self._offsets, np.int64),
            lengths=np.array(self._lengths, np.int64),
            codes=ranks[codes] if len(names) else np.empty(0, np.uint16),
            crcs=None if self.crcs is None else np.array(self.crcs, np.uint32),
            key_ends=_ends(keys),
            keys=memoryview(b"".join(keys)),
            shard_bytes=shard_bytes,
        )


def _ends(keys: Sequence[bytes]) -> Int64Array:
    ends = np.zeros(len(keys) + 1, np.int64)
    np.cumsum([len(key) for key in keys], out=ends[1:])
    return ends
