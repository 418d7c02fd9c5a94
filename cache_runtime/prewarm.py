"""Loading ahead: plan what is missing, fetch it with progress, verify that it is there."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheError, CacheOffError
from cache_runtime.layout import BLOCK_SHIFT, SMALL_BYTES, BlockRun, block_span, join_blocks
from sources import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cache_runtime.client import Client
    from cache_runtime.store import BlockStore
    from sources import Location, ObjectRef

Piece = tuple["ObjectRef", BlockRun]
"""What one fetch brings: a small object (its block 0), or up to 16 MiB of a large one."""

_WHOLE = BlockRun(0, 0)
_PER_SNAPSHOT = 2048
_PROGRESS_SECONDS = 0.1
_ROUNDS = 2  # the second one fetches what other fills evicted during the first
_MAX_FAILURES = 10_000
_RECORD_COST = 32 + 160  # bytes of record header and of index rows


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
        missing: What has to be fetched, in the order of the locations.
        present_ids: Ids of the small objects that are there, 16 bytes each, joined.
        present_blocks: Blocks of large objects that are there.
    """

    total_objects: int
    total_bytes: int
    present_objects: int
    present_bytes: int
    fits: bool
    room_bytes: int
    missing: tuple[Piece, ...]
    present_ids: bytes
    present_blocks: tuple[Piece, ...]

    @property
    def fetch_objects(self) -> int:
        """Objects of which something is missing."""
        return self.total_objects - self.present_objects

    @property
    def fetch_bytes(self) -> int:
        """Bytes to fetch from the origins."""
        return self.total_bytes - self.present_bytes


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is; what was there from the start counts as done.

    Attributes:
        bytes_done, bytes_total: Bytes of the plan.
        objects_done, objects_total: Objects of the plan.
        failed_objects: Objects given up.
        seconds: Since the start.
        fetched_bytes: Bytes fetched by this run.
    """

    bytes_done: int
    bytes_total: int
    objects_done: int
    objects_total: int
    failed_objects: int
    seconds: float
    fetched_bytes: int

    @property
    def eta_seconds(self) -> float | None:
        """Time left at the mean pace so far; None before anything was fetched."""
        if self.fetched_bytes == 0:
            return None
        return self.seconds * (self.bytes_total - self.bytes_done) / self.fetched_bytes


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """An object that is not completely cached, and why; `kind` is the error's, "lost" where there was none."""

    uri: str
    reason: str
    kind: str = "lost"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did.

    Attributes:
        total_objects, total_bytes: Of the plan.
        fetched_objects, fetched_bytes: Fetched by this run.
        left_out_objects, left_out_bytes: Not fetched because the plan is larger than the capacity.
        failed_objects: Objects that are not completely cached for another reason.
        failures: Those, at most 10,000.
        seconds: Duration.
    """

    total_objects: int
    total_bytes: int
    fetched_objects: int
    fetched_bytes: int
    left_out_objects: int
    left_out_bytes: int
    failed_objects: int
    failures: tuple[LoadFailure, ...]
    seconds: float

    @property
    def verified(self) -> bool:
        """Whether every byte of the plan was found in the store after the last fetch."""
        return self.failed_objects == 0 and self.left_out_objects == 0


def plan_load(client: Client, locations: Iterable[Location]) -> LoadPlan:
    """Find out what is missing; reads the index and fetches nothing.

    Args:
        client: Its store is asked.
        locations: Any order, repetitions allowed; read once. Empty ones need nothing.

    Raises:
        CacheOffError: If the client has no store.
    """
    store = _store_of(client)
    planner = _Planner(store)
    for location in locations:
        planner.add(location)
    return planner.finish()


class _Planner:
    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._seen: set[bytes] = set()
        self._batch: list[tuple[ObjectRef, range]] = []
        self._blocks: dict[bytes, tuple[ObjectRef, set[int]]] = {}
        self._missing: list[Piece] = []
        self._present_ids = bytearray()
        self._present_blocks: list[Piece] = []
        self._bytes = self._present_bytes = self._present_large = 0

    def add(self, location: Location) -> None:
        ref = location.object
        if location.length <= 0:
            return
        if ref.size > SMALL_BYTES:
            first, last = location.offset >> BLOCK_SHIFT, (location.offset + location.length - 1) >> BLOCK_SHIFT
            self._blocks.setdefault(ref.id, (ref, set()))[1].update(range(first, last + 1))
        elif ref.id not in self._seen:
            self._seen.add(ref.id)
            self._batch.append((ref, range(1)))
            if len(self._batch) == _PER_SNAPSHOT:
                self._classify_small()

    def finish(self) -> LoadPlan:
        self._classify_small()
        for ref, blocks in self._blocks.values():
            self._classify_large(ref, sorted(blocks))
        cost = self._bytes + len(self._seen) * _RECORD_COST
        room = self._store.budget_bytes()
        return LoadPlan(
            total_objects=len(self._seen) + len(self._blocks),
            total_bytes=self._bytes,
            present_objects=len(self._present_ids) // 16 + self._present_large,
            present_bytes=self._present_bytes,
            fits=cost <= room,
            room_bytes=room,
            missing=tuple(self._missing),
            present_ids=bytes(self._present_ids),
            present_blocks=tuple(self._present_blocks),
        )

    def _classify_small(self) -> None:
        for (ref, _), missing in zip(self._batch, self._store.missing_among(self._batch), strict=True):
            self._bytes += ref.size
            if missing:
                self._missing.append((ref, _WHOLE))
            else:
                self._present_bytes += ref.size
                self._present_ids += ref.id
        self._batch.clear()

    def _classify_large(self, ref: ObjectRef, blocks: list[int]) -> None:
        missing = self._store.missing_blocks(ref, blocks)
        absent = set(missing)
        present = [(ref, run) for run in join_blocks(block for block in blocks if block not in absent)]
        fetch = [(ref, run) for run in join_blocks(missing)]
        self._present_large += not fetch
        self._present_bytes += sum(map(_size_of, present))
        self._bytes += sum(map(_size_of, present)) + sum(map(_size_of, fetch))
        self._present_blocks += present
        self._missing += fetch


def run_load(
    client: Client,
    plan: LoadPlan,
    *,
    on_progress: Callable[[LoadProgress], None] | None = None,
    concurrency: int = 16,
) -> LoadReport:
    """Fetch what a plan misses, then look whether all of the plan is there.

    Run it again to go on after an interruption or failures: what was fetched stays. A failing object does not stop the
    others; a failing cache disk stops the load. Ctrl-C waits only for the fetches that are under way.

    Args:
        client: Reads the origins and fills its store.
        plan: From `plan_load` with the same client's store.
        on_progress: Called by this thread, at most ten times a second, and at the end.
        concurrency: Fetches at a time.

    Raises:
        CacheOffError: If the client has no store.
    """
    load = _Load(client, plan, on_progress)
    for object_id in _ids(plan.present_ids):
        load.store.touch(object_id)
    for ref, _ in plan.present_blocks:
        load.store.touch(ref.id)
    pieces, left_out = _split_by_room(plan)
    pending = pieces
    for _ in range(_ROUNDS):
        load.fetch(pending, concurrency)
        pending = [(ref, run) for ref, run in load.find_missing(pieces) if ref.id not in load.failures]
        if not pending or load.store.off_reason is not None:
            break
    return load.report(pending, left_out)


class _Load:
    """One run: counters and failures, all of the calling thread."""

    def __init__(self, client: Client, plan: LoadPlan, on_progress: Callable[[LoadProgress], None] | None) -> None:
        self.store = _store_of(client)
        self.failures: dict[bytes, LoadFailure] = {}
        self._client = client
        self._plan = plan
        self._on_progress = on_progress
        self._start = self._told = time.monotonic()
        self._left = Counter(ref.id for ref, _ in plan.missing)
        self._fetched_bytes = self._fetched_objects = 0

    def fetch(self, pieces: Sequence[Piece], concurrency: int) -> None:
        """Fetch pieces side by side; no more of them are in flight than keep the threads busy."""
        rest = iter(pieces)
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="forebay-load")
        flying: dict[Future[object], Piece] = {}
        try:
            while True:
                if self.store.off_reason is None:
                    # a piece that would not be stored is not fetched: it stays missing and is reported
                    wanted = (piece for piece in rest if self.store.admits(piece[0]))
                    for piece in islice(wanted, 2 * concurrency - len(flying)):
                        flying[pool.submit(self._client.fetch, *piece)] = piece
                if not flying:
                    break
                landed, _ = wait(flying, timeout=_PROGRESS_SECONDS, return_when=FIRST_COMPLETED)
                for flight in landed:
                    self._count(flying.pop(flight), flight)
                self._tell()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def find_missing(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return the pieces of which something is not in the store."""
        found: list[Piece] = []
        for batch in _batches(pieces):
            wanted = [(ref, range(run.first, run.last + 1)) for ref, run in batch]
            found += [piece for piece, gone in zip(batch, self.store.missing_among(wanted), strict=True) if gone]
        return found

    def report(self, missing: Sequence[Piece], left_out: Sequence[Piece]) -> LoadReport:
        """Name all that is not there, and sum up."""
        off = self.store.off_reason
        for ref, _ in missing:
            self._fail(ref, f"the cache is off: {off}" if off else "no room: other fills took it; load again")
        lost = self.find_missing(self._plan.present_blocks)
        for ref, _ in lost:
            self._fail(ref, "evicted during the load; load again")
        lost_ids = self.store.missing_ids(list(_ids(self._plan.present_ids)))
        for object_id in lost_ids:
            self.failures[object_id] = LoadFailure(f"object {object_id.hex()}", "evicted during the load; load again")
        self._tell(last=True)
        return LoadReport(
            total_objects=self._plan.total_objects,
            total_bytes=self._plan.total_bytes,
            fetched_objects=self._fetched_objects,
            fetched_bytes=self._fetched_bytes,
            left_out_objects=len({ref.id for ref, _ in left_out}),
            left_out_bytes=sum(map(_size_of, left_out)),
            failed_objects=len(self.failures),
            failures=tuple(islice(self.failures.values(), _MAX_FAILURES)),
            seconds=time.monotonic() - self._start,
        )

    def _count(self, piece: Piece, flight: Future[object]) -> None:
        ref = piece[0]
        try:
            flight.result()
        except (SourceError, CacheError) as error:
            self._fail(ref, str(error), kind=error.kind)
            return
        self.store.touch(ref.id)
        self._fetched_bytes += _size_of(piece)
        self._left[ref.id] -= 1
        self._fetched_objects += self._left[ref.id] == 0

    def _fail(self, ref: ObjectRef, reason: str, *, kind: str = "lost") -> None:
        self.failures.setdefault(ref.id, LoadFailure(ref.uri, reason, kind))

    def _tell(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None or (now - self._told < _PROGRESS_SECONDS and not last):
            return
        self._told = now
        self._on_progress(
            LoadProgress(
                bytes_done=min(self._plan.total_bytes, self._plan.present_bytes + self._fetched_bytes),
                bytes_total=self._plan.total_bytes,
                objects_done=self._plan.present_objects + self._fetched_objects,
                objects_total=self._plan.total_objects,
                failed_objects=len(self.failures),
                seconds=now - self._start,
                fetched_bytes=self._fetched_bytes,
            )
        )


def _store_of(client: Client) -> BlockStore:
    if client.store is None:
        raise CacheOffError("(none)", "the client was made without a store")
    return client.store


def _size_of(piece: Piece) -> int:
    return block_span(piece[1], piece[0].size)[1]


def _split_by_room(plan: LoadPlan) -> tuple[list[Piece], list[Piece]]:
    """Divide what is missing into what the capacity has room for beside what is there, and the rest.

    Loading more would evict what was loaded just before.
    """
    if plan.fits:
        return list(plan.missing), []
    taken: list[Piece] = []
    left_out: list[Piece] = []
    used = plan.present_bytes + len(plan.present_ids) // 16 * _RECORD_COST
    for piece in plan.missing:
        used += _size_of(piece) + _RECORD_COST
        (taken if used <= plan.room_bytes else left_out).append(piece)
    return taken, left_out


def _ids(joined: bytes) -> Iterator[bytes]:
    return (joined[start : start + 16] for start in range(0, len(joined), 16))


def _batches(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    return (pieces[start : start + _PER_SNAPSHOT] for start in range(0, len(pieces), _PER_SNAPSHOT))
