"""What a load says to workers: which pieces are missing, load these, how far are you, stop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cache_runtime.errors import PeerError
from cache_runtime.protocol import (
    LOAD_PATH,
    LOADS_PATH,
    MAX_PRESENT_PIECES,
    PRESENT_PATH,
    STATS_PATH,
    encode_pieces,
    parse_error,
    share_fields,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime.loading.pieces import Piece
    from cache_runtime.peers.connections import Connections
    from cache_runtime.peers.placement import Member
    from cache_runtime.store.shares import Share

_MAX_ANSWER_BYTES = 64 << 20
_STATUS_SECONDS = 5.0  # a worker that hangs must not keep the others waiting
_PRESENT_SECONDS = 10.0
_JSON = {"Content-Type": "application/json"}


class WorkerCalls:
    """JSON requests to workers, each tried once. For any number of threads.

    Every method raises `PeerError` if the worker does not answer, or not as it should; its `status` says which.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def missing(self, member: Member, pieces: Sequence[Piece]) -> list[list[int]]:
        """Return the blocks of each piece that a worker does not have."""
        found: list[list[int]] = []
        for start in range(0, len(pieces), MAX_PRESENT_PIECES):
            part = pieces[start : start + MAX_PRESENT_PIECES]
            answer = self._call(member, "POST", PRESENT_PATH, encode_pieces(part), idle_seconds=_PRESENT_SECONDS)
            try:
                told = answer.get("missing") or ()
                found += [_blocks_among(runs, piece) for runs, piece in zip(told, part, strict=True)]
            except (TypeError, ValueError) as error:
                raise PeerError(member.name, "told something else than what is missing") from error
        return found

    def submit(
        self, member: Member, load_id: str, pieces: Sequence[Piece], *, share: Share | None, seconds: float | None
    ) -> dict[str, Any]:
        """Have a worker load pieces, or find the load that has this id; return its status."""
        terms = {} if seconds is None else {"deadline_seconds": seconds}
        body = encode_pieces(pieces, id=load_id, **terms, **share_fields(share))
        return self._call(member, "POST", LOAD_PATH, body)

    def status(self, member: Member, load_id: str) -> dict[str, Any] | None:
        """Return the status of a load; None if the worker knows none with this id."""
        return self._find(member, "GET", load_id)

    def cancel(self, member: Member, load_id: str) -> dict[str, Any] | None:
        """Stop a load; as `status`."""
        return self._find(member, "DELETE", load_id)

    def store(self, member: Member) -> dict[str, Any]:
        """Return what a worker says of its store."""
        found = self._call(member, "GET", STATS_PATH).get("store")
        return found if isinstance(found, dict) else {}

    def _find(self, member: Member, method: str, load_id: str) -> dict[str, Any] | None:
        try:
            return self._call(member, method, f"{LOADS_PATH}/{quote(load_id)}", idle_seconds=_STATUS_SECONDS)
        except PeerError as error:
            if error.status == 404:
                return None
            raise

    def _call(
        self, member: Member, method: str, path: str, body: bytes = b"", *, idle_seconds: float | None = None
    ) -> dict[str, Any]:
        try:
            return self._ask(member, method, path, body, idle_seconds)
        except PeerError as error:
            if not error.is_stale:
                raise
        return self._ask(member, method, path, body, idle_seconds)  # the connection had been closed while it was idle

    def _ask(self, member: Member, method: str, path: str, body: bytes, idle_seconds: float | None) -> dict[str, Any]:
        headers = _JSON if body else None
        with self._connections.request(
            member, method, path, headers=headers, body=body, idle_seconds=idle_seconds
        ) as exchange:
            exchange.begin()
            if exchange.status not in (200, 202):
                after = exchange.header("Retry-After")
                raise PeerError(
                    member.name,
                    f"answered {exchange.status} {parse_error(exchange.read_error()).message}"[:500],
                    status=exchange.status,
                    retry_seconds=float(after) if after is not None and after.isdecimal() else None,
                )
            answer = exchange.read_rest(_MAX_ANSWER_BYTES)
        try:
            document = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise PeerError(member.name, "answered with something else than JSON") from error
        if not isinstance(document, dict):
            raise PeerError(member.name, "answered with something else than an object")
        return document


def _blocks_among(runs: list[tuple[int, int]], piece: Piece) -> list[int]:
    """Return the blocks of runs of a piece.

    Raises:
        TypeError, ValueError: If they are no runs, or others than the piece's.
    """
    first, last = piece[1]
    if any(not first <= start <= end <= last for start, end in runs):
        raise ValueError(f"runs outside of {first} to {last}")
    return [block for start, end in runs for block in range(start, end + 1)]
