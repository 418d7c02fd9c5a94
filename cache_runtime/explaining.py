"""Why a read is fast or slow: where the bytes of a location are, who owns them, and why they are not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache_runtime.peers.placement import GROUP_BLOCKS
from cache_runtime.peers.questions import has_range
from cache_runtime.store.layout import BLOCK_BYTES, BLOCK_SHIFT, SMALL_BYTES
from sources import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.peers.cluster import Peers
    from cache_runtime.store.ghosts import MissReason
    from cache_runtime.store.nodestore import NodeStore
    from sources import ObjectRef

_CANDIDATES = 3


@dataclass(frozen=True, slots=True)
class CandidateState:
    """A worker that may have some blocks, best candidate first.

    Attributes:
        name, url: The worker.
        is_self: Whether it is this node's.
        has_it: Whether it says that it has all of the range; None if it did not answer.
        left_alone: Whether this process does not ask it now, because it failed just before.
    """

    name: str
    url: str
    is_self: bool
    has_it: bool | None
    left_alone: bool


@dataclass(frozen=True, slots=True)
class GroupState:
    """The part of a location whose blocks are placed together.

    Attributes:
        offset, length: In the object, bytes.
        blocks: Numbers of its blocks; 0 for a small object.
        missing: Those that are not in this node's store.
        candidates: The owner and the next ones; empty without peers.
    """

    offset: int
    length: int
    blocks: tuple[int, ...]
    missing: tuple[int, ...]
    candidates: tuple[CandidateState, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where the bytes of a location are.

    Attributes:
        uri: The object.
        id: Its id, hexadecimal.
        version: Its version.
        cached: Whether this node has all of it.
        reason: Why not, as far as this node remembers; None if it has all, or has no store.
        store_off: Why this process does not use the store, None if it does.
        groups: Its parts.
    """

    uri: str
    id: str
    version: str
    cached: bool
    reason: MissReason | None
    store_off: str | None
    groups: tuple[GroupState, ...]


def explain(location: Location, store: NodeStore | None, peers: Peers | None) -> Explanation:
    """See `Client.explain`."""
    ref = location.object
    groups = tuple(_explain_group(part, store, peers) for part in _split(location))
    cached = store is not None and not any(group.missing for group in groups)
    return Explanation(
        uri=ref.uri,
        id=ref.id.hex(),
        version=ref.version,
        cached=cached,
        reason=None if store is None or cached else store.why_missing(ref),
        store_off=None if store is None else store.off_reason,
        groups=groups,
    )


def _explain_group(part: Location, store: NodeStore | None, peers: Peers | None) -> GroupState:
    ref = part.object
    blocks = _blocks(ref, part.offset, part.length)
    missing = tuple(blocks) if store is None else tuple(store.missing_blocks(ref, blocks))
    candidates = () if peers is None else tuple(_explain_candidates(part, peers, blocks[0], has_all=not missing))
    return GroupState(part.offset, part.length, tuple(blocks), missing, candidates)


def _explain_candidates(part: Location, peers: Peers, block: int, *, has_all: bool) -> Iterator[CandidateState]:
    own = peers.own_name()
    for member in peers.candidates(part.object, block, _CANDIDATES):
        is_self = member.name == own
        yield CandidateState(
            name=member.name,
            url=member.url,
            is_self=is_self,
            left_alone=peers.is_left_alone(member),
            has_it=has_all if is_self else has_range(peers, member, part),
        )


def _blocks(ref: ObjectRef, offset: int, length: int) -> range:
    if ref.size <= SMALL_BYTES:
        return range(1)
    return range(offset >> BLOCK_SHIFT, ((offset + max(1, length) - 1) >> BLOCK_SHIFT) + 1)


def _split(location: Location) -> Iterator[Location]:
    """Cut a location at the borders of the groups that are placed together."""
    step = GROUP_BLOCKS * BLOCK_BYTES
    offset, end = location.offset, location.offset + location.length
    while offset < end:
        stop = min(end, (offset // step + 1) * step)
        yield Location(location.object, offset, stop - offset)
        offset = stop
