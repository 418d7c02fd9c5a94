"""Reading many small objects from an origin side by side, in one thread, where their store can."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from cache_runtime.errors import ChecksumError
from cache_runtime.sourcing import check_digest
from sources import Range, SourceError, SteadyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from cache_runtime.loading.outages import Outages
    from cache_runtime.loading.tally import Tally
    from sources import ObjectRef, Origins

_READERS = 2  # one asks while the other has only its last answers to wait for
_LOOK_SECONDS = 0.5


class TogetherReader:
    """Reads for one load; of its threads two at a time do, and the others store what they have read meanwhile.

    Args:
        origins: The stores that may be read.
        outages: Told of each success and failure.
        tally: Told of each failure.
    """

    def __init__(self, origins: Origins, outages: Outages, tally: Tally) -> None:
        self._origins = origins
        self._outages = outages
        self._tally = tally
        self._turns = threading.Semaphore(_READERS)

    def read(
        self, refs: Sequence[ObjectRef], *, at_once: int, is_over: Callable[[], bool]
    ) -> tuple[list[tuple[ObjectRef, Buffer]], list[ObjectRef]]:
        """Return the objects that were read, and those that are to be read one by one; others failed.

        Args:
            refs: Small objects.
            at_once: Requests of the whole load at a time.
            is_over: Whether nobody wants the rest.
        """
        stores: dict[SteadyStore, list[ObjectRef]] = defaultdict(list)
        left = []
        for ref in refs:
            store = self._store(ref)
            if store is None or not ref.size:
                left.append(ref)
            else:
                stores[store].append(ref)
        rows = []
        for store, group in stores.items():
            taker = _Taker(group, self._outages, self._tally, is_over)
            if len(group) > 1:
                self._read(store, group, taker, max(1, at_once // _READERS))
            rows += taker.rows
            left += [ref for number, ref in enumerate(group) if number not in taker.done]
        return rows, left

    def _store(self, ref: ObjectRef) -> SteadyStore | None:
        try:
            store = self._origins.store_for(ref)
        except SourceError:  # whoever reads it alone is told
            return None
        return store if isinstance(store, SteadyStore) else None

    def _read(self, store: SteadyStore, refs: Sequence[ObjectRef], taker: _Taker, at_once: int) -> None:
        while not self._turns.acquire(timeout=_LOOK_SECONDS):
            if taker.is_set():
                return
        try:
            store.read_each([Range(ref.key, ref.version, 0, ref.size) for ref in refs], taker, at_once=at_once)
        finally:
            self._turns.release()


class _Taker:
    """See `sources.reading.together.Taker`.

    Attributes:
        rows: What was read.
        done: The places of what was read, or failed.
    """

    def __init__(self, refs: Sequence[ObjectRef], outages: Outages, tally: Tally, is_over: Callable[[], bool]) -> None:
        self._refs = refs
        self._outages = outages
        self._tally = tally
        self._is_over = is_over
        self.rows: list[tuple[ObjectRef, Buffer]] = []
        self.done: set[int] = set()

    def found(self, number: int, data: Buffer) -> None:
        ref = self._refs[number]
        try:
            check_digest(ref, data)
        except ChecksumError as error:
            self.failed(number, error)
            return
        self._outages.note_success(ref)
        self.rows.append((ref, data))
        self.done.add(number)

    def failed(self, number: int, error: SourceError | ChecksumError) -> None:
        ref = self._refs[number]
        self._outages.note_failure(ref, error)
        self._tally.fail(ref, str(error), kind=error.kind)
        self.done.add(number)

    def is_set(self) -> bool:
        return self._is_over() or self._outages.reason(self._refs[0]) is not None
