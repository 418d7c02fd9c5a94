"""One worker's part of a distributed load: chunks of pieces that it was given, and how far it is with them."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cache_runtime.errors import PeerError
from cache_runtime.loading.pieces import piece_bytes
from cache_runtime.protocol import LOAD_ENDED

if TYPE_CHECKING:
    from cache_runtime.loading.pieces import Piece
    from cache_runtime.loading.workers import WorkerCalls
    from cache_runtime.peers.placement import Member
    from cache_runtime.store.shares import Share

_log = logging.getLogger(__name__)
CHUNK_PIECES = 5000
CHUNK_BYTES = 8 << 30
AHEAD = 2  # a worker that ends one has the next one already
_DEAD_SECONDS = 6.0
_BUSY = frozenset({429})


@dataclass(slots=True)
class Chunk:
    """Some pieces given to a worker as one load.

    Attributes:
        id: The load's.
        pieces: What is in it.
        counts: What the worker told last: `done_bytes`, `done_objects`, `fetched_bytes`, `peer_bytes`.
    """

    id: str
    pieces: tuple[Piece, ...]
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """A chunk's end: what the worker says could not be had, `{uri, kind, reason}` each."""

    chunk: Chunk
    failures: list[dict[str, Any]]


class Lane:
    """Gives one worker its chunks. One thread at a time.

    Args:
        member: The worker.
        calls: How to talk to it.
        load_id: Begins the ids of its loads.
        share: Whose the bytes are.

    Attributes:
        is_dead: It did not answer for 6 seconds, or refuses loads; what it had not finished is in `take_rest`.
        reason: Why.
        flying: Chunks that it is working on.
    """

    def __init__(self, member: Member, calls: WorkerCalls, *, load_id: str, share: Share | None) -> None:
        self.member = member
        self.is_dead = False
        self.reason = ""
        self._calls = calls
        self._load_id = load_id
        self._share = share
        self._numbers = itertools.count()
        self._open: list[Piece] = []
        self._open_bytes = 0
        self._waiting: list[Chunk] = []
        self.flying: list[Chunk] = []
        self._silent_since: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether all that it was given is done."""
        return not (self._open or self._waiting or self.flying)

    @property
    def is_full(self) -> bool:
        """Whether it has enough to do for now."""
        return len(self._waiting) + len(self.flying) >= 2 * AHEAD

    def add(self, piece: Piece) -> None:
        """Give it a piece."""
        self._open.append(piece)
        self._open_bytes += piece_bytes(piece)
        if len(self._open) >= CHUNK_PIECES or self._open_bytes >= CHUNK_BYTES:
            self.close_chunk()

    def close_chunk(self) -> None:
        """Begin another chunk: no more pieces come for now."""
        if self._open:
            self._waiting.append(Chunk(f"{self._load_id}.{next(self._numbers)}", tuple(self._open)))
            self._open, self._open_bytes = [], 0

    def step(self, seconds: float | None) -> list[Finished]:
        """Ask how far it is, and send what it has room for; return what ended. Blocks for some requests.

        Args:
            seconds: Until the load's deadline.
        """
        finished: list[Finished] = []
        began = time.monotonic()
        try:
            for chunk in list(self.flying):
                end = self._poll(chunk, seconds)
                if end is not None:
                    self.flying.remove(chunk)
                    finished.append(end)
            while self._waiting and len(self.flying) < AHEAD:
                chunk = self._waiting[0]
                self._calls.submit(self.member, chunk.id, chunk.pieces, share=self._share, seconds=seconds)
                self.flying.append(self._waiting.pop(0))
            self._silent_since = None
        except PeerError as error:
            self._note_failure(error, began)
        return finished

    def cancel(self) -> None:
        """Stop what it is doing, if it answers."""
        for chunk in self.flying:
            try:
                self._calls.cancel(self.member, chunk.id)
            except PeerError as error:
                _log.warning("load not cancelled id=%s reason=%s", chunk.id, error)
                return

    def take_rest(self) -> list[Chunk]:
        """Take back what is not finished; a dead worker's chunks were perhaps done in part."""
        self.close_chunk()
        rest = self.flying + self._waiting
        self.flying, self._waiting = [], []
        return rest

    def _poll(self, chunk: Chunk, seconds: float | None) -> Finished | None:
        status = self._calls.status(self.member, chunk.id)
        if status is None:  # it was restarted: the same id again is no second load
            self._calls.submit(self.member, chunk.id, chunk.pieces, share=self._share, seconds=seconds)
            return None
        chunk.counts = {name: value for name, value in status.items() if type(value) is int}
        if status.get("state") not in LOAD_ENDED:
            return None
        failures = status.get("failures")
        return Finished(chunk, [row for row in failures if isinstance(row, dict)] if failures else [])

    def _note_failure(self, error: PeerError, began: float) -> None:
        if error.status in _BUSY:
            return
        self._silent_since = self._silent_since or began
        if error.status or time.monotonic() - self._silent_since >= _DEAD_SECONDS:  # an answer, and it is no
            self.is_dead, self.reason = True, str(error)
            _log.warning("load goes on without a worker: %s", error)
