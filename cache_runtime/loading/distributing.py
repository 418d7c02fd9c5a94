"""A load into the workers of a cluster: each piece to its owner, which fetches it once; copies come from there."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from cache_runtime.errors import PeerError
from cache_runtime.loading.cluster import Holdings
from cache_runtime.loading.lanes import Lane
from cache_runtime.loading.losses import Losses
from cache_runtime.loading.pieces import cost_bytes, piece_bytes
from cache_runtime.loading.plan import LoadPlan
from cache_runtime.loading.progress import LoadFailure, LoadStop
from cache_runtime.loading.room import Room
from cache_runtime.loading.stopping import Stopper, tell_stop
from cache_runtime.loading.survey import Survey
from cache_runtime.loading.tally import Tally

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cache_runtime.loading.lanes import Finished
    from cache_runtime.loading.pieces import Piece
    from cache_runtime.loading.progress import LoadProgress, LoadReport
    from cache_runtime.peers.cluster import Peers
    from cache_runtime.store.shares import Share
    from sources import Location, ObjectRef

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_FIRST_POLL_SECONDS = 0.02
_THREADS = 16
_PER_STEP = 4096
_ROUNDS = 3  # a worker that dies takes along what it had loaded
_PASSING = frozenset({"lost", "cache_full", "cache_off", *LoadStop})  # said by one worker; another round may help


def plan_distributed(
    peers: Peers,
    locations: Iterable[Location],
    *,
    replicas: int = 1,
    share: Share | None = None,
    bytes_per_second: float | None = None,
) -> LoadPlan:
    """Find out what is missing in the stores of a cluster's workers, by asking them; fetches nothing.

    Every copy counts, in all numbers of the plan.

    Args:
        peers: The workers.
        locations: As for `plan_load`.
        replicas: How many workers are to have each block.
        share: Whose the bytes will be; its quota is a limit of each worker, too.
        bytes_per_second: Pace to expect, of all workers together.

    Raises:
        MembershipError: If there are no workers.
    """
    if iter(locations) is locations:
        locations = list(locations)
    holdings = Holdings(peers)
    need: Counter[str] = Counter()
    objects = total = present_objects = present = copies = 0
    for place in range(min(replicas, len(holdings.members))):
        survey = Survey(partial(holdings.look, place=place))
        for batch in _batches(survey.missing(locations)):
            for piece, home in zip(batch, holdings.homes(batch, place), strict=True):
                if home is not None:
                    need[home.name] += cost_bytes(piece)
                    copies += piece_bytes(piece) if place else 0
        objects, total = objects + survey.objects, total + survey.bytes
        present_objects, present = present_objects + survey.present_objects, present + survey.present_bytes
    rooms, evicted = _rooms(holdings, need, share)
    return LoadPlan(
        total_objects=objects,
        total_bytes=total,
        present_objects=present_objects,
        present_bytes=present,
        fits=all(need[name] + holdings.have_bytes[name] <= room for name, room in rooms.items()),
        room_bytes=sum(rooms.values()),
        locations=locations,
        copies_bytes=copies,
        evict_bytes=evicted,
        bytes_per_second=bytes_per_second,
        replicas=replicas,
    )


def run_distributed(
    peers: Peers,
    plan: LoadPlan,
    *,
    on_progress: Callable[[LoadProgress], None] | None = None,
    share: Share | None = None,
    deadline_seconds: float | None = None,
    cancel: threading.Event | None = None,
) -> LoadReport:
    """Have the workers fetch what a plan misses, then ask them whether all of it is there.

    Each block is fetched from the origin by its owner, once; further replicas come from there. What a worker that died
    had to do goes to the next candidates. Run it again to go on after an interruption; a load that is interrupted is
    cancelled at the workers, as far as they answer, and what they had fetched stays.

    Args:
        peers: The workers.
        plan: From `plan_distributed`.
        on_progress: As for `run_load`.
        share: As for `run_load`.
        deadline_seconds: As for `run_load`.
        cancel: As for `run_load`.

    Raises:
        MembershipError: If there are no workers.
    """
    stopper = Stopper(deadline_seconds=deadline_seconds, cancel=cancel)
    load = _Distribution(peers, plan, share=share, tally=Tally(plan, on_progress), stopper=stopper)
    losses = load.losses()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="forebay-lanes") as pool:
        for number in range(_ROUNDS):
            losses = load.losses()
            for place in load.places:
                missing = load.missing(place)
                load.distribute(load.admitted(missing, place) if number == 0 else losses.sort(missing), place, pool)
            if stopper.reason is not None or (number > 0 and losses.retries == 0):
                break
    if losses.retries or losses.is_partial:
        losses = load.losses()
        for place in load.places:
            losses.count(load.missing(place))
    return load.tally.report(losses, list(load.rooms.values()), stopper.reason)


class _Distribution:
    """One load: a lane for each worker."""

    def __init__(self, peers: Peers, plan: LoadPlan, *, share: Share | None, tally: Tally, stopper: Stopper) -> None:
        self.tally = tally
        self._holdings = Holdings(peers)
        self._plan = plan
        self._share = share
        self._stopper = stopper
        self._load_id = secrets.token_hex(8)
        self._lanes: dict[str, Lane] = {}
        self._steps: list[Future[list[Finished]]] = []
        self.places = range(min(plan.replicas, len(self._holdings.members)))
        self.rooms = {} if plan.fits else self._measure()

    def missing(self, place: int) -> Iterator[Piece]:
        """Ask the workers at a place of the candidates for what they do not have."""
        return Survey(partial(self._holdings.look, place=place)).missing(self._plan.locations)

    def admitted(self, pieces: Iterator[Piece], place: int) -> Iterator[Piece]:
        """Leave out what its worker has no room for."""
        for batch in _batches(pieces):
            for piece, home in zip(batch, self._holdings.homes(batch, place), strict=True):
                room = None if home is None else self.rooms.get(home.name)
                if room is None or room.admit(piece):
                    yield piece

    def _measure(self) -> dict[str, Room]:
        """Ask each worker how much room it has beside what it has of the plan already."""
        for place in self.places:
            for _ in self.missing(place):
                pass
        limits, _ = _rooms(self._holdings, Counter(), self._share)
        return {name: Room(room, self._holdings.have_bytes[name]) for name, room in limits.items()}

    def losses(self) -> Losses:
        """Begin a pass over what is missing."""
        return Losses(self._known_reason, lambda object_id: any(object_id in room for room in self.rooms.values()))

    def distribute(self, pieces: Iterator[Piece], place: int, pool: ThreadPoolExecutor) -> None:
        """Give pieces to the workers at a place of their candidates, until they have done them or the load is over."""
        exhausted, pause = False, _FIRST_POLL_SECONDS
        try:
            while self._stopper.reason is None and self._holdings.members:
                while not exhausted and not any(lane.is_full for lane in self._live()):
                    batch = list(islice(pieces, _PER_STEP))
                    self._give(batch, place)
                    exhausted = not batch
                if exhausted:
                    self._close_chunks()
                self._steps = [pool.submit(lane.step, self._stopper.left_seconds) for lane in self._live()]
                for step in self._steps:
                    for end in step.result():
                        self._finish(end)
                self._replace_dead(place)
                self._note_progress()
                if exhausted and all(lane.is_idle for lane in self._live()):
                    return
                self._stopper.pause(pause)
                pause = min(_POLL_SECONDS, pause * 1.5)
        finally:
            wait(self._steps)  # one of them may be sending a load just now
            for lane in self._live():
                if not lane.is_idle:
                    lane.cancel()
                    lane.take_rest()

    def _give(self, pieces: Sequence[Piece], place: int) -> None:
        for piece, home in zip(pieces, self._holdings.homes(pieces, place), strict=True):
            if home is not None:
                lane = self._lanes.get(home.name)
                if lane is None:
                    load_id = f"{self._load_id}.{len(self._lanes)}"
                    lane = self._lanes[home.name] = Lane(home, self._holdings.calls, load_id=load_id, share=self._share)
                lane.add(piece)

    def _close_chunks(self) -> None:
        for lane in self._live():
            lane.close_chunk()

    def _live(self) -> list[Lane]:
        return [lane for lane in self._lanes.values() if not lane.is_dead]

    def _replace_dead(self, place: int) -> None:
        for lane in [lane for lane in self._lanes.values() if lane.is_dead and not lane.is_idle]:
            self._holdings.drop(lane.member)
            for chunk in lane.take_rest():
                self.tally.note(chunk.id, {})
                self._give(chunk.pieces, place)
                self._close_chunks()

    def _note_progress(self) -> None:
        for lane in self._live():
            for chunk in lane.flying:
                self.tally.note(chunk.id, chunk.counts)
        self.tally.tell()

    def _finish(self, end: Finished) -> None:
        self.tally.note(end.chunk.id, end.chunk.counts)
        refs = {ref.uri: ref for ref, _ in end.chunk.pieces} if end.failures else {}
        for row in end.failures:
            if not row.get("uri"):
                _log.warning("load failed at a worker id=%s reason=%s", end.chunk.id, row.get("reason"))
            ref = refs.get(str(row.get("uri")))
            if ref is not None and row.get("kind") not in _PASSING:
                self.tally.fail(ref, str(row.get("reason")), kind=str(row.get("kind")))

    def _known_reason(self, ref: ObjectRef) -> LoadFailure | None:
        stop = self._stopper.reason
        failure = self.tally.failures.get(ref.id)
        if failure is None and stop is not None:
            failure = LoadFailure(ref.uri, tell_stop(ref, stop), stop)
        if failure is None and len(self._holdings.members) < len(self.places):
            failure = LoadFailure(ref.uri, f"{ref.uri}: too few workers answer; load again", "peer")
        return failure


def _rooms(holdings: Holdings, need: Counter[str], share: Share | None) -> tuple[dict[str, int], int]:
    """Return by name how much each worker has room for, and about how much all of them will evict."""
    rooms: dict[str, int] = {}
    evicted = 0
    for member in list(holdings.members):
        try:
            store = holdings.calls.store(member)
        except PeerError:
            holdings.drop(member)
            continue
        capacity, used = (max(0, int(store.get(name) or 0)) for name in ("capacity_bytes", "used_bytes"))
        room = capacity - capacity // 32
        rooms[member.name] = room if share is None or share.quota_bytes is None else min(room, share.quota_bytes)
        evicted += max(0, used + min(need[member.name], room) - capacity)
    return rooms, evicted


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    while batch := list(islice(pieces, _PER_STEP)):
        yield batch
