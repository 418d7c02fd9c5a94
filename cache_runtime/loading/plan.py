"""What a load would do, before it does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache_runtime.loading.pieces import cost_bytes
from cache_runtime.loading.rates import known_rate
from cache_runtime.loading.room import room_for, store_of, used_bytes
from cache_runtime.loading.survey import Survey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache_runtime.client import Client
    from cache_runtime.store.shares import Share
    from sources import Location


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What has to be fetched for all of some locations to be cached.

    Attributes:
        total_objects: Distinct objects.
        total_bytes: Bytes to be cached: whole small objects, and the blocks of large ones that the locations touch.
        present_objects: Objects of which nothing is missing.
        present_bytes: Bytes that are there.
        fits: Whether all of it fits into the capacity at once.
        room_bytes: What does fit.
        locations: What it was made of, to be gone through again by the load.
        copies_bytes: Bytes to fetch from other workers: further replicas of what was fetched from the origins.
        evict_bytes: About how much other data will have to go.
        bytes_per_second: Pace to expect, None where none is known.
        replicas: Copies that are to be in a cluster; each counts in all the numbers above.
    """

    total_objects: int
    total_bytes: int
    present_objects: int
    present_bytes: int
    fits: bool
    room_bytes: int
    locations: Iterable[Location]
    copies_bytes: int = 0
    evict_bytes: int = 0
    bytes_per_second: float | None = None
    replicas: int = 1

    @property
    def fetch_objects(self) -> int:
        """Objects of which something is missing."""
        return self.total_objects - self.present_objects

    @property
    def fetch_bytes(self) -> int:
        """Bytes to fetch, from origins and from other workers."""
        return self.total_bytes - self.present_bytes

    @property
    def origin_bytes(self) -> int:
        """Bytes to fetch from origins."""
        return self.fetch_bytes - self.copies_bytes

    @property
    def estimated_seconds(self) -> float | None:
        """How long it will take; None where no pace is known."""
        if self.fetch_bytes == 0:
            return 0.0
        return self.fetch_bytes / self.bytes_per_second if self.bytes_per_second else None


def plan_load(
    client: Client,
    locations: Iterable[Location],
    *,
    share: Share | None = None,
    bytes_per_second: float | None = None,
) -> LoadPlan:
    """Find out what is missing; reads the index and fetches nothing.

    Args:
        client: Its store is asked.
        locations: Any order, repetitions allowed; empty ones need nothing. What can be iterated again is not kept in
            memory and iterated again by the load; what an iterator yields is kept.
        share: Whose the bytes will be; its quota is a limit, too.
        bytes_per_second: Pace to expect; default: that of the last load into this store.

    Raises:
        CacheOffError: If the client has no store.
    """
    store = store_of(client)
    if iter(locations) is locations:
        locations = list(locations)
    survey = Survey(store.missing_among)
    cost = sum(cost_bytes(piece) for piece in survey.missing(locations))
    room = room_for(store, share)
    return LoadPlan(
        total_objects=survey.objects,
        total_bytes=survey.bytes,
        present_objects=survey.present_objects,
        present_bytes=survey.present_bytes,
        fits=survey.cost_bytes <= room,
        room_bytes=room,
        locations=locations,
        evict_bytes=max(0, used_bytes(store) + min(cost, room) - store.capacity_bytes),
        bytes_per_second=bytes_per_second or known_rate(store.directory),
    )
