"""Fetching pieces into a store: many threads, each with some small objects or a piece of a large one at a time."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cache_runtime.errors import CacheOffError, CacheTimeoutError
from cache_runtime.loading.bringing import Bringer
from cache_runtime.loading.pieces import WHOLE, blocks_of, is_small, piece_bytes
from cache_runtime.loading.stopping import tell_stop
from cache_runtime.loading.tally import TELL_SECONDS
from cache_runtime.store.layout import join_blocks
from cache_runtime.store.shares import Share
from sources import SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cache_runtime.client import Client
    from cache_runtime.loading.pieces import Group, Piece
    from cache_runtime.loading.stopping import Stopper
    from cache_runtime.loading.tally import Tally
    from cache_runtime.peers.routing import Ask
    from cache_runtime.store.nodestore import NodeStore
    from sources import ObjectRef

_LARGE_AT_A_TIME = min(16, 4 * (os.cpu_count() or 1))  # each with the buffer of one read; two cores lose by 16
_WRITE_LOCKS = 64
_YIELD_SECONDS = 0.1  # under reads that never end a load still gets on, one piece a thread and 0.1 s
_LOOK_SECONDS = 0.005
_WAIT_SECONDS = 120.0
_log = logging.getLogger(__name__)


class Fetcher:
    """Brings pieces into a store, for one load.

    Of all threads and processes that want the same blocks one asks for them: what another one is fetching is left to
    it, and looked at again at the end.

    Args:
        client: Its origins are asked; its counters count.
        store: Where the bytes go.
        share: Whose they are; None: nobody's.
        tally: Told what was done.
        stopper: Asked before each object.
        busy: Says whether there are reads that should go first; None: there never are.
    """

    def __init__(
        self,
        client: Client,
        store: NodeStore,
        *,
        share: Share | None,
        tally: Tally,
        stopper: Stopper,
        busy: Callable[[], bool] | None = None,
    ) -> None:
        self._store = store
        self._bringer = Bringer(client.origins, client.peers, client.stats, tally=tally, share=share)
        self._share = share or Share()
        self._tally = tally
        self._stopper = stopper
        self._busy = busy
        self._turn = threading.Lock()
        self._writing = [threading.Lock() for _ in range(_WRITE_LOCKS)]
        self._large_turns = threading.Semaphore(_LARGE_AT_A_TIME)
        self._at_once = 1

    def run(self, groups: Iterator[Group], threads: int, *, patient: bool = False) -> None:
        """Fetch all groups, or until stopped; progress is told by this thread.

        Whatever interrupts this thread ends the others after the objects that they are reading, which are kept.

        Args:
            groups: Iterated by several threads, one at a time.
            threads: How many.
            patient: Wait for others that fetch the same; the groups have one piece each then.
        """
        fetch = self._fetch_patiently if patient else self._fetch
        self._at_once = threads
        pool = ThreadPoolExecutor(threads, thread_name_prefix="forebay-load")
        try:
            flying = {pool.submit(self._work, groups, fetch) for _ in range(threads)}
            while flying:
                landed, flying = wait(flying, timeout=TELL_SECONDS, return_when=FIRST_COMPLETED)
                for flight in landed:
                    flight.result()
                self._tally.tell()
        except BaseException:  # Ctrl-C too: the threads are waited for below
            self._stopper.halt()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def reason_against(self, ref: ObjectRef) -> tuple[str, str] | None:
        """Return why it makes no sense to try an object (reason and kind), None if it does."""
        if (down := self._bringer.outages.reason(ref)) is not None:
            return f"not fetched: its origin is down ({down})", SourceUnavailableError.kind
        if self._store.off_reason is not None:
            return f"the cache is off: {self._store.off_reason}", CacheOffError.kind
        stop = self._stopper.reason
        if stop is not None:
            return tell_stop(ref, stop), stop
        return None

    def _work(self, groups: Iterator[Group], fetch: Callable[[Group], None]) -> None:
        while not self._is_over():
            with self._turn:
                group = next(groups, None)
            if group is None:
                return
            self._let_reads_go_first()
            if self._store.admits(group.pieces[0][0], share=self._share, length=0):
                fetch(group)
            # what would not be stored is not fetched: it stays missing

    def _is_over(self) -> bool:
        return self._stopper.reason is not None or self._store.off_reason is not None

    def _let_reads_go_first(self) -> None:
        if self._busy is None:
            return
        until = time.monotonic() + _YIELD_SECONDS
        while self._busy() and time.monotonic() < until and not self._is_over():
            time.sleep(_LOOK_SECONDS)

    def _fetch(self, group: Group) -> None:
        """Fetch what nobody else is fetching; the rest is still missing, or there, when all is looked at again."""
        with ExitStack() as stack:
            try:
                held = stack.enter_context(self._store.locks.claim([(ref.id, run) for ref, run in group.pieces]))
            except OSError as error:
                self._store.fail(error)
                return
            self._fetch_missing([piece for piece, mine in zip(group.pieces, held, strict=True) if mine], group.asks)

    def _fetch_patiently(self, group: Group) -> None:
        """Fetch one piece, after whoever is fetching it."""
        (piece,) = group.pieces
        with ExitStack() as stack:
            try:
                stack.enter_context(self._store.locks.fill(piece[0].id, piece[1], seconds=_WAIT_SECONDS))
            except CacheTimeoutError as error:  # its holder hangs
                _log.warning("fetching without the lock object=%s reason=%s", piece[0].uri, error)
            except OSError as error:
                self._store.fail(error)
                return
            self._fetch_missing([piece], group.asks)

    def _fetch_missing(self, pieces: Sequence[Piece], asks: Sequence[Ask]) -> None:
        """Fetch those that did not come since the survey."""
        found = self._store.missing_among([(ref, blocks_of((ref, run))) for ref, run in pieces])
        wanted = [(piece, missing) for piece, missing in zip(pieces, found, strict=True) if missing]
        if len(wanted) < len(pieces):
            present = [piece for piece, missing in zip(pieces, found, strict=True) if not missing]
            self._tally.add(present, fetched=False)
        if wanted and is_small(wanted[0][0][0]):
            self._fetch_small([piece for piece, _ in wanted], asks)
        elif wanted:
            with self._large_turns:
                self._fetch_large(*wanted[0], asks)

    def _fetch_small(self, pieces: Sequence[Piece], asks: Sequence[Ask]) -> None:
        """Read objects, and store them together."""
        refs = [ref for ref, _ in pieces]
        got = list(self._bringer.bring_small(refs, asks, at_once=self._at_once, is_over=self._is_over))
        for from_worker in (False, True):
            rows = [(ref, brought) for ref, brought in got if (brought.crcs is not None) is from_worker]
            if not rows:
                continue
            crcs = [brought.crcs[0] for _, brought in rows if brought.crcs] if from_worker else None
            items = [(ref, brought.data) for ref, brought in rows]
            if self._store.put_many(items, crcs=crcs, share=self._share) == len(items):
                self._protect([ref for ref, _ in rows])
                total = sum(ref.size for ref, _ in rows) if from_worker else 0
                self._tally.add([(ref, WHOLE) for ref, _ in rows], from_peers=total)

    def _fetch_large(self, piece: Piece, missing: Sequence[int], asks: Sequence[Ask]) -> None:
        """Read blocks into this thread's buffer, and write them out."""
        ref, from_peers = piece[0], 0
        for run in join_blocks(missing):
            if self._is_over():
                return
            brought = self._bringer.bring_run(ref, run, asks)
            if brought is None:
                return
            # the kernel lets one write to a file at a time, and those who wait for it burn the processor meanwhile
            with self._writing[ref.id[0] % _WRITE_LOCKS]:
                stored = self._store.put(ref, run.first, brought.data, crcs=brought.crcs, share=self._share)
            if not stored:
                return
            from_peers += piece_bytes((ref, run)) if brought.crcs is not None else 0
        self._protect([ref])
        self._tally.add([piece], from_peers=from_peers)

    def _protect(self, refs: Sequence[ObjectRef]) -> None:
        """Let the evictor pass over what was loaded, as over what was read, or that would stay and this go."""
        for ref in refs:
            self._store.touch(ref.id)
