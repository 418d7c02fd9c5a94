"""Where each piece comes from: workers that have it, its owner, or the origin."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from cache_runtime.errors import PeerError
from cache_runtime.loading.workers import WorkerCalls
from cache_runtime.peers.placement import group_of, rank_many
from cache_runtime.peers.routing import PROBES, Ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache_runtime.loading.pieces import Piece
    from cache_runtime.peers.cluster import Peers
    from cache_runtime.peers.placement import Member

    Routed = tuple[Piece, tuple[Ask, ...]]

_PER_LOOK = 4096


class Holders:
    """Routes pieces that are missing here, some thousand at a time.

    An owner asks the next candidates whether they have them, with one request each, before it goes to the origin: when
    it joined lately they do, and for a further replica the owner does. Who is not an owner has the owner fetch them, so
    that each byte leaves the origin once.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._calls = WorkerCalls(peers.connections)

    def route(self, pieces: Iterable[Piece]) -> Iterator[Routed]:
        """Yield pieces, in about their order, with the workers to ask before the origin."""
        batch: list[Piece] = []
        for piece in pieces:
            batch.append(piece)
            if len(batch) == _PER_LOOK:
                yield from self._route(batch)
                batch = []
        yield from self._route(batch)

    def _route(self, pieces: Sequence[Piece]) -> Iterator[Routed]:
        members, own = self._peers.members(), self._peers.own_name()
        depth = self._peers.replicas + PROBES + 1
        owned: list[tuple[Piece, list[Member]]] = []
        places = [(ref.id, group_of(ref, run.first)) for ref, run in pieces]
        for piece, ranked in zip(pieces, rank_many(members, places, depth), strict=True):
            others = [member for member in ranked if member.name != own]
            if not others:
                yield piece, ()
            elif self._peers.serves or ranked[0].name == own:
                owned.append((piece, others))
            else:
                yield piece, tuple(Ask(member, True) for member in others[:2])
        for number in range(PROBES):
            found = self._held([(piece, others[number : number + 1]) for piece, others in owned])
            yield from ((owned[index][0], (Ask(member, False),)) for index, member in found.items())
            owned = [row for index, row in enumerate(owned) if index not in found]
        yield from ((piece, ()) for piece, _ in owned)

    def _held(self, rows: Sequence[tuple[Piece, Sequence[Member]]]) -> dict[int, Member]:
        """Ask for each piece the one worker named; return by number who has all of it."""
        by_member: dict[Member, list[int]] = defaultdict(list)
        for index, (_, named) in enumerate(rows):
            for member in named:
                by_member[member].append(index)
        found: dict[int, Member] = {}
        for member, indexes in by_member.items():
            if not self._peers.may_ask(member):
                continue
            began = time.monotonic()
            try:
                missing = self._calls.missing(member, [rows[index][0] for index in indexes])
            except PeerError as error:
                self._peers.failed(member, error, began=began)
                continue
            self._peers.health.answered(member.name)
            found |= {index: member for index, blocks in zip(indexes, missing, strict=True) if not blocks}
        return found
