"""The second phase of garbage collection: condemned objects that still nothing needs are deleted."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sources import SourceError, SourceNotFoundError, SwapLostError
from versioning.commits import CommitId, CommitStore
from versioning.errors import CollectingError
from versioning.maintenance.keys import ObjectKind
from versioning.maintenance.listing import is_same_time, list_objects, written_ns
from versioning.maintenance.policies import Tally
from versioning.maintenance.rewalking import Rewalk
from versioning.maintenance.roots import CONCURRENCY
from versioning.maintenance.state import SWEEP_SECONDS, Phase
from versioning.maintenance.stopwatch import Stopwatch
from versioning.nodestore import NodeStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from versioning.maintenance.condemned import CondemnedList
    from versioning.maintenance.ids import IdSet
    from versioning.maintenance.listing import Listed
    from versioning.maintenance.marking import Progress
    from versioning.maintenance.roots import Roots
    from versioning.maintenance.state import StateObject
    from versioning.repository import Repository

_BATCH = 1024
_WALK_CACHE_BYTES = 64 << 20
_RENEW_SECONDS = 30.0


class SweepClaim:
    """The right to delete: while it is held, writers let condemned objects alone. Use as a context manager.

    Leaving it without `finish` gives the list back, to be swept by a later run; unless a delete was sent that nobody
    answered, or one is under way in another thread: that may still arrive, so the claim must lapse first.

    Raises:
        CollectingError: If somebody else has it, or took it since.
    """

    def __init__(self, state: StateObject) -> None:
        self._state = state
        self._renewed = Stopwatch()
        self._finished = False
        self._lock = threading.Lock()
        self._left = False
        self._in_doubt = 0

    def __enter__(self) -> SweepClaim:
        self._change(phase=Phase.SWEEPING, sweep=secrets.token_hex(16))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._left = True
            gives_back = not self._finished and not self._in_doubt
        if gives_back:
            try:
                self._state.change(phase=Phase.CONDEMNED, sweep="")
            except SourceError:  # then it lapses, or is another one's already
                if error is None:
                    raise

    def renew(self) -> None:
        """Make sure that it is held, now and for a while."""
        if self._renewed.seconds() > _RENEW_SECONDS:
            self._change()

    def begin(self) -> None:
        """Say that a thread is about to look at an object and to delete it.

        Raises:
            CollectingError: If the claim was left meanwhile.
        """
        with self._lock:
            if self._left:
                raise CollectingError("it was broken off")
            self._in_doubt += 1

    def end(self) -> None:
        """Say that what `begin` announced is over and its outcome known."""
        with self._lock:
            self._in_doubt -= 1

    def check(self) -> None:
        """Refuse to go on with a claim that may lapse before a request arrives."""
        if self._renewed.seconds() > SWEEP_SECONDS / 2:
            raise CollectingError("it took too long to renew the claim on the sweep")

    def finish(self, swept_ns: int) -> None:
        """Say that all is deleted."""
        swept = {"swept_ns": swept_ns, "swept_list": self._state.current.list}
        swept |= {"swept_listed_ns": self._state.current.listed_ns}
        self._change(phase=Phase.IDLE, sweep="", objects=0, bytes=0, **swept)
        self._finished = True

    def _change(self, **changes: object) -> None:
        begun = Stopwatch()
        try:
            self._state.change(**changes)
        except SwapLostError as error:
            self._finished = True
            raise CollectingError("another one has taken the sweep over") from error
        self._renewed = begun


def needed_again(
    repository: Repository, condemned: CondemnedList, roots: Roots, *, listed_ns: int, claim: SweepClaim
) -> Mapping[ObjectKind, IdSet]:
    """Return which condemned objects are reached now; reads what changed since the list was made.

    By the roots, and by commits that were made since on top of condemned ones, although no ref names them any more:
    a commit that stays is whole, so that a ref may name it again.
    """
    store, prefix = repository.store, repository.prefix
    nodes = NodeStore(store, prefix, repository.spec, cache_bytes=_WALK_CACHE_BYTES)
    walk = Rewalk(store, CommitStore(store, prefix), nodes, prefix, condemned.sets(), listed_ns, on_step=claim.renew)
    walk.walk(roots.refs.values())
    known = roots.refs.values()
    walk.walk(roots.recent, known=known, tolerant=True)
    for found in list_objects(store, prefix, ObjectKind.COMMIT):
        new = found.ids[found.times >= listed_ns]
        walk.walk([CommitId(row.tobytes().hex()) for row in new], known=known, tolerant=True)
    return walk.needed


class Sweep:
    """Deletes what is condemned, unless it is needed again or was written again.

    Attributes:
        deleted: What was deleted.
        kept: How many condemned objects were not.
    """

    def __init__(
        self, repository: Repository, claim: SweepClaim, needed: Mapping[ObjectKind, IdSet], on_progress: Progress
    ) -> None:
        self.deleted = Tally()
        self.kept = 0
        self._store = repository.store
        self._prefix = repository.prefix
        self._claim = claim
        self._needed = needed
        self._on_progress = on_progress

    def run(self, condemned: CondemnedList) -> None:
        """Delete; commits go first, then nodes, then packs and blobs, so that what is left is whole."""
        with ThreadPoolExecutor(CONCURRENCY, "forebay-sweep") as pool:
            for batch in condemned.batches():
                wanted = ~self._needed[batch.kind].contains(batch.ids)
                self.kept += len(batch) - int(wanted.sum())
                found = batch.where(wanted)
                for start in range(0, len(found), _BATCH):
                    self._claim.renew()
                    self._delete(pool, found, range(start, min(start + _BATCH, len(found))))

    def _delete(self, pool: ThreadPoolExecutor, found: Listed, rows: range) -> None:
        done = list(pool.map(lambda row: self._delete_one(found, row), rows))
        for row, outcome in zip(rows, done, strict=True):
            if outcome is None:
                continue
            if outcome:
                self.deleted = self.deleted.plus(found.kind, 1, int(found.sizes[row]))
            else:
                self.kept += 1
        self._on_progress("deleted", self.deleted.total_objects)

    def _delete_one(self, found: Listed, row: int) -> bool | None:
        """Delete an object that is as it was when it was condemned; None if it is gone already."""
        key = self._prefix + found.kind.key(found.ids[row].tobytes())
        self._claim.begin()
        is_known = True
        try:
            try:
                now = written_ns(self._store, key)
            except SourceNotFoundError:
                return None
            if not is_same_time(now, int(found.times[row])):
                return False
            self._claim.check()
            is_known = False
            self._store.delete(key)
            is_known = True
            return True
        finally:
            if is_known:
                self._claim.end()
