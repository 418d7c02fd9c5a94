"""What a writer checks before it moves a ref: that nothing it needs is about to be deleted, or just was."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from sources import SourceNotFoundError, SwapLostError
from versioning.columns import as_mask, compute, single, where
from versioning.commits import format_time
from versioning.errors import CollectingError, CorruptRepositoryError, ObjectsCollectedError
from versioning.maintenance.keys import ObjectKind, ids_of_keys
from versioning.maintenance.listing import is_same_time, store_time, written_ns
from versioning.maintenance.roots import CONCURRENCY
from versioning.maintenance.state import SWEEP_SECONDS, Phase, StateObject, list_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime

    import pyarrow as pa

    from sources import RepositoryStore
    from versioning.commits import CommitId, CommitStore
    from versioning.maintenance.ids import IdSet
    from versioning.maintenance.rewalking import Rewalk
    from versioning.maintenance.state import GcState
    from versioning.nodestore import NodeStore

_RECENT_NS = 86_400_000_000_000  # a day: more than clocks differ, and more than a commit takes from nodes to ref
_ROUNDS = 8
_FRESH = timedelta(hours=1)  # what was made since cannot have been collected: no grace period is shorter
_SECOND = 1_000_000_000


class SweepGuard:
    """Checks that a ref may name a commit. Thread-safe.

    The rule: an object that is condemned may be used only after it was written again while nobody deletes. The object
    that says how far garbage collection is costs one request; only while objects are condemned, or within a day after
    some were deleted, the new part of the commit is compared with them.

    Why this is enough: a sweep reads the refs and then looks at each object's time right before it deletes it, all
    of it after it has said that it sweeps. So what a writer wrote again before it saw that nobody sweeps is seen as
    new; and a list is made a grace period before it is swept, which is longer than a writer takes from here to its ref.
    """

    def __init__(
        self,
        store: RepositoryStore,
        prefix: str,
        *,
        commits: CommitStore,
        nodes: NodeStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._commits = commits
        self._nodes = nodes
        self._clock = clock
        self._lock = threading.Lock()
        self._sets: dict[str, Mapping[ObjectKind, IdSet]] = {}

    def check(self, to: CommitId, known: Collection[CommitId] = ()) -> None:
        """Make sure that a ref may name a commit from now on; writes condemned objects that it needs again.

        Args:
            to: The commit.
            known: Commits that the ref names now.

        Raises:
            CollectingError: If something it needs is being deleted now.
            ExpiredCommitError: If the ref is to name a commit that was cut off.
            ObjectsCollectedError: If something it needs was deleted.
        """
        if to not in known:
            self._commits.require_shown(to)
        state = StateObject(self._store, self._prefix)
        if state.fetch().swept_ns:
            self.require_commits(to, known)
        for _ in range(_ROUNDS):
            now = state.current
            if now.swept_list and self._is_recent(now):
                self._check_swept(now, to, known)
            if now.phase is Phase.IDLE:
                return
            walk = self._walk(now.list, now.listed_ns, to, known)
            if walk is not None and not walk.count:
                return
            if walk is not None and self._may_rewrite(state):
                before = state.version
                self._rewrite(now.list, walk, to)
                state.fetch()
                if state.version == before:  # not the fields: a sweep that was broken off leaves them as they were
                    return
            else:
                state.fetch()
        raise CollectingError("its state keeps changing")

    def require_commits(self, to: CommitId, known: Collection[CommitId] = ()) -> None:
        """Make sure that a commit, or what it was just made of, is there: this process may remember collected ones.

        Raises:
            ObjectsCollectedError: If it is gone.
        """
        fresh = format_time(self._clock() - _FRESH)
        try:
            commit = self._commits.read(to)
            wanted = [to] if commit.committed_at < fresh else commit.parents
            for identity in wanted:
                if identity not in known and self._commits.read(identity).committed_at < fresh:
                    self._require(self._prefix + ObjectKind.COMMIT.key(bytes.fromhex(identity)))
        except CorruptRepositoryError as error:
            self._require(error.key)
            raise

    def require_base(self, base: CommitId | None) -> None:
        """Make sure that the commit that changes were made against can be read.

        Raises:
            ObjectsCollectedError: If it was expired or thrown away, and collected.
        """
        try:
            if base is not None:
                self._commits.read(base)
        except CorruptRepositoryError as error:
            self._require(error.key)
            raise

    def require_stored(self, entries: pa.Table) -> None:
        """Make sure that packs and blobs that were uploaded some time ago are still there, if any was ever deleted.

        Args:
            entries: Rows of `ENTRY_SCHEMA` that are to be committed.

        Raises:
            ObjectsCollectedError: If some are gone.
        """
        own = where(entries, as_mask(compute.equal(entries.column("store"), "")))
        keys = compute.unique(single(own.column("key")))
        found = [(kind, ids_of_keys(keys, kind)[1]) for kind in (ObjectKind.PACK, ObjectKind.BLOB)]
        names = [self._prefix + kind.key(row.tobytes()) for kind, ids in found for row in ids]
        if not names or not StateObject(self._store, self._prefix).fetch().swept_ns:
            return
        with ThreadPoolExecutor(min(CONCURRENCY, len(names)), "forebay-stored") as pool:
            gone = [key for key, time in zip(names, pool.map(self._time, names), strict=True) if time is None]
        if gone:
            raise ObjectsCollectedError(gone[0], len(gone))

    def _is_recent(self, now: GcState) -> bool:
        return now.swept_ns > int(self._clock().timestamp() * _SECOND) - _RECENT_NS

    def _may_rewrite(self, state: StateObject) -> bool:
        """Say whether nobody deletes; ends a sweep whose process has died."""
        if state.current.phase is not Phase.SWEEPING:
            return True
        if not self._has_lapsed(state):
            raise CollectingError("objects that this commit needs are being deleted, they were unused for long")
        try:
            state.change(phase=Phase.CONDEMNED, sweep="")
        except SwapLostError:
            return False
        return True

    def _has_lapsed(self, state: StateObject) -> bool:
        """Say so by the store's clock: two machines must not both believe that they may go on."""
        return state.changed_ns() + int(SWEEP_SECONDS * _SECOND) < store_time(self._store, self._prefix)

    def _walk(self, name: str, listed_ns: int, to: CommitId, known: Collection[CommitId]) -> Rewalk | None:
        """Compare what the commit needs with a list; None if there is no such list any more."""
        from versioning.maintenance.rewalking import Rewalk  # for the few commits that find something condemned

        condemned = self._condemned(name)
        if condemned is None:
            return None
        walk = Rewalk(self._store, self._commits, self._nodes, self._prefix, condemned, listed_ns)
        try:
            walk.walk([to], known=known)
        except CorruptRepositoryError as error:
            self._require(error.key)
            raise
        return walk

    def _condemned(self, name: str) -> Mapping[ObjectKind, IdSet] | None:
        from versioning.maintenance.condemned import CondemnedList

        with self._lock:
            if name not in self._sets:
                try:
                    with CondemnedList.download(self._store, list_key(self._prefix, name)) as found:
                        self._sets = {**dict(list(self._sets.items())[-1:]), name: found.sets()}
                except SourceNotFoundError:
                    return None
            return self._sets[name]

    def _check_swept(self, now: GcState, to: CommitId, known: Collection[CommitId]) -> None:
        walk = self._walk(now.swept_list, now.swept_listed_ns, to, known)
        if walk is None or not walk.count:
            return
        gone = [key for key, _ in self._rows(now.swept_list, walk) if self._time(key) is None]
        if gone:
            raise ObjectsCollectedError(gone[0], len(gone))

    def _rewrite(self, name: str, walk: Rewalk, to: CommitId) -> None:
        """Write again what is condemned and needed, unless somebody has done so already.

        The commit comes last, when all else is safe: one that a sweep finds written again is whole.
        """
        last = self._prefix + ObjectKind.COMMIT.key(bytes.fromhex(to))
        rows = list(self._rows(name, walk))
        with ThreadPoolExecutor(CONCURRENCY // 4, "forebay-rewrite") as pool:
            for part in ([row for row in rows if row[0] != last], [row for row in rows if row[0] == last]):
                done = pool.map(lambda row: self._rewrite_one(*row), part)
                gone = [key for key in done if key is not None]
                if gone:
                    raise ObjectsCollectedError(gone[0], len(gone))

    def _rewrite_one(self, key: str, condemned_ns: int) -> str | None:
        """Write an object again; returns its key if it is gone."""
        written = self._time(key)
        if written is None:
            return key
        if is_same_time(written, condemned_ns):
            try:
                data, _ = self._store.fetch(key)
            except SourceNotFoundError:
                return key
            self._store.put(key, data)
        return None

    def _rows(self, name: str, walk: Rewalk) -> Iterator[tuple[str, int]]:
        """Yield key and time when it was condemned of each object that is needed."""
        from versioning.maintenance.condemned import CondemnedList

        with CondemnedList.download(self._store, list_key(self._prefix, name)) as condemned:
            for batch in condemned.batches():
                found = batch.where(walk.needed[batch.kind].contains(batch.ids))
                for identity, written in zip(found.ids, found.times.tolist(), strict=True):
                    yield self._prefix + found.kind.key(identity.tobytes()), written

    def _require(self, key: str) -> None:
        if self._time(key) is None:
            raise ObjectsCollectedError(key)

    def _time(self, key: str) -> int | None:
        """Return when an object was written; None if it is gone."""
        try:
            return written_ns(self._store, key) or 0
        except SourceNotFoundError:
            return None
