"""Ranges of objects and the checksums of their blocks, as headers."""

from __future__ import annotations

import re
from typing import NamedTuple

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol.failures import ErrorKind
from cache_runtime.protocol.paths import BLOCKS_HEADER
from cache_runtime.store.layout import BLOCK_BYTES, BLOCK_SHIFT, SMALL_BYTES, BlockRun

_RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")
_BLOCKS = re.compile(r"(\d{1,10}):([0-9a-f]{8}(?:,[0-9a-f]{8})*)")


class BlockSums(NamedTuple):
    """Checksums of neighbouring blocks from `first` on."""

    first: int
    crcs: tuple[int, ...]


def format_range(offset: int, length: int) -> str:
    """Return the value of a Range header; `length` is not 0."""
    return f"bytes={offset}-{offset + length - 1}"


def parse_range(value: str | None, size: int) -> tuple[int, int]:
    """Return offset and length of what a Range header selects of `size` bytes; all of it without one.

    Raises:
        ProtocolError: If it is no single range of bytes (`bad_request`) or selects nothing (`range`).
    """
    if value is None:
        return 0, size
    match = _RANGE.fullmatch(value.strip())
    if match is None or match.group(1) is None is match.group(2):
        raise ProtocolError("only one range can be asked for: `bytes=first-last`, both included")
    if match.group(1) is None:
        offset, end = max(0, size - int(match.group(2))), size
    else:
        offset, end = int(match.group(1)), min(size, int(match.group(2) or size) + 1)
        if match.group(2) is not None and int(match.group(2)) < offset:
            raise ProtocolError("the range ends before it begins")
    if offset >= end:
        raise ProtocolError(f"the range is outside of the object, which has {size} bytes", kind=ErrorKind.RANGE)
    return offset, end - offset


def blocks_of(size: int, offset: int, length: int) -> BlockRun:
    """Return the blocks that a range of an object touches; a small object has the one block 0."""
    if size <= SMALL_BYTES:
        return BlockRun(0, 0)
    return BlockRun(offset >> BLOCK_SHIFT, (offset + length - 1) >> BLOCK_SHIFT)


def covers_blocks(size: int, offset: int, length: int) -> bool:
    """Say whether a range consists of whole blocks, so that their checksums can be sent with it."""
    if size <= SMALL_BYTES:
        return (offset, length) == (0, size)
    return offset % BLOCK_BYTES == 0 and (length % BLOCK_BYTES == 0 or offset + length == size)


def format_sums(sums: BlockSums) -> str:
    """Return the value of a Forebay-Blocks header."""
    return f"{sums.first}:{','.join(format(crc, '08x') for crc in sums.crcs)}"


def parse_sums(value: str | None) -> BlockSums | None:
    """Return what a Forebay-Blocks header says; None without one.

    Raises:
        ProtocolError: If it is malformed.
    """
    if value is None:
        return None
    match = _BLOCKS.fullmatch(value)
    if match is None:
        raise ProtocolError(f"{BLOCKS_HEADER} is malformed")
    return BlockSums(int(match.group(1)), tuple(int(crc, 16) for crc in match.group(2).split(",")))
