"""Small questions to one worker: whether it has something, whether it takes something over, why it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.errors import PeerError, ProtocolError
from cache_runtime.protocol import (
    BATCH_HEADER,
    BATCH_PATH,
    encode_batch,
    format_range,
    object_target,
    parse_error,
    split_batch,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime.peers.cluster import Peers
    from cache_runtime.peers.exchange import Exchange
    from cache_runtime.peers.placement import Member
    from cache_runtime.store.shares import Share
    from sources import Location

ERROR_BYTES = 4096
"""Most bytes of an error of one item of a batch."""


def has_range(peers: Peers, member: Member, location: Location) -> bool | None:
    """Ask one worker whether it has a range in its store; None if it does not answer."""
    headers = {"Range": format_range(location.offset, location.length)}
    target = object_target(location.object, fill=False)
    try:
        seconds = peers.connections.timeouts.probe_seconds
        with peers.connections.request(member, "HEAD", target, headers=headers, idle_seconds=seconds) as exchange:
            exchange.begin()
            return {200: True, 206: True, 404: False}.get(exchange.status)
    except PeerError:
        return None


def hand_ranges(peers: Peers, member: Member, items: Sequence[Location], *, share: Share, seconds: float) -> int:
    """See `Peers.hand`."""
    body = encode_batch(items, fill=True, bodies=False, share=share)
    headers = {"Content-Type": "application/json"}
    limit = len(items) * (BATCH_HEADER.size + ERROR_BYTES)
    with peers.connections.request(
        member, "POST", BATCH_PATH, headers=headers, body=body, idle_seconds=max(0.1, seconds)
    ) as exchange:
        exchange.begin()
        if exchange.status != 200:
            raise refusal_of(exchange)
        try:
            answers = list(split_batch(exchange.read_rest(limit), items, bodies=False))
        except ProtocolError as error:
            raise PeerError(member.name, str(error)) from error
    return sum(item.length for item, answer in zip(items, answers, strict=True) if answer.error is None)


def refusal_of(exchange: Exchange) -> PeerError:
    """Return what a refusal says."""
    failure = parse_error(exchange.read_error())
    after = exchange.header("Retry-After")
    return PeerError(
        exchange.member.name,
        f"answered {exchange.status} {failure.kind}: {failure.message}"[:500],
        status=exchange.status,
        failure=failure.kind,
        retry_seconds=float(after) if after is not None and after.isdecimal() else None,
    )
