"""Walking history: ancestors, ranges, and where two histories met last."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from versioning.commits import Commit, CommitId, CommitStore

_OURS, _THEIRS, _OLD = 1, 2, 4


def walk(commits: CommitStore, start: CommitId) -> Iterator[tuple[CommitId, Commit]]:
    """Yield a commit and all its ancestors, each once: children before parents, newer ones first."""
    return walk_range(commits, [start])


def walk_range(
    commits: CommitStore,
    starts: Iterable[CommitId],
    hidden: Iterable[CommitId] = (),
    *,
    follow: Callable[[Commit], Iterable[CommitId]] | None = None,
) -> Iterator[tuple[CommitId, Commit]]:
    """Yield what the starts and their ancestors are, without what the hidden ones and theirs are (`hidden..start`).

    Children come before parents, newer commits first, each once; it stops where only hidden commits are left.

    Args:
        commits: Where to read.
        starts: What to show.
        hidden: What not to show.
        follow: Says which parents of a shown commit to go on with; by default all.
    """
    queue = _Queue(commits)
    dropped = set(hidden)
    queue.push([*starts, *dropped])
    while any(identity not in dropped for identity in queue.waiting()):
        identity, commit = queue.pop()
        if identity in dropped:
            dropped.update(commit.parents)
            queue.push(commit.parents)
        else:
            yield identity, commit
            queue.push(commit.parents if follow is None else follow(commit))


def is_ancestor(commits: CommitStore, candidate: CommitId, of: CommitId) -> bool:
    """Say whether `candidate` is `of` or one of its ancestors; walks no further than its generation."""
    if candidate == of:
        return True
    lowest = commits.read(candidate).generation
    for identity, commit in walk(commits, of):
        if identity == candidate:
            return True
        if commit.generation < lowest:
            return False
    return False


def merge_bases(commits: CommitStore, ours: Iterable[CommitId], theirs: Iterable[CommitId]) -> list[CommitId]:
    """Return the best common ancestors of two sets of commits: those that are no ancestor of another common one.

    Usually one; several after criss-cross merges, none if the histories have nothing in common. Highest generation
    first, ties by id, so that every machine and both directions of a merge see the same order.
    """
    flags: dict[CommitId, int] = {}
    for side, mark in ((ours, _OURS), (theirs, _THEIRS)):
        for identity in side:
            flags[identity] = flags.get(identity, 0) | mark
    queue = _Queue(commits)
    queue.push(list(flags))
    best: list[tuple[int, CommitId]] = []
    while any(flags[identity] & _OLD == 0 for identity in queue.waiting()):
        identity, commit = queue.pop()
        if flags[identity] & (_OURS | _THEIRS | _OLD) == _OURS | _THEIRS:
            best.append((commit.generation, identity))
            flags[identity] |= _OLD
        for parent in commit.parents:
            flags[parent] = flags.get(parent, 0) | flags[identity]
        queue.push(commit.parents)
    return [identity for _, identity in sorted(best, reverse=True)]


def merge_base(commits: CommitStore, ours: CommitId, theirs: CommitId) -> CommitId | None:
    """Return the best common ancestor, the first of `merge_bases`; None if there is none.

    For showing what a side did (`A...B`); a merge looks at all of them.
    """
    return next(iter(merge_bases(commits, [ours], [theirs])), None)


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

    def pop(self) -> tuple[CommitId, Commit]:
        """Hand out the next commit; there must be one."""
        identity = heapq.heappop(self._heap)[2]
        return identity, self._commits.read(identity)

    def waiting(self) -> Iterator[CommitId]:
        return (identity for _, _, identity in self._heap)


class _Descending(str):
    """A text that sorts backwards."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
