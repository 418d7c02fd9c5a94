"""A load into this node's store: fetch what is missing, then look whether all of it is there."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from cache_runtime.loading.fetching import Fetcher
from cache_runtime.loading.holders import Holders
from cache_runtime.loading.losses import Losses
from cache_runtime.loading.pieces import (
    RECORD_COST_BYTES,
    from_origin,
    group_limit,
    group_pieces,
    is_small,
    single_pieces,
)
from cache_runtime.loading.progress import LoadFailure
from cache_runtime.loading.rates import remember_rate
from cache_runtime.loading.room import Room, room_for, store_of
from cache_runtime.loading.stopping import Stopper
from cache_runtime.loading.survey import Survey
from cache_runtime.loading.tally import Tally

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from cache_runtime.client import Client
    from cache_runtime.loading.pieces import Piece
    from cache_runtime.loading.plan import LoadPlan
    from cache_runtime.loading.progress import LoadProgress, LoadReport
    from cache_runtime.peers.routing import Ask
    from cache_runtime.store.shares import Share
    from sources import ObjectRef


def run_load(
    client: Client,
    plan: LoadPlan,
    *,
    on_progress: Callable[[LoadProgress], None] | None = None,
    concurrency: int = 16,
    share: Share | None = None,
    deadline_seconds: float | None = None,
    cancel: threading.Event | None = None,
    busy: Callable[[], bool] | None = None,
) -> LoadReport:
    """Fetch what a plan misses, then look whether all of the plan is there.

    Run it again to go on after an interruption or failures: what was fetched stays. A failing object does not stop the
    others; a failing cache disk stops the load, and an origin that is down stops what is to come from it. Ctrl-C waits
    only for the objects that are being read.

    Args:
        client: Reads the origins and fills its store.
        plan: From `plan_load` with the same client's store.
        on_progress: Called by this thread, at most ten times a second, and at the end.
        concurrency: Fetches at a time; of large objects at most 16.
        share: Whose the bytes will be, with its priority.
        deadline_seconds: The load ends after so long, and names what is not there.
        cancel: The same when it is set.
        busy: Says whether reads that should go first are under way.

    Raises:
        CacheOffError: If the client has no store.
    """
    load = _Load(client, plan, share=share, tally=Tally(plan, on_progress))
    stopper = Stopper(deadline_seconds=deadline_seconds, cancel=cancel)
    fetcher = Fetcher(client, load.store, share=share, tally=load.tally, stopper=stopper, busy=busy)
    limit = group_limit(plan.fetch_objects, concurrency)
    fetcher.run(group_pieces(load.routed(load.planned()), limit=limit), concurrency)

    def known_reason(ref: ObjectRef) -> LoadFailure | None:
        reason = fetcher.reason_against(ref)
        return load.tally.failures.get(ref.id) or (None if reason is None else LoadFailure(ref.uri, *reason))

    losses = Losses(known_reason, load.room.__contains__)
    fetcher.run(single_pieces(load.routed(losses.sort(load.missing()))), concurrency, patient=True)
    if losses.retries or losses.is_partial:
        losses = Losses(known_reason, load.room.__contains__)
        losses.count(load.missing())
    remember_rate(load.store.directory, load.tally.fetched_bytes, load.tally.seconds)
    return load.tally.report(losses, [load.room], stopper.reason)


class _Load:
    """One run's plan and counters."""

    def __init__(self, client: Client, plan: LoadPlan, *, share: Share | None, tally: Tally) -> None:
        self.store = store_of(client)
        self.tally = tally
        used = plan.present_bytes + plan.present_objects * RECORD_COST_BYTES
        self.room = Room(None if plan.fits else min(plan.room_bytes, room_for(self.store, share)), used)
        self._plan = plan
        self._holders = None if client.peers is None else Holders(client.peers)

    def missing(self) -> Iterator[Piece]:
        """Go through the plan's locations, marking what is there as read, so that the evictor passes over it."""
        return Survey(self.store.missing_among, touch=self.store.touch).missing(self._plan.locations)

    def planned(self) -> Iterator[Piece]:
        """Yield what is missing and has room."""
        for ref, pieces in groupby(self.missing(), itemgetter(0)):
            admitted = [piece for piece in pieces if self.room.admit(piece)]
            if admitted and not is_small(ref):
                self.tally.expect(ref, len(admitted))  # all at once: some may be there before the next is asked for
            yield from admitted

    def routed(self, pieces: Iterator[Piece]) -> Iterator[tuple[Piece, tuple[Ask, ...]]]:
        """Say whom to ask for each piece."""
        return from_origin(pieces) if self._holders is None else self._holders.route(pieces)
