"""Which objects are needed: everything that commits reach, each node visited once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from versioning.commits import CommitId, CommitStore
from versioning.errors import CorruptRepositoryError
from versioning.maintenance.contents import Named, named_by
from versioning.maintenance.ids import IdSet, ids_of_hex
from versioning.maintenance.keys import ObjectKind
from versioning.maintenance.roots import CONCURRENCY
from versioning.nodes import NodeId
from versioning.nodestore import NodeStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from versioning.commits import Commit
    from versioning.maintenance.ids import Ids
    from versioning.repository import Repository

    Progress: TypeAlias = Callable[[str, int], None]
    """Called with what is being done and how many it has been done to."""

_AT_ONCE = 256  # ids taken from the stack at a time: enough for all requests, few enough that the stack stays low


class Marker:
    """Marks what commits reach. Use as a context manager.

    Memory: 16 bytes for each object reached, and a few thousand ids that wait. Commits and nodes are read anew, and
    verified against their ids, so that a damaged one can never hide what it names.

    Args:
        repository: Where.
        on_progress: Called as objects are read.

    Attributes:
        live: What was reached, by kind.
    """

    def __init__(self, repository: Repository, *, on_progress: Progress = lambda what, count: None) -> None:
        store, prefix = repository.store, repository.prefix
        self.live = {kind: IdSet() for kind in ObjectKind}
        self._commits = CommitStore(store, prefix)
        self._nodes = NodeStore(store, prefix, repository.spec, cache_bytes=0)
        self._pool = ThreadPoolExecutor(CONCURRENCY, "forebay-mark")
        self._on_progress = on_progress

    def __enter__(self) -> Marker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def mark_commits(self, starts: Iterable[CommitId], *, tolerant: bool = False) -> None:
        """Mark commits, their ancestors, and all that their trees reach.

        Args:
            starts: Where to begin.
            tolerant: Skip what is missing or damaged.

        Raises:
            CorruptRepositoryError: If something is missing or damaged, unless `tolerant`.
        """
        waiting = list(starts)
        while waiting:
            batch, waiting = waiting[-_AT_ONCE:], waiting[:-_AT_ONCE]
            new = self.live[ObjectKind.COMMIT].add(ids_of_hex(batch))
            wanted = [identity for identity, is_new in zip(batch, new, strict=True) if is_new]
            trees: list[str] = []
            for commit in self._pool.map(lambda each: self._commit(each, tolerant), wanted):
                if commit is not None:
                    waiting += commit.parents
                    trees.append(commit.tree)
            self._on_progress("commits", len(self.live[ObjectKind.COMMIT]))
            self.mark_nodes(ids_of_hex(trees), tolerant=tolerant)

    def mark_nodes(self, starts: Ids, *, tolerant: bool = False) -> None:
        """Mark nodes and all that they reach; as `mark_commits`."""
        live = self.live
        stack = [starts[live[ObjectKind.NODE].add(starts)]]
        while stack:
            last = stack.pop()
            batch, rest = last[-_AT_ONCE:], last[:-_AT_ONCE]
            if len(rest):
                stack.append(rest)
            for named in self._read(batch, tolerant):
                live[ObjectKind.PACK].add(named.packs)
                live[ObjectKind.BLOB].add(named.blobs)
                children = named.nodes[live[ObjectKind.NODE].add(named.nodes)]
                if len(children):
                    stack.append(children)
            self._on_progress("nodes", len(live[ObjectKind.NODE]))

    def _read(self, batch: Ids, tolerant: bool) -> Iterator[Named]:
        ids = [NodeId(row.tobytes()) for row in batch]
        return (named for named in self._pool.map(lambda each: self._named(each, tolerant), ids) if named is not None)

    def _named(self, node_id: NodeId, tolerant: bool) -> Named | None:
        try:
            return _unshared(named_by(self._nodes.read(node_id)))
        except CorruptRepositoryError:
            if tolerant:
                return None
            raise

    def _commit(self, identity: CommitId, tolerant: bool) -> Commit | None:
        try:
            return self._commits.read(identity)
        except CorruptRepositoryError:
            if tolerant:
                return None
            raise


def _unshared(named: Named) -> Named:
    """Copy the children, so that they do not keep their whole node in memory."""
    return named._replace(nodes=np.ascontiguousarray(named.nodes).copy())
