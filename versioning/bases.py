"""What a merge compares both sides with: their best common ancestor, or what stands for several.

Criss-cross merges leave several best common ancestors. They are merged with each other, in memory, and where *they*
are in conflict no content is known to both sides: such a path is in conflict again, unless both sides have it alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning.ancestry import merge_bases, walk_range
from versioning.changes import ChangeSet
from versioning.columns import compute, concat, is_in, single, sorted_by_path, where
from versioning.committing import diff_commits
from versioning.diffs import Diff, diff_tables
from versioning.entries import ENTRY_SCHEMA, Entry, EntryKind, entries_table
from versioning.errors import HistoryCutError
from versioning.merging import plan_merge
from versioning.surroundings import plan_near
from versioning.trees import Tree

if TYPE_CHECKING:
    from versioning.commits import CommitId
    from versioning.committing import Workspace
    from versioning.merging import MergePlan

_MAX_DEPTH = 8  # of criss-crosses on criss-crosses
_UNKNOWN = bytes(32)  # no content has this hash


@dataclass(frozen=True, eq=False)
class Side:
    """A commit, or what stands for several.

    Attributes:
        commits: Which.
        top: The commit whose tree it has, but for `overlay`; None: no paths.
        overlay: What is different there.
    """

    commits: frozenset[CommitId]
    top: CommitId | None
    overlay: ChangeSet

    @classmethod
    def of(cls, commit: CommitId | None) -> Side:
        """Return one commit as it is; None has no paths."""
        return cls(frozenset({commit} if commit else ()), commit, ChangeSet.of())


class MergeBases:
    """Finds what merges compare with."""

    def __init__(self, work: Workspace) -> None:
        self._work = work

    def plan(self, ours: CommitId, theirs: CommitId) -> MergePlan:
        """Plan a three-way merge of two commits; reads O(changes) leaves.

        Raises:
            HistoryCutError: If where they parted was cut off.
        """
        ours_side, theirs_side = Side.of(ours), Side.of(theirs)
        return self.plan_over(self.base_of(ours_side, theirs_side), ours_side, theirs_side)

    def plan_over(self, base: Side, ours: Side, theirs: Side) -> MergePlan:
        """Plan to bring onto one side what leads from a base to another side; reads O(changes) leaves."""
        if base.overlay or ours.overlay or theirs.overlay:
            return plan_merge(self.compare(base, ours), self.compare(base, theirs))
        root = self._work.tree_root
        return plan_near(self._work.nodes, root(base.top), root(ours.top), root(theirs.top))

    def base_of(self, ours: Side, theirs: Side, *, depth: int = 0) -> Side:
        """Return what both sides have in common; the same with the sides swapped."""
        found = merge_bases(self._work.commits, ours.commits, theirs.commits)
        if not found:
            self._check_whole(ours, theirs)
            return Side.of(None)
        base = Side.of(found[0])
        for other in found[1:]:
            base = self._joined(base, Side.of(other), depth)
        return base

    def compare(self, old: Side, new: Side) -> Diff:
        """Return what leads from one side to another."""
        diff = self._diff(old.top, new.top)
        if not old.overlay and not new.overlay:
            return diff
        touched = [single(diff.table.column("path")), old.overlay.paths(), new.overlay.paths()]
        paths = compute.unique(pa.concat_arrays(touched))
        paths = paths.take(compute.array_sort_indices(paths))
        return diff_tables(self._rows(old, paths), self._rows(new, paths))

    def _check_whole(self, ours: Side, theirs: Side) -> None:
        """Refuse sides that may have had something in common: without it, what one side deleted would come back."""
        commits = self._work.commits
        for identity, commit in walk_range(commits, ours.commits | theirs.commits):
            if len(commit.parents) < len(commits.read_whole(identity).parents):
                left, right = (min(side.commits)[:12] for side in (ours, theirs))
                raise HistoryCutError(
                    f"{left} and {right} have no common commit: ds expire cut off what is before {identity[:12]}, so "
                    "what either side deleted is not known; bring single commits over with: ds cherry-pick"
                )

    def _joined(self, left: Side, right: Side, depth: int) -> Side:
        """Merge two bases into one that stands for both."""
        if depth >= _MAX_DEPTH:
            # Not worth going on: what they do not agree on is unknown, which can only make conflicts, never hide one.
            diff = self.compare(left, right)
            changes = ChangeSet.of()
            unknown = diff.only("A", "M", "D").table.column("path")
        else:
            base = self.base_of(left, right, depth=depth + 1)
            plan = plan_merge(self.compare(base, left), self.compare(base, right))
            changes, unknown = plan.changes, plan.conflicts.column("path")
        overlay = left.overlay.merged_with(changes).merged_with(ChangeSet.of_table(_unknown_rows(unknown)))
        return Side(left.commits | right.commits, left.top, overlay)

    def _diff(self, old: CommitId | None, new: CommitId | None) -> Diff:
        return diff_commits(self._work, old, new)

    def _rows(self, side: Side, paths: Any) -> pa.Table:
        """Return the rows of a side at some paths."""
        upserts = where(side.overlay.upserts, is_in(side.overlay.upserts.column("path"), paths))
        if side.top is None:
            return upserts
        root = self._work.tree_root(side.top)
        assert root is not None
        rows = Tree(self._work.nodes, root).get_many(paths)
        kept = where(rows, ~is_in(rows.column("path"), side.overlay.paths()))
        return sorted_by_path(concat([kept, upserts], ENTRY_SCHEMA))


def _unknown_rows(paths: Any) -> pa.Table:
    """Return entries that no side can have: with them as the base, each side seems to have changed the path."""
    return entries_table(
        Entry(str(path), EntryKind.BLOB, 0, _UNKNOWN, None, "", "", "", 0, 0) for path in paths.to_pylist()
    )
