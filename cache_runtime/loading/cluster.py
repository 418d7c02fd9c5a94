"""Who of a cluster holds what, as the workers themselves say."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from cache_runtime.errors import MembershipError, PeerError
from cache_runtime.loading.pieces import WHOLE, blocks_of, cost_bytes, is_small
from cache_runtime.loading.workers import WorkerCalls
from cache_runtime.peers.placement import GROUP_BLOCKS, Members, group_of, rank_many
from cache_runtime.store.layout import BlockRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cache_runtime.loading.pieces import Piece
    from cache_runtime.loading.survey import Wanted
    from cache_runtime.peers.cluster import Peers
    from cache_runtime.peers.placement import Member
    from sources import ObjectRef
_TRIES = 3
_WAIT_SECONDS = 0.5
_MAX_WAIT_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Holdings:
    """The workers at the start of a load; one that does not answer is out until its end.

    Attributes:
        calls: Requests to workers.
        members: Those that are not out.
        have_bytes: By name, what `look` found there, about.

    Raises:
        MembershipError: If there are none.
    """

    def __init__(self, peers: Peers) -> None:
        self.calls = WorkerCalls(peers.connections)
        self.members = peers.members()
        self._lock = threading.Lock()
        self.have_bytes: Counter[str] = Counter()
        self._out: set[str] = set()
        if not self.members:
            raise MembershipError("there are no workers to load into")

    @property
    def has_lost(self) -> bool:
        """Whether a worker did not answer."""
        return bool(self._out)

    def drop(self, member: Member) -> None:
        """Go on without a worker."""
        with self._lock:
            self._out.add(member.name)
            self.members = Members(one for one in self.members if one.name not in self._out)

    def homes(self, pieces: Sequence[Piece], place: int) -> list[Member | None]:
        """Return for each piece the worker at a place of its candidates: 0 is the owner; None where there is none."""
        places = [(ref.id, group_of(ref, run.first)) for ref, run in pieces]
        ranked = rank_many(self.members, places, place + 1)
        return [row[place] if len(row) > place else None for row in ranked]

    def look(self, wanted: Wanted, place: int) -> list[list[int]]:
        """Ask the workers at a place which blocks they do not have; all of one that is out counts as missing."""
        parts = [part for number, (ref, blocks) in enumerate(wanted) for part in _by_group(number, ref, blocks)]
        homes = self.homes([piece for _, piece in parts], place)
        by_home: dict[Member, list[tuple[int, Piece]]] = defaultdict(list)
        missing: list[list[int]] = [[] for _ in wanted]
        wanted_blocks = [set(blocks) for _, blocks in wanted]
        for part, home in zip(parts, homes, strict=True):
            if home is not None:
                by_home[home].append(part)
            else:  # there were more workers once
                number = part[0]
                missing[number] += [block for block in blocks_of(part[1]) if block in wanted_blocks[number]]
        for home, asked in by_home.items():
            try:
                found = self._missing_at(home, [piece for _, piece in asked])
            except PeerError as error:
                _log.warning("load goes on without a worker: %s", error)
                self.drop(home)
                found = [list(range(run.first, run.last + 1)) for _, (_, run) in asked]
            for (number, (ref, run)), blocks in zip(asked, found, strict=True):
                missing[number] += [block for block in blocks if block in wanted_blocks[number]]
                if not blocks:
                    self.have_bytes[home.name] += cost_bytes((ref, run))
        return [sorted(blocks) for blocks in missing]

    def _missing_at(self, home: Member, pieces: Sequence[Piece]) -> list[list[int]]:
        for _ in range(_TRIES - 1):
            began = time.monotonic()
            try:
                return self.calls.missing(home, pieces)
            except PeerError as error:
                if error.status not in (0, 429) or time.monotonic() - began > _MAX_WAIT_SECONDS:
                    raise  # one that hangs will do so again
                time.sleep(min(_MAX_WAIT_SECONDS, error.retry_seconds or _WAIT_SECONDS))
        return self.calls.missing(home, pieces)


def _by_group(number: int, ref: ObjectRef, blocks: Sequence[int]) -> Iterator[tuple[int, Piece]]:
    """Yield the span of an object's blocks in each group of placement."""
    if is_small(ref):
        yield number, (ref, WHOLE)
        return
    start = 0
    while start < len(blocks):
        end = start + 1
        while end < len(blocks) and blocks[end] // GROUP_BLOCKS == blocks[start] // GROUP_BLOCKS:
            end += 1
        yield number, (ref, BlockRun(blocks[start], blocks[end - 1]))
        start = end
