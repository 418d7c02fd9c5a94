"""Where the index of a tar comes from: an `.idx` beside it, its last member, or a walk over it."""

from __future__ import annotations

import logging
import mmap
import os
from typing import TYPE_CHECKING

import google_crc32c

from loaders.errors import ShardFormatError
from loaders.formats.indexing import INDEX_MEMBER, index_tar
from loaders.formats.reading import Windowed
from loaders.formats.shard_index import (
    HEADER_BYTES,
    TRAILER_BYTES,
    decode_index,
    is_index,
    mark_of,
    member_size,
    trailer_length,
)
from loaders.formats.shards import Shard, local_shard
from loaders.formats.tar_walk import BLOCK
from sources import SourceNotFoundError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from loaders.formats.reading import ReadsShards
    from loaders.formats.shard_index import ShardIndex
    from loaders.formats.shards import Finder
    from loaders.keys import KeyRule

_log = logging.getLogger(__name__)

INDEX_SUFFIX = ".idx"
_END_BYTES = 1024  # of a tar
_TAIL_BYTES = 1 << 20
"""Read of the end of a remote tar at once: the index of 20,000 samples, and 10 ms at 100 MB/s."""


def index_of(shard: Shard, reader: ReadsShards, number: int, *, rule: KeyRule, finder: Finder) -> ShardIndex:
    """Return the index of a tar, from where it costs least.

    Args:
        shard: The tar.
        reader: Reads it, as shard `number`.
        number: See `reader`.
        rule: How members make samples; an index is made by rule `path`, so for another one the tar is walked.
        finder: Looks for an `.idx`.

    Raises:
        ShardFormatError: If the tar or its index is damaged.
        DuplicateFieldError: If a sample has a field twice.
        SourceError: If bytes cannot be had.
    """
    if rule == "path":
        if shard.path is not None:
            found = _beside_local(shard) or _in_tail(shard, reader, number)
        else:
            found = _in_tail(shard, reader, number) or _beside_remote(shard, reader, finder)
        if found is not None:
            return found
        _log.debug("shard=%s has no index and is walked; write one with: ds index", shard.uri)
    data = _whole(shard, reader, number)
    return index_tar(data, shard.uri, rule=rule)


def _beside_local(shard: Shard) -> ShardIndex | None:
    assert shard.path is not None
    try:
        beside = local_shard(shard.path + INDEX_SUFFIX)
    except SourceNotFoundError:
        return None
    with open(beside.path or "", "rb") as file:
        if not beside.size or not is_index(file.read(8)):
            return None  # another tool's
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    index = decode_index(data, beside.uri)
    is_older = beside.mtime_ns is not None and shard.mtime_ns is not None and beside.mtime_ns < shard.mtime_ns
    if index.shard_bytes == shard.size and not is_older and _has_content(shard, index, data):
        return index
    _tell_stale(shard, beside)
    return None


def _has_content(shard: Shard, index: ShardIndex, encoded: Buffer) -> bool:
    """Compare an index with the content of a local shard: with some of its headers, or with the index that is in it.

    Time and size alone would let an index pass whose shard was replaced by one of the same size, with its times kept.
    """
    with open(shard.path or "", "rb", buffering=0) as file:
        if index.mark is not None:
            return index.mark == mark_of(os.pread(file.fileno(), BLOCK, at) for at in index.marked_blocks())
        inner = _inner_header(file.fileno(), shard.size)
    return inner is None or inner == bytes(memoryview(encoded)[:HEADER_BYTES])


def _inner_header(fd: int, size: int) -> bytes | None:
    """Return the header of the index that is the last member of a tar, which has the sum of all that follows it."""
    if size < 512 + TRAILER_BYTES + _END_BYTES:
        return None
    trailer = os.pread(fd, TRAILER_BYTES, size - _END_BYTES - TRAILER_BYTES)
    length = trailer_length(trailer) if len(trailer) == TRAILER_BYTES else None
    begin = -1 if length is None else size - _END_BYTES - member_size(length)
    if begin < 0:
        return None
    header = os.pread(fd, HEADER_BYTES, begin)
    return header if is_index(header) else None


def _beside_remote(shard: Shard, reader: ReadsShards, finder: Finder) -> ShardIndex | None:
    """Read an `.idx` of a store; its shard is compared by length: more would be two requests for each shard."""
    from loaders.formats.reading import ClientFiles

    beside = finder.exists(shard.uri + INDEX_SUFFIX)
    if beside is None or not isinstance(reader, ClientFiles):
        return None
    (data,) = ClientFiles([beside], reader.client).read([0], [0], [beside.size])
    if not is_index(data):
        return None
    index = decode_index(data, beside.uri, thorough=True)
    if index.shard_bytes == shard.size:
        return index
    _tell_stale(shard, beside)
    return None


def _tell_stale(shard: Shard, beside: Shard) -> None:
    _log.warning("index=%s is of another %s and not used; write it anew with: ds index", beside.uri, shard.uri)


def _in_tail(shard: Shard, reader: ReadsShards, number: int) -> ShardIndex | None:
    """Read the member `__index__` at the end of a tar; None if it has none."""
    least = 512 + TRAILER_BYTES + _END_BYTES
    length = min(shard.size, least if shard.path is not None else _TAIL_BYTES)
    if length < least:
        return None
    (tail,) = reader.read([number], [shard.size - length], [length])
    ends = len(tail) - _END_BYTES
    index_bytes = trailer_length(tail[ends - TRAILER_BYTES : ends])
    if index_bytes is None:
        return None
    content = member_size(index_bytes)
    whole = content + 512 + _END_BYTES
    if whole > shard.size:
        raise ShardFormatError(f"{shard.uri}: the index at its end is longer than itself: it is damaged", uri=shard.uri)
    if whole > len(tail):
        (tail,) = reader.read([number], [shard.size - whole], [whole])
    member = tail[len(tail) - whole :]
    if bytes(member[: len(INDEX_MEMBER) + 1]) != INDEX_MEMBER.encode() + b"\0":
        return None  # the end of some other file looks like a trailer
    index = decode_index(member[512 : 512 + index_bytes], f"{shard.uri} ({INDEX_MEMBER})", thorough=shard.path is None)
    if index.shard_bytes != shard.size:
        raise ShardFormatError(
            f"{shard.uri}: it has {shard.size} bytes, its index says {index.shard_bytes}", uri=shard.uri
        )
    return index


def _whole(shard: Shard, reader: ReadsShards, number: int) -> mmap.mmap | Windowed | bytes:
    if shard.path is None:
        return Windowed(reader, number, shard.size)
    if shard.size == 0:
        return b""
    with open(shard.path, "rb") as file:
        return mmap.mmap(file.fileno(), shard.size, prot=mmap.PROT_READ)


def is_current(shard: Shard, finder: Finder) -> bool:
    """Say whether the `.idx` of a shard is there and of this shard.

    Raises:
        ShardFormatError: If another tool's file has its name.
    """
    beside = finder.exists(shard.uri + INDEX_SUFFIX)
    if beside is None:
        return False
    head = _first_bytes(beside, finder)
    if not is_index(head):
        raise ShardFormatError(f"{beside.uri} is another tool's index; move it away first", uri=beside.uri)
    if shard.path is not None:
        try:
            return _beside_local(shard) is not None
        except ShardFormatError:
            return False  # it is damaged, and written anew
    is_older = beside.mtime_ns is not None and shard.mtime_ns is not None and beside.mtime_ns < shard.mtime_ns
    whole = len(head) == 64 and google_crc32c.value(head[:60]) == int.from_bytes(head[60:], "little")
    return whole and int.from_bytes(head[48:56], "little") == shard.size and not is_older


def _first_bytes(beside: Shard, finder: Finder) -> bytes:
    if beside.path is not None:
        with open(beside.path, "rb") as file:
            return os.read(file.fileno(), 64)
    length = min(64, beside.size)
    read = finder.store_of(beside.uri).read(beside.ref.key, start=0, length=length, version=beside.version)
    return bytes(memoryview(read))
