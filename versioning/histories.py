"""Which commits a question is about: ranges, paths, metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from versioning.ancestry import merge_bases, walk_range
from versioning.errors import RevisionNotFoundError
from versioning.nodes import NodeId
from versioning.spans import Span, diff_spans, spans_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from versioning.commits import Commit, CommitId
    from versioning.committing import Workspace


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which commits to show.

    Attributes:
        starts: These and their ancestors.
        hidden: But not these and theirs.
        paths: Only commits that changed one of these files, or a file below one of these directories. Of a merge that
            has them as one of its parents has, only that parent's history is followed, as git does.
        meta: Only commits with these values in their `meta`; a value that is no text is compared as Python writes it.
        limit: At most so many.
    """

    starts: tuple[CommitId, ...]
    hidden: tuple[CommitId, ...] = ()
    paths: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None


def history(work: Workspace, query: HistoryQuery) -> Iterator[tuple[CommitId, Commit]]:
    """Yield the commits that a question is about: children before parents, newer ones first.

    With paths, each commit costs the nodes that cover them and that its parent does not have: O(depth) for a file.

    Raises:
        InvalidNameError: For what cannot be a path.
    """
    left = query.limit
    for identity, commit in _candidates(work, query):
        if left is not None and left <= 0:
            return
        if all(key in commit.meta and _matches(commit.meta[key], value) for key, value in query.meta.items()):
            left = None if left is None else left - 1
            yield identity, commit


def range_of(text: str, *, resolve: Callable[[str], CommitId], work: Workspace) -> HistoryQuery:
    """Read a revision or a range: `A`, `A..B` (what B has and A has not), `A...B` (what one has and the other not).

    Args:
        text: What was written; a missing side is `HEAD`.
        resolve: Finds what a revision names.
        work: Of the repository.

    Raises:
        RevisionNotFoundError: If a side names no commit.
    """
    old, dots, new = split_range(text)
    if not dots:
        return HistoryQuery((resolve(old),))
    left, right = resolve(old or "HEAD"), resolve(new or "HEAD")
    if dots == "..":
        return HistoryQuery((right,), (left,))
    return HistoryQuery((left, right), tuple(merge_bases(work.commits, [left], [right])))


def split_range(text: str) -> tuple[str, str, str]:
    """Take `A..B` or `A...B` apart: left side, dots ("" if it is no range), right side.

    Raises:
        RevisionNotFoundError: If it has dots twice.
    """
    dots = "..." if "..." in text else ".."
    old, found, new = text.partition(dots)
    if ".." in new:
        raise RevisionNotFoundError(text, detail="expected A..B or A...B")
    return old, found, new


def _candidates(work: Workspace, query: HistoryQuery) -> Iterator[tuple[CommitId, Commit]]:
    if not query.paths:
        yield from walk_range(work.commits, query.starts, query.hidden)
        return
    same = _SameParent(work, spans_of(query.paths))
    for identity, commit in walk_range(work.commits, query.starts, query.hidden, follow=same.follow):
        if same.changed(commit):
            yield identity, commit


class _SameParent:
    """Says whether a commit changed some paths, and where their history goes on."""

    def __init__(self, work: Workspace, spans: list[Span]) -> None:
        self._work = work
        self._spans = spans
        self._last: tuple[Commit, CommitId | None, bool] | None = None

    def changed(self, commit: Commit) -> bool:
        """Say whether a commit has the paths as none of its parents has them."""
        return self._look(commit)[1]

    def follow(self, commit: Commit) -> tuple[CommitId, ...]:
        """Return the parents to go on with."""
        parent = self._look(commit)[0]
        return commit.parents if parent is None else (parent,)

    def _look(self, commit: Commit) -> tuple[CommitId | None, bool]:
        """Return the first parent that has the paths alike, and whether the commit changed them."""
        if self._last is None or self._last[0] is not commit:
            same = next((parent for parent in commit.parents if not self._differs(parent, commit)), None)
            changed = same is None and (bool(commit.parents) or self._differs(None, commit))
            self._last = (commit, same, changed)
        return self._last[1], self._last[2]

    def _differs(self, parent: CommitId | None, commit: Commit) -> bool:
        root = NodeId(bytes.fromhex(commit.tree))
        before = self._work.tree_root(parent)
        return before != root and bool(diff_spans(self._work.nodes, before, root, self._spans))


def _matches(value: object, wanted: str) -> bool:
    return value == wanted or (not isinstance(value, str) and str(value) == wanted)
