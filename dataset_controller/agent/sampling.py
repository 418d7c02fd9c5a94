"""How much of a version each worker holds, about: a sample of it, asked of all of them."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from cache_runtime.errors import PeerError
from cache_runtime.loading.pieces import WHOLE, is_small, piece_bytes
from cache_runtime.loading.workers import WorkerCalls
from cache_runtime.peers.placement import GROUP_BLOCKS
from cache_runtime.store.layout import BLOCK_SHIFT, BlockRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache_runtime.loading.pieces import Piece
    from cache_runtime.peers import Peers
    from sources import Location

_log = logging.getLogger(__name__)
_MOST_PIECES = 512


class Sample:
    """Pieces of a version, each as likely as any other; all of them where there are few.

    Args:
        seed: The same one gives the same sample: shares do not jump between two counts.
        most: How many.
    """

    def __init__(self, seed: str, most: int = _MOST_PIECES) -> None:
        self._random = random.Random(seed)
        self._most = most
        self._met = 0
        self.pieces: list[Piece] = []

    def through(self, locations: Iterable[Location]) -> Iterator[Location]:
        """Yield the locations, and draw from them."""
        for location in locations:
            for piece in _pieces(location):
                self._draw(piece)
            yield location

    def _draw(self, piece: Piece) -> None:
        self._met += 1
        if len(self.pieces) < self._most:
            self.pieces.append(piece)
        elif (place := int(self._random.random() * self._met)) < self._most:
            self.pieces[place] = piece


def held_shares(peers: Peers, pieces: Sequence[Piece]) -> dict[str, float]:
    """Ask each worker for all pieces, and return which share of their bytes it holds, from 0 to 1.

    One that does not answer is left out.
    """
    calls, total = WorkerCalls(peers.connections), sum(map(piece_bytes, pieces))
    shares: dict[str, float] = {}
    for member in peers.members() if total else ():
        try:
            missing = calls.missing(member, pieces)
        except PeerError as error:
            _log.warning("worker not sampled: %s", error)
            continue
        lacking = sum(_missing_bytes(piece, blocks) for piece, blocks in zip(pieces, missing, strict=True))
        shares[member.name] = 1 - lacking / total
    return shares


def _pieces(location: Location) -> Iterator[Piece]:
    """Yield a small object, or the blocks of a large one that a location touches, those of one place together."""
    ref = location.object
    if location.length <= 0:
        return
    if is_small(ref):
        yield ref, WHOLE
        return
    first, last = location.offset >> BLOCK_SHIFT, (location.offset + location.length - 1) >> BLOCK_SHIFT
    while first <= last:
        end = min(last, first // GROUP_BLOCKS * GROUP_BLOCKS + GROUP_BLOCKS - 1)
        yield ref, BlockRun(first, end)
        first = end + 1


def _missing_bytes(piece: Piece, blocks: Sequence[int]) -> int:
    return sum(piece_bytes((piece[0], BlockRun(block, block))) for block in blocks)
