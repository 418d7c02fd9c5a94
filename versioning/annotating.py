"""Which commit last changed each path."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from versioning.columns import compute, is_in, single
from versioning.spans import Span, diff_spans, spans_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.commits import Commit, CommitId
    from versioning.committing import Workspace
    from versioning.trees import Tree

_ALL = [Span(b"", b"\xff")]
_FEW = 64
"""So few paths are looked for one by one, which reads less than everything below the directory."""


class Blame(NamedTuple):
    """A commit, and the paths that it was the last to change (strings, ascending)."""

    commit_id: CommitId
    commit: Commit
    paths: pa.Array[Any]


def annotate(work: Workspace, tree: Tree, start: CommitId, path: str = "") -> Iterator[Blame]:
    """Yield which commit last changed the bytes or metadata of each file at or below a path, newest commits first.

    Each commit of the history costs the nodes that cover the paths still open and that its parent does not have, until
    every path has its commit. Where both sides of a merge have a file alike, the first parent's history is followed.

    Args:
        work: Of the repository.
        tree: That of `start`.
        start: The version to explain.
        path: A file, or a directory with all below it; "" is everything.

    Raises:
        PathNotFoundError: If the version has nothing there.
    """
    chunks = [single(table.column("path")) for table in tree.scan_at(path, columns=["path"])]
    if not chunks:
        return
    spans = spans_of([path]) if path else _ALL
    open_paths: dict[CommitId, list[pa.Array[Any]]] = {start: chunks}
    queue = [(-work.commits.read(start).generation, start)]
    while queue:
        _, identity = heapq.heappop(queue)
        commit = work.commits.read(identity)
        left = _union(open_paths.pop(identity))
        for parent in commit.parents:
            if not len(left):
                break
            same = _unchanged(work, parent, identity, left, spans)
            taken = left.filter(same)
            if len(taken):
                if parent not in open_paths:
                    heapq.heappush(queue, (-work.commits.read(parent).generation, parent))
                open_paths.setdefault(parent, []).append(taken)
                left = left.filter(compute.invert(same))
        if len(left):
            yield Blame(identity, commit, left)


def _unchanged(work: Workspace, parent: CommitId, child: CommitId, paths: pa.Array[Any], spans: list[Span]) -> Any:
    """Say for each path of the child whether the parent has it with the same content."""
    wanted = spans if len(paths) > _FEW else spans_of([str(path) for path in paths.to_pylist()])
    changed = diff_spans(work.nodes, work.tree_root(parent), work.tree_root(child), wanted).only("A", "M")
    return pa.array(~is_in(paths, changed.table.column("path")))


def _union(parts: list[pa.Array[Any]]) -> pa.Array[Any]:
    if len(parts) == 1:
        return parts[0]
    both = compute.unique(pa.concat_arrays(parts))
    ordered: pa.Array[Any] = both.take(compute.array_sort_indices(both))
    return ordered
