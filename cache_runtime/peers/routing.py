"""Whom to ask for a block, in which order: a pure plan from its candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cache_runtime.peers.placement import Member

PROBES = 2
"""Most next candidates that an owner asks whether they have a block, before it goes to the origin."""


class Ask(NamedTuple):
    """One step: ask this worker, and whether it is to get what it does not have."""

    member: Member
    fill: bool


class Route(NamedTuple):
    """The steps before the origin.

    Attributes:
        asks: In their order.
        guest: Whether this node's copy is one of a block that other workers are there to keep.
        owner: The block's first candidate, None without members.
    """

    asks: tuple[Ask, ...]
    guest: bool
    owner: Member | None


def plan_route(
    ranked: Sequence[Member],
    *,
    own: str | None,
    serves: bool,
    replicas: int,
    probes: bool,
    turn: int,
    gone: Collection[str] = (),
) -> Route:
    """Plan the steps for a block.

    An owner asks nobody to fill, only whether others have the block: a request that makes a worker fetch never leads to
    another such request, so workers that disagree about the members cannot send one in circles, and the origin is asked
    by one of them. A worker acts as the owner of whatever it is asked for.

    Args:
        ranked: The block's candidates, best first: at least `replicas + PROBES + 1`, or all; those gone among them.
        own: This node's name among the members, None if it is none of them.
        serves: Whether this is the worker itself, which fetches for others.
        replicas: How many of the candidates keep the block.
        probes: Whether the members changed so lately that a next candidate may have what this owner does not.
        turn: Any number, to spread readers over the replicas.
        gone: Names of those that were members lately. One that drains still has its blocks, and gives them to their new
            owners; nobody else asks it.
    """
    here = [member for member in ranked if member.name not in gone]
    names = [member.name for member in here]
    place = names.index(own) if own in names else None
    owner = here[0] if here else None
    if serves or place == 0:
        # someone asked a worker that is not the owner: the owner is gone, or has it
        likely = probes or place != 0 or replicas > 1
        others = [member for member in ranked if member.name != own]
        return Route(tuple(Ask(member, False) for member in others[:PROBES] if likely), False, owner)
    others = [member for member in here if member.name != own]
    kept = place is not None and place < replicas
    asks = [Ask(member, True) for member in others[:2]]
    first = turn % min(replicas, max(1, len(others)))
    if first and not kept:
        asks.insert(0, Ask(others[first], False))
    return Route(tuple(asks), own is not None and not kept, owner)
