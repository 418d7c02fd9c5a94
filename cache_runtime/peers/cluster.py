"""The cluster as one process sees it: members, who of them this node is, how they feel, connections to them."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from cache_runtime.errors import PeerError
from cache_runtime.peers.connections import Connections, Timeouts
from cache_runtime.peers.health import Health, Hedging, Probing
from cache_runtime.peers.placement import Member, Members, group_of, rank, rank_many
from cache_runtime.peers.presence import find_worker
from cache_runtime.peers.questions import hand_ranges
from cache_runtime.peers.routing import PROBES, Route, plan_route
from cache_runtime.peers.security import PeerSecurity
from cache_runtime.protocol import HEALTH_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime.peers.membership import Membership
    from cache_runtime.store.shares import Share
    from sources import Location, ObjectRef

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 2.0
_LEAVE_SECONDS = 120.0  # for so long a worker that is no member any more may still give its blocks away


class Peers:
    """The workers of a cluster, for a `Client`. For any number of threads; in children of a fork; pickles.

    Args:
        membership: Who they are.
        name: This node's name among them. None: that of the worker that serves `directory`, if one runs.
        directory: This node's (first) cache directory.
        serves: Whether the client is a worker's own. It acts as the owner of all that it is asked for: it never asks
            another worker to fill, so no two of them wait for each other.
        replicas: How many workers keep each block.
        join_seconds: For how long after the members changed, or this process started, an owner asks the next
            candidates before the origin. Each time costs a request of a millisecond before one of a hundred.
        security: Token and TLS.
        timeouts: For each request.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        name: str | None = None,
        directory: str | None = None,
        serves: bool = False,
        replicas: int = 1,
        join_seconds: float = 86_400.0,
        security: PeerSecurity | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.membership = membership
        self.serves = serves
        self.replicas = max(1, replicas)
        self.health = Health()
        self.hedging = Hedging()
        self.probing = Probing()
        self.security = security or PeerSecurity()
        self.connections = Connections(self.security, timeouts or Timeouts())
        self._name = name
        self._directory = directory
        self._join_seconds = join_seconds
        self._found: tuple[str, str] | None = None
        self._look_at = 0.0
        self._known = self._reach = Members()
        self._leavers: dict[str, tuple[Member, float]] = {}
        self._look_again_at = float("inf")
        self._changed_at = time.monotonic()

    def __reduce__(self) -> tuple[object, ...]:
        options = {
            "name": self._name,
            "directory": self._directory,
            "serves": self.serves,
            "replicas": self.replicas,
            "join_seconds": self._join_seconds,
            "security": self.security,
            "timeouts": self.connections.timeouts,
        }
        return _reopen, (self.membership, options)

    def members(self) -> Members:
        """Return the members now."""
        found = self.membership.members()
        now = time.monotonic()
        if found is not self._known:
            self._changed_at = now
            self.probing = Probing()
            self._note_leavers(found, now)
        elif now > self._look_again_at:
            self._note_leavers(found, now)
        return found

    def _note_leavers(self, found: Members, now: float) -> None:
        """Keep those that were members lately within reach: one that drains still gives its blocks away."""
        before = {member.name: (member, now + _LEAVE_SECONDS) for member in self._known}
        leavers = {
            name: (member, until)
            for name, (member, until) in {**before, **self._leavers}.items()
            if until > now and found.named(name) is None
        }
        self._look_again_at = min((until for _, until in leavers.values()), default=float("inf"))
        self._reach = Members([*found, *(member for member, _ in leavers.values())])
        self._leavers = leavers
        self._known = found

    def own_name(self) -> str | None:
        """Return this node's name among the members; None if it is none of them."""
        members = self.members()
        if self._name is not None:
            return self._name if members.named(self._name) is not None else None
        now = time.monotonic()
        if self._directory is not None and now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            worker = find_worker(self._directory)
            self._found = None if worker is None else (worker.name, worker.url)
        if self._found is None:
            return None
        name, url = self._found
        if members.named(name) is not None:
            return name
        # members found by DNS are named by their addresses
        return next((member.name for member in members if member.url == url), None)

    def route(self, ref: ObjectRef, block: int, *, share: str = "") -> Route:
        """Plan whom to ask for a block and its group before the origin, on behalf of a share."""
        self.members()
        return self._plan(rank(self._reach, ref.id, group_of(ref, block), self._depth()), share)

    def routes(self, wanted: Sequence[tuple[ObjectRef, int]], *, share: str = "") -> list[Route]:
        """Plan for many objects and blocks."""
        self.members()
        ranked = rank_many(self._reach, [(ref.id, group_of(ref, block)) for ref, block in wanted], self._depth())
        return [self._plan(candidates, share) for candidates in ranked]

    def candidates(self, ref: ObjectRef, block: int, count: int) -> list[Member]:
        """Return the best members for a block, healthy or not, this node among them."""
        return rank(self.members(), ref.id, group_of(ref, block), count)

    def next_for(self, ref: ObjectRef, group: int) -> str | None:
        """Return the name of the first candidate for a group of blocks that is not this node; None if it is alone."""
        own = self._name or self.own_name()
        ranked = rank(self.members(), ref.id, group, 2)
        return next((member.name for member in ranked if member.name != own), None)

    def hand(self, name: str, items: Sequence[Location], *, share: Share, seconds: float) -> int:
        """Have a worker get and keep some ranges of at most one batch, and wait for it, at most so long.

        Returns:
            Bytes that it has now.

        Raises:
            PeerError: If it cannot be asked; what it got stays there.
        """
        member = self.members().named(name)
        if member is None:
            raise PeerError(name, "is no member any more")
        return hand_ranges(self, member, items, share=share, seconds=seconds)

    def may_ask(self, member: Member) -> bool:
        """Say whether a worker may be asked now; see `Health.may_ask`.

        One that failed is asked first whether it lives: that is a matter of seconds where a read waits for longer.
        """
        if self.health.is_well(member.name):
            return True
        if not self.health.may_ask(member.name, now=time.monotonic()):
            return False
        if self.is_alive(member):
            return True
        self.failed(member, PeerError(member.name, "still does not answer"), began=time.monotonic())
        return False

    def is_alive(self, member: Member) -> bool:
        """Ask a worker whether it lives."""
        seconds = self.connections.timeouts.probe_seconds
        try:
            with self.connections.request(member, "GET", HEALTH_PATH, idle_seconds=seconds) as exchange:
                exchange.begin()
                exchange.read_error()
                return exchange.status == 200
        except PeerError:
            return False

    def is_left_alone(self, member: Member) -> bool:
        """Say whether a worker failed lately."""
        return self.health.is_left_alone(member.name, now=time.monotonic())

    def failed(self, member: Member, error: PeerError, *, began: float) -> None:
        """Leave a worker alone for a while, because of a request that began at `began` (monotonic seconds)."""
        seconds = self.health.failed(
            member.name,
            began=began,
            now=time.monotonic(),
            jitter=random.random(),
            retry_seconds=error.retry_seconds,
        )
        if seconds:
            _log.warning("worker left alone for %.1f s: %s", seconds, error)

    def close(self) -> None:
        """Close idle connections; the next request opens its own."""
        self.connections.close()

    def _depth(self) -> int:
        return self.replicas + PROBES + 1 + len(self._leavers)

    def _plan(self, ranked: Sequence[Member], share: str) -> Route:
        lately = time.monotonic() - self._changed_at < self._join_seconds
        return plan_route(
            ranked,
            own=self.own_name(),
            serves=self.serves,
            replicas=self.replicas,
            probes=lately and self.probing.wants(share),
            gone=self._leavers,
            turn=random.randrange(self.replicas) if self.replicas > 1 else 0,
        )


def _reopen(membership: Membership, options: dict[str, object]) -> Peers:
    return Peers(membership, **options)  # type: ignore[arg-type] # as they were given
