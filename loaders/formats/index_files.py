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
from loaders.formats.shard_index import TRAILER_BYTES, decode_index, is_index, member_size, trailer_length
from loaders.formats.shards import Shard, local_shard
from sources import SourceNotFoundError

if TYPE_CHECKING:
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
    return None if _is_stale(index, shard, beside, is_older=is_older) else index


def _beside_remote(shard: Shard, reader: ReadsShards, finder: Finder) -> ShardIndex | None:
    from loaders.formats.reading import ClientFiles

    beside = finder.exists(shard.uri + INDEX_SUFFIX)
    if beside is None or not isinstance(reader, ClientFiles):
        return None
    (data,) = ClientFiles([beside], reader.client).read([0], [0], [beside.size])
    if not is_index(data):
        return None
    index = decode_index(data, beside.uri, thorough=True)
    return None if _is_stale(index, shard, beside, is_older=False) else index


def _is_stale(index: ShardIndex, shard: Shard, beside: Shard, *, is_older: bool) -> bool:
    if index.shard_bytes == shard.size and not is_older:
        return False
    _log.warning("index=%s is of another %s and not used; write it anew with: ds index", beside.uri, shard.uri)
    return True


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
