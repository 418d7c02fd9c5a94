"""Walking the graph of commits, guided by generation numbers."""

from __future__ import annotations

import heapq
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from versioning.commits import Commit, CommitId, CommitStore

_logger = logging.getLogger(__name__)
_OURS, _THEIRS, _OLD = 1, 2, 4


def walk(commits: CommitStore, start: CommitId) -> Iterator[tuple[CommitId, Commit]]:
    """Yield a commit and all its ancestors, each once: children before parents, newer ones first."""
    queue = _Queue(commits)
    queue.push([start])
    while (found := queue.pop()) is not None:
        identity, commit = found
        yield identity, commit
        queue.push(commit.parents)


def is_ancestor(commits: CommitStore, candidate: CommitId, of: CommitId) -> bool:
    """Say whether `candidate` is `of` or one of its ancestors; walks no further than its generation."""
    lowest = commits.read(candidate).generation
    for identity, commit in walk(commits, of):
        if identity == candidate:
            return True
        if commit.generation < lowest:
            return False
    return False


def merge_base(commits: CommitStore, ours: CommitId, theirs: CommitId) -> CommitId | None:
    """Return the best common ancestor: one that is no ancestor of another common one.

    Criss-cross merges have several; then the one with the highest generation is taken, ties by id, so that every
    machine takes the same. None if the histories have nothing in common.
    """
    flags = {ours: _OURS}
    flags[theirs] = flags.get(theirs, 0) | _THEIRS
    queue = _Queue(commits)
    queue.push({ours, theirs})
    best: list[tuple[int, CommitId]] = []
    while any(flags[identity] & _OLD == 0 for identity in queue.waiting()):
        found = queue.pop()
        assert found is not None  # something is waiting
        identity, commit = found
        if flags[identity] & (_OURS | _THEIRS | _OLD) == _OURS | _THEIRS:
            best.append((commit.generation, identity))
            flags[identity] |= _OLD
        for parent in commit.parents:
            flags[parent] = flags.get(parent, 0) | flags[identity]
        queue.push(commit.parents)
    if len(best) > 1:
        _logger.warning("%d merge bases of %s and %s; the newest is used", len(best), ours[:12], theirs[:12])
    return max(best)[1] if best else None


class _Queue:
    """Commits to visit, highest generation first, then newest; each is handed out once."""

    def __init__(self, commits: CommitStore) -> None:
        self._commits = commits
        self._heap: list[tuple[int, _Descending, CommitId]] = []
        self._seen: set[CommitId] = set()

    def push(self, identities: Iterable[CommitId]) -> None:
        for identity in identities:
            if identity not in self._seen:
                self._seen.add(identity)
                commit = self._commits.read(identity)
                heapq.heappush(self._heap, (-commit.generation, _Descending(commit.committed_at), identity))

    def pop(self) -> tuple[CommitId, Commit] | None:
        if not self._heap:
            return None
        identity = heapq.heappop(self._heap)[2]
        return identity, self._commits.read(identity)

    def waiting(self) -> Iterator[CommitId]:
        return (identity for _, _, identity in self._heap)


class _Descending(str):
    """A text that sorts backwards."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
