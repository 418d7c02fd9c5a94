"""Bodies of present, load and evict."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cache_runtime.errors import ProtocolError
from cache_runtime.protocol.documents import dump, load, make_ref, name_row, parse_share, rows_of
from cache_runtime.protocol.failures import ErrorKind
from cache_runtime.protocol.paths import MAX_OBJECT_BYTES, MAX_PIECE_BLOCKS, MAX_PRESENT_PIECES
from cache_runtime.protocol.ranges import blocks_of
from cache_runtime.store.layout import BlockRun
from sources import ObjectId, ObjectRef

if TYPE_CHECKING:
    from collections.abc import Sequence

_ID = re.compile(r"[0-9a-f]{32}")


class Piece(NamedTuple):
    """Blocks of an object; a small object has the one block 0."""

    ref: ObjectRef
    run: BlockRun


class EvictRequest(NamedTuple):
    """What to evict: one of these is not None."""

    ids: list[ObjectId] | None
    share: str | None
    need_bytes: int | None


def encode_pieces(pieces: Sequence[tuple[ObjectRef, BlockRun]], **fields: object) -> bytes:
    """Write `{..., "pieces": [[store, key, version, size, first, last], ...]}`: the body of present and of load."""
    return dump({**fields, "pieces": [[*name_row(ref), run.first, run.last] for ref, run in pieces]})


def decode_pieces(body: bytes, *, limit: int) -> tuple[list[Piece], dict[str, Any]]:
    """Read the body of present or of load; return its pieces and its other fields, unchecked.

    Raises:
        ProtocolError: If it is malformed or has more than `limit` pieces or `MAX_PIECE_BLOCKS` times as many blocks,
            or a piece is outside of its object.
    """
    document = load(body, limit=limit)
    pieces = [_piece(row) for row in rows_of(document, "pieces", width=6, limit=limit)]
    if sum(run.last + 1 - run.first for _, run in pieces) > limit * MAX_PIECE_BLOCKS:
        raise ProtocolError(f"at most {limit * MAX_PIECE_BLOCKS} blocks in one request", kind=ErrorKind.TOO_LARGE)
    return pieces, {name: value for name, value in document.items() if name != "pieces"}


def encode_evict(
    *, ids: Sequence[bytes] | None = None, share: str | None = None, need_bytes: int | None = None
) -> bytes:
    """Write the body of evict: one of some objects, all of a share, or so many bytes of what is least wanted."""
    if ids is not None:
        return dump({"ids": [object_id.hex() for object_id in ids]})
    return dump({"share": share} if share is not None else {"bytes": need_bytes})


def decode_evict(body: bytes) -> EvictRequest:
    """Read the body of evict.

    Raises:
        ProtocolError: If it is malformed, or names none or several of the three.
    """
    document = load(body, limit=MAX_PRESENT_PIECES)
    ids, share, need_bytes = (document.get(name) for name in ("ids", "share", "bytes"))
    if sum(given is not None for given in (ids, share, need_bytes)) != 1:
        raise ProtocolError("give one of `ids`, `share` and `bytes`")
    if ids is not None:
        if not isinstance(ids, list) or not all(isinstance(one, str) and _ID.fullmatch(one) for one in ids):
            raise ProtocolError("`ids` is a list of objects' ids, 32 hexadecimal digits each")
        if len(ids) > MAX_PRESENT_PIECES:
            raise ProtocolError(f"at most {MAX_PRESENT_PIECES} ids in one request", kind=ErrorKind.TOO_LARGE)
        return EvictRequest([ObjectId(bytes.fromhex(one)) for one in ids], None, None)
    if share is not None:
        return EvictRequest(None, parse_share({"share": share}).name, None)
    if type(need_bytes) is not int or not 0 < need_bytes <= MAX_OBJECT_BYTES:
        raise ProtocolError("`bytes` is a number of bytes, and not 0")
    return EvictRequest(None, None, need_bytes)


def _piece(row: Sequence[object]) -> Piece:
    ref, (first, last) = make_ref(row[:4]), row[4:]
    end = blocks_of(ref.size, 0, ref.size).last
    if type(first) is not int or type(last) is not int or not 0 <= first <= last <= end:
        raise ProtocolError("a piece's blocks are outside of its object")
    return Piece(ref, BlockRun(first, last))
