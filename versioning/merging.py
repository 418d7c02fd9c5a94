"""Three-way merges: which changes of one side go on top of the other, and where both sides meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from blake3 import blake3

from versioning.changes import ChangeSet
from versioning.columns import compute, concat, is_in, positions_in, single, take, where
from versioning.diffs import DELETED, LAYOUT, Diff, same_content
from versioning.entries import ENTRY_SCHEMA, entries_table, table_entries
from versioning.names import MAX_PATH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from versioning.columns import Mask
    from versioning.commits import CommitId
    from versioning.entries import Entry
    from versioning.strategies import Strategies

CONFLICT_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("path", pa.string(), nullable=False),
        pa.field("ours", pa.string(), nullable=False),
        pa.field("theirs", pa.string(), nullable=False),
        pa.field("ours_size", pa.int64()),
        pa.field("theirs_size", pa.int64()),
    )
)
"""One row per path that both sides changed differently: their operations, and sizes (null where deleted)."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge did.

    Attributes:
        kind: "up-to-date" (nothing to do), "fast-forward" (the branch now names the merged commit), "merged",
            "squashed" (one commit with one parent), "reverted" or "picked".
        commit: What the branch names now.
    """

    kind: Literal["up-to-date", "fast-forward", "merged", "squashed", "reverted", "picked"]
    commit: CommitId


@dataclass(frozen=True, eq=False)
class MergePlan:
    """What a merge would do.

    Attributes:
        changes: What to apply to our tree.
        conflicts: Table of `CONFLICT_SCHEMA`; if it has rows, do not apply.
        ours: Table of `ENTRY_SCHEMA`: our side of the conflicts, without what we deleted; ascending by path.
        theirs: The same of their side.
    """

    changes: ChangeSet
    conflicts: pa.Table
    ours: pa.Table
    theirs: pa.Table


def plan_merge(ours: Diff, theirs: Diff) -> MergePlan:
    """Decide what of their changes goes on top of ours; both are against the same base.

    A path that only they changed is taken. Where both did: the same content on both sides, or deleted on both, is no
    conflict; a content change or deletion wins over a layout change, and our layout over theirs; everything else
    (two contents, or a deletion and a content) is a conflict. Pure.
    """
    at = positions_in(theirs.table.column("path"), ours.table.column("path"))
    both = np.flatnonzero(at >= 0)
    ours_ops, theirs_ops = _ops(take(ours.table, at[both])), _ops(take(theirs.table, both))
    agreed = _agreed(ours, theirs, single(theirs.table.column("path").take(both)))
    agreed |= (ours_ops == DELETED) & (theirs_ops == DELETED)
    conflicting = ~agreed & (ours_ops != LAYOUT) & (theirs_ops != LAYOUT)
    wanted = np.ones(theirs.table.num_rows, dtype=np.bool_)
    wanted[both] = (ours_ops == LAYOUT) & (theirs_ops != LAYOUT)
    conflicts = _conflicts(take(ours.table, at[both][conflicting]), take(theirs.table, both[conflicting]))
    paths = conflicts.column("path")
    return MergePlan(_changes_of(theirs, wanted), conflicts, _rows(ours, paths), _rows(theirs, paths))


def settled(plan: MergePlan, strategies: Strategies, *, taken: Callable[[pa.Array[Any]], Mask]) -> MergePlan:
    """Settle the conflicts that a strategy is for; see `versioning.strategies.Strategy`.

    Args:
        plan: Of `plan_merge`.
        strategies: Which is for which path.
        taken: Says of each path whether our tree or their tree has a file of that name.
    """
    if not plan.conflicts.num_rows:
        return plan
    how = strategies.of(single(plan.conflicts.column("path")))
    ours_gone, theirs_gone = (_texts(plan.conflicts, side) == DELETED for side in ("ours", "theirs"))
    union = how == "union"
    both = union & ~ours_gone & ~theirs_gone
    copies, both = _copies(plan, both, taken)
    keep, take_theirs = _newest(plan, how == "newest")
    keep |= (how == "ours") | (union & theirs_gone) | both
    take_theirs |= (how == "theirs") | (union & ours_gone)
    paths = single(plan.conflicts.column("path"))
    taken_paths = paths.filter(pa.array(take_theirs))
    upserts = where(plan.theirs, is_in(plan.theirs.column("path"), taken_paths))
    gone = paths.filter(pa.array(take_theirs & theirs_gone))
    more = ChangeSet.of_table(concat([upserts, copies], ENTRY_SCHEMA), gone)
    left = where(plan.conflicts, ~(keep | take_theirs))
    return MergePlan(
        plan.changes.merged_with(more),
        left,
        where(plan.ours, is_in(plan.ours.column("path"), left.column("path"))),
        where(plan.theirs, is_in(plan.theirs.column("path"), left.column("path"))),
    )


def _newest(plan: MergePlan, wanted: Mask) -> tuple[Mask, Mask]:
    """Say which conflicts our side and which theirs settles by being the later one."""
    times = []
    for side in (plan.ours, plan.theirs):
        at = positions_in(plan.conflicts.column("path"), side.column("path"))
        known = compute.fill_null(side.column("mtime_ns"), -1).to_numpy()
        found = np.full(len(at), -1, dtype=np.int64)
        found[at >= 0] = known[at[at >= 0]]
        times.append(found)
    ours, theirs = times
    usable = wanted & (ours >= 0) & (theirs >= 0)
    return usable & (ours > theirs), usable & (theirs > ours)


def _copies(plan: MergePlan, both: Mask, taken: Callable[[pa.Array[Any]], Mask]) -> tuple[pa.Table, Mask]:
    """Return their entries under names beside ours, and which conflicts that settles: not where the name is taken."""
    paths = single(plan.conflicts.column("path")).filter(pa.array(both))
    rows = where(plan.theirs, is_in(plan.theirs.column("path"), paths))
    named = [replace(each, path=beside(each)) for each in table_entries(rows)]
    names = pa.array([each.path for each in named], pa.string())
    changed = plan.changes.paths()
    free = ~(taken(names) | is_in(names, changed)) if named else np.zeros(0, dtype=np.bool_)
    free &= np.array([len(each.path.encode()) <= MAX_PATH_BYTES for each in named], dtype=np.bool_)
    settles = both.copy()
    settles[np.flatnonzero(both)] = free
    return entries_table([each for each, good in zip(named, free, strict=True) if good]), settles


def beside(theirs: Entry) -> str:
    """Return the path that "union" keeps their content under, beside ours: `a/b~theirs-1f0c9a2b.png`."""
    content = theirs.oid.hex() if theirs.oid else blake3(f"{theirs.source}".encode()).hexdigest()
    directory, slash, name = theirs.path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    marked = f"{stem}~theirs-{content[:8]}.{suffix}" if dot and stem else f"{name}~theirs-{content[:8]}"
    return f"{directory}{slash}{marked}"


def _rows(diff: Diff, paths: Any) -> pa.Table:
    return where(diff.new_entries, is_in(diff.new_entries.column("path"), paths))


def _agreed(ours: Diff, theirs: Diff, paths: Any) -> Mask:
    """Say which of the paths both sides have with the same content."""
    agreed = np.zeros(len(paths), dtype=np.bool_)
    in_ours = positions_in(paths, ours.new_entries.column("path"))
    in_theirs = positions_in(paths, theirs.new_entries.column("path"))
    present = np.flatnonzero((in_ours >= 0) & (in_theirs >= 0))
    agreed[present] = same_content(
        take(ours.new_entries, in_ours[present]), take(theirs.new_entries, in_theirs[present])
    )
    return agreed


def _changes_of(diff: Diff, wanted: Mask) -> ChangeSet:
    rows = where(diff.table, wanted)
    entries = where(diff.new_entries, is_in(diff.new_entries.column("path"), rows.column("path")))
    gone = where(rows, _ops(rows) == DELETED)
    return ChangeSet(entries, single(gone.column("path")))


def _ops(rows: pa.Table) -> NDArray[Any]:
    return _texts(rows, "op")


def _texts(rows: pa.Table, column: str) -> NDArray[Any]:
    return np.asarray(single(rows.column(column)).to_numpy(zero_copy_only=False), dtype=object)


def _conflicts(ours: pa.Table, theirs: pa.Table) -> pa.Table:
    columns = [ours.column("path"), ours.column("op"), theirs.column("op")]
    sizes = [ours.column("new_size"), theirs.column("new_size")]
    return pa.Table.from_arrays([single(column) for column in columns + sizes], schema=CONFLICT_SCHEMA)
