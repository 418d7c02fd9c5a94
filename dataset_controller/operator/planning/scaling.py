"""How many workers a cache should have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dataset_controller.runtime_model import CacheRuntime

_PERCENT = 100


@dataclass(frozen=True)
class Use:
    """What one dataset wants of a cache.

    Attributes:
        size_bytes: Of its version; None while nobody knows.
        replicas: How many workers keep each block.
        quota_bytes: Most bytes on each worker.
    """

    size_bytes: int | None
    replicas: int = 1
    quota_bytes: int | None = None


@dataclass(frozen=True)
class Scaling:
    """A decision.

    Attributes:
        replicas: How many workers there should be now.
        enough: How many would be enough.
        until: When fewer will have been enough for long enough; None if that is not awaited.
    """

    replicas: int
    enough: int
    until: datetime | None = None


def enough_workers(runtime: CacheRuntime, uses: Sequence[Use]) -> int | None:
    """Return how many workers hold all datasets below the target, within the declared range.

    None while the size of a dataset is unknown, and the known ones alone do not ask for more than there are.
    """
    auto = runtime.spec.autoscale
    assert auto is not None
    room = sum(tier.capacity for tier in runtime.spec.tiers) * auto.target_used_percent / _PERCENT
    if room <= 0:
        return None
    for count in range(auto.min_replicas, auto.max_replicas):
        if sum(_wanted(use, count) for use in uses) <= room * count:
            found = count
            break
    else:
        found = auto.max_replicas
    is_known = all(use.size_bytes is not None for use in uses)
    return found if is_known or found > runtime.spec.replicas else None


def _wanted(use: Use, workers: int) -> int:
    whole = (use.size_bytes or 0) * min(use.replicas, workers)
    return whole if use.quota_bytes is None else min(whole, use.quota_bytes * workers)


def decide(runtime: CacheRuntime, uses: Sequence[Use], fewer_since: datetime | None, now: datetime) -> Scaling:
    """Decide how many workers a cache should have: more at once, fewer when they have been enough for a while.

    Args:
        runtime: It declares `autoscale`.
        uses: Of its datasets.
        fewer_since: Since when fewer are known to be enough; None if that is new or not so.
        now: With a time zone.
    """
    auto = runtime.spec.autoscale
    assert auto is not None
    current = runtime.spec.replicas
    within = min(max(current, auto.min_replicas), auto.max_replicas)
    enough = enough_workers(runtime, uses)
    if enough is None:
        return Scaling(within, within)
    if enough >= within:
        return Scaling(enough, enough)
    until = (fewer_since or now) + timedelta(seconds=math.ceil(auto.stabilisation))
    return Scaling(enough, enough) if until <= now else Scaling(within, enough, until)
