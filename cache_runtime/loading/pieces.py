"""What is to be fetched, cut into what one thread does at a time. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.layout import SMALL_BYTES, BlockRun, block_span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache_runtime.peers.routing import Ask
    from sources import ObjectRef

Piece = tuple["ObjectRef", BlockRun]
"""A small object (its block 0), or up to 16 MiB of a large one."""

WHOLE = BlockRun(0, 0)
"""The run of a small object."""
RECORD_COST_BYTES = 32 + 160
"""What a small object takes beside its bytes: the record's header and rows of the index."""
FILE_COST_BYTES = 2 * 4096
"""What a piece of a large object takes beside its bytes: its last page and the file's sidecar, if it is the last."""
_GROUP_OBJECTS = 64
_BATCH_OBJECTS = 256
_GROUP_BYTES = 4 << 20
_MAX_WAITING = 1 << 16


class Group(NamedTuple):
    """What one thread does at a time.

    Attributes:
        pieces: Small objects, or one piece of a large one.
        asks: Workers to ask before the origin.
    """

    pieces: tuple[Piece, ...]
    asks: tuple[Ask, ...]


def is_small(ref: ObjectRef) -> bool:
    """Say whether an object is cached whole, in a slab."""
    return ref.size <= SMALL_BYTES


def piece_bytes(piece: Piece) -> int:
    """Return the length of a piece, bytes."""
    ref, run = piece
    return ref.size if ref.size <= SMALL_BYTES else block_span(run, ref.size)[1]


def cost_bytes(piece: Piece) -> int:
    """Return what a piece takes in a store, about, bytes."""
    return piece_bytes(piece) + (RECORD_COST_BYTES if is_small(piece[0]) else FILE_COST_BYTES)


def blocks_of(piece: Piece) -> range:
    """Return the numbers of a piece's blocks."""
    return range(piece[1].first, piece[1].last + 1)


def group_limit(pieces: int, threads: int) -> int:
    """Return how many small objects a group has, so that all threads end at about the same time.

    Args:
        pieces: How many there are.
        threads: That fetch them.
    """
    return max(1, min(_GROUP_OBJECTS, pieces // (threads * 4)))


def group_pieces(routed: Iterable[tuple[Piece, tuple[Ask, ...]]], *, limit: int = _GROUP_OBJECTS) -> Iterator[Group]:
    """Yield groups that one thread fetches and stores at once: small objects together, a piece of a large one alone.

    Args:
        routed: Pieces, and whom to ask for each; in any order, which is about kept.
        limit: Most small objects in a group; they have at most 4 MiB together, or are one.
    """
    groups: dict[tuple[Ask, ...], list[Piece]] = {}
    sizes: dict[tuple[Ask, ...], int] = {}
    for number, (piece, asks) in enumerate(routed, start=1):
        if number % _MAX_WAITING == 0:  # of many workers there are very many pairs
            yield from (Group(tuple(group), those) for those, group in groups.items() if group)
            groups.clear()
        ref = piece[0]
        if ref.size > SMALL_BYTES:
            yield Group((piece,), asks)
            continue
        group = groups.setdefault(asks, [])
        # a worker answers many at once as fast as one
        most = _BATCH_OBJECTS if asks else limit
        if group and (len(group) >= most or sizes[asks] + ref.size > _GROUP_BYTES):
            yield Group(tuple(group), asks)
            group = groups[asks] = []
        sizes[asks] = ref.size + (sizes[asks] if group else 0)
        group.append(piece)
    yield from (Group(tuple(group), asks) for asks, group in groups.items() if group)


def from_origin(pieces: Iterable[Piece]) -> Iterator[tuple[Piece, tuple[Ask, ...]]]:
    """Yield pieces with nobody to ask before the origin."""
    return ((piece, ()) for piece in pieces)


def single_pieces(routed: Iterable[tuple[Piece, tuple[Ask, ...]]]) -> Iterator[Group]:
    """Yield a group for each piece."""
    return (Group((piece,), asks) for piece, asks in routed)
