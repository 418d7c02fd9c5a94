"""Room in a store: how much may be charged, what was promised to fills that fetch just now, and eviction for more."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheError, CacheFullError
from cache_runtime.store.environments import LOCK_FILE_BYTES
from cache_runtime.store.eviction import Evictor
from cache_runtime.store.locks import EVICT_LOCK
from cache_runtime.store.refusals import Refusals
from cache_runtime.store.shares import Fill, Grade
from cache_runtime.store.tables import NoRoomError, Room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cache_runtime.store.blockstore import BlockStore
    from cache_runtime.store.eviction import KeptRecord
    from cache_runtime.store.index import Index
    from cache_runtime.store.visited import VisitedMap

_log = logging.getLogger(__name__)
EVICT_SECONDS = 30.0
_MIN_MARGIN_BYTES, _MAX_MARGIN_BYTES = 256 << 10, 8 << 20  # kept free for the index to grow between two charges
_MAX_SLACK_BYTES = 64 << 20  # evicted beyond the need, so that not every fill has to evict
_MIN_GARBAGE_BYTES = 2 << 20
TRIES = 4
"""A unit may be evicted under a fill, or another process take the room that was made."""


class Rooms:
    """What of a store's capacity is free, and who gets it.

    Args:
        store: The store; its limits, counters and locks are used.
        index: Its index.
        visited: Its visited map.
        keep: Appends a record anew, for the evictor.

    Attributes:
        refusals: Which fills need not try.
        evictor: Frees room.
        margin_bytes: Kept free for the index to grow between two charges.
    """

    def __init__(
        self, store: BlockStore, index: Index, visited: VisitedMap, *, keep: Callable[[KeptRecord], None]
    ) -> None:
        self._store = store
        self._index = index
        self._visited = visited
        self._index_bytes = self._index_limit_bytes = 0
        self.margin_bytes = max(_MIN_MARGIN_BYTES, min(_MAX_MARGIN_BYTES, store.capacity_bytes // 128))
        self.refusals = Refusals(index, visited)
        self.evictor = Evictor(store.directory, index, visited, keep=keep, grow_bytes=self.margin_bytes // 2)
        self._promising = threading.Lock()
        self._promised: Counter[int] = Counter()  # bytes by share
        self._mine = threading.local()

    def overhead_bytes(self) -> int:
        """Return what the index and the map take from the capacity, bytes."""
        return self._index.pages_bytes() + LOCK_FILE_BYTES + self._visited.file_bytes

    def limit_bytes(self) -> int:
        """Return how much may be charged in all."""
        self._index_bytes = self._index.pages_bytes()
        others = LOCK_FILE_BYTES + self._visited.file_bytes
        return self._store.capacity_bytes - self._index_bytes - others - self.margin_bytes

    def room(self) -> Room:
        """Tell what may be charged now, from the capacity and from the floor of free space.

        The floor is soft: what is charged and not written yet counts as free.
        """
        free = self._store.capacity_bytes
        if self._store.free_floor_bytes:
            disk = os.statvfs(self._store.directory)
            free = disk.f_bavail * disk.f_frsize - self._store.free_floor_bytes
        return Room(self.limit_bytes(), free)

    @contextmanager
    def promising(self, fill: Fill, charges: Sequence[int], may_try: Callable[[], bool]) -> Iterator[int]:
        """Find room for a fill before its bytes are fetched, and say for how many; no other fill is promised it.

        The promise binds the threads of this process. Another process, or whoever charges without one, may be faster;
        then the fill looks for room again when it charges.

        Args:
            fill: Who asks.
            charges: Bytes that it may charge, descending: the first of them that there is room for is promised.
            may_try: Says whether it is worth to look.
        """
        promised = self._mine.bytes = self._promise(fill, charges, may_try)
        try:
            yield promised
        finally:
            with self._promising:
                self._redeem(fill)

    @contextmanager
    def charging(self, fill: Fill) -> Iterator[None]:
        """Charge what was promised to this thread: nobody sees its bytes counted twice, and evicts for that."""
        with self._promising:
            yield
            self._redeem(fill)

    def find(self, wanted: NoRoomError, fill: Fill, *, remembers: bool = True) -> bool:
        """Make room for a fill, and say whether there was any to be made; remember it if not.

        Args:
            wanted: What is missing.
            fill: Who asks.
            remembers: Whether no other fill needs to try then.

        Raises:
            CacheTimeoutError: As `make`.
        """
        try:
            self.make(wanted, fill)
        except CacheFullError as full:
            if not remembers:
                return False
            self.refusals.remember(fill)
            if not fill.keeps and fill.grade != Grade.GUEST:  # to others it is what they asked for
                _log.warning("not cached for a while: %s", full)
            return False
        return True

    def make(self, wanted: NoRoomError, fill: Fill | None) -> None:
        """Evict, unless another process did while we waited for our turn.

        Raises:
            CacheFullError: If too little can be evicted.
            CacheTimeoutError: If another process evicts for half a minute.
        """
        store = self._store
        if fill is not None and fill.grade == Grade.GUEST:
            raise CacheFullError(store.directory, need_bytes=wanted.short_bytes, capacity_bytes=store.capacity_bytes)
        with store.locks.fixed(EVICT_LOCK, seconds=EVICT_SECONDS):
            if wanted.share is None and self._compact():
                return
            with self._index.reading() as tables:
                used = tables.counter(b"used")
                if wanted.share is not None and fill is not None:
                    # of the object's other blocks, which may have been filled for another share
                    row = tables.share_row(wanted.share)
                    used, fill = row.used, fill._replace(number=wanted.share, share=row.share)
            need = wanted.short_bytes - (wanted.used_bytes - used)
            if need <= 0:
                return
            slack = min(_MAX_SLACK_BYTES, store.capacity_bytes // 64)
            freed = self.evictor.evict(need, slack_bytes=slack, fill=fill, within_share=wanted.share is not None)
            store.stats.evicted_bytes += freed
            if freed < need:
                raise CacheFullError(store.directory, need_bytes=need, capacity_bytes=store.capacity_bytes)

    def shrink(self) -> None:
        """Evict what is beyond a capacity that was lowered since."""
        with self._index.reading() as tables:
            used = tables.counter(b"used")
        excess = used - self.limit_bytes()
        if excess > 0:
            try:
                self.make(NoRoomError(excess, used_bytes=used), None)
            except CacheError as error:  # others write or evict, or pins hold it: the next fill goes on
                _log.warning("capacity still exceeded directory=%s reason=%s", self._store.directory, error)

    def compact_if_due(self) -> None:
        """Write the index anew if it grew, and much of it is in use for nothing."""
        if self._index_bytes > self._index_limit_bytes:
            with self._store.locks.fixed(EVICT_LOCK, seconds=EVICT_SECONDS):
                self._compact()

    def forget_parent(self) -> None:
        """Leave what was promised to the parent of a fork."""
        self._promising = threading.Lock()
        self._promised = Counter()
        self._mine = threading.local()

    def _redeem(self, fill: Fill) -> None:
        self._promised[fill.number] -= getattr(self._mine, "bytes", 0)
        self._mine.bytes = 0

    def _promise(self, fill: Fill, charges: Sequence[int], may_try: Callable[[], bool]) -> int:
        with self._promising:  # also for the search: of many that find no room only the first one looks for it
            for _ in range(TRIES):
                if not may_try():
                    return 0
                shortages = [self._shortage(fill, charge) for charge in charges]
                if shortages[0] is not None and self.find(shortages[0], fill, remembers=False):
                    continue
                for charge, shortage in zip(charges, shortages, strict=True):
                    if shortage is None:
                        self._promised[fill.number] += charge
                        return charge
                least = shortages[-1]
                assert least is not None  # else it was promised above
                # where there is room, and only promised to others, the next fill may try
                remembers = least.short_bytes > self._promised_of(fill, least)
                if not self.find(least, fill, remembers=remembers):
                    return 0
        return 0

    def _promised_of(self, fill: Fill, shortage: NoRoomError) -> int:
        return self._promised.total() if shortage.share is None else self._promised[fill.number]

    def _shortage(self, fill: Fill, charge: int) -> NoRoomError | None:
        """Look what is missing beyond what is promised, as `Tables.charge` will."""
        with self._index.reading() as tables:
            used, share_used = tables.counter(b"used"), tables.share_row(fill.number).used
        room, promised = self.room(), self._promised.total()
        quota = fill.share.quota_bytes
        if quota is not None:
            short = share_used + self._promised[fill.number] + charge - quota
            if short > 0:
                return NoRoomError(short, used_bytes=share_used, share=fill.number)
        short = max(used + promised + charge - room.limit_bytes, promised + charge - room.free_bytes)
        return NoRoomError(short, used_bytes=used) if short > 0 else None

    def _compact(self) -> bool:
        """Write an index anew if much of it is in use for nothing, and say whether; the caller holds the evict lock.

        Its file never shrinks: it keeps what many small objects made it grow to, or a stopped process, whose snapshot
        lets no page be reused.
        """
        step = max(_MIN_GARBAGE_BYTES, self._store.capacity_bytes // 64)
        free, size = self._index.free_bytes(), self._index.pages_bytes()
        is_worth = free >= max(step, size // 2)
        if is_worth:
            self._index.compact()
            self._visited.bump()
            _log.info("cache index written anew directory=%s freed_bytes=%d", self._store.directory, free)
        self._index_limit_bytes = self._index.pages_bytes() + step
        return is_worth
