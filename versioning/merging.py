"""Three-way merges: which changes of one side go on top of the other, and where both sides meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from blake3 import blake3

from versioning.changes import ChangeSet
from versioning.clashes import find_clashes, is_clashing
from versioning.columns import compute, concat, is_in, positions_in, single, sorted_by_path, take, where
from versioning.diffs import ADDED, DELETED, LAYOUT, Diff, diff_tables, same_content
from versioning.entries import ENTRY_SCHEMA, entries_table, table_entries
from versioning.names import MAX_PATH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from versioning.columns import Mask
    from versioning.commits import CommitId
    from versioning.entries import Entry
    from versioning.strategies import Strategies
    from versioning.taking import Arrival

CONFLICT_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("path", pa.string(), nullable=False),
        pa.field("ours", pa.string(), nullable=False),
        pa.field("theirs", pa.string(), nullable=False),
        pa.field("ours_size", pa.int64()),
        pa.field("theirs_size", pa.int64()),
        pa.field("clash", pa.string()),
    )
)
"""One row per path that both sides changed differently: their operations, and sizes (null where there is no file).

And one per path that clashes: a file on one side, and on the other side a directory. `clash` is what it clashes with,
the operation of a side that never had the path is `ABSENT`.
"""
ABSENT = "-"


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
        standing: Table of `ENTRY_SCHEMA`: what our tree has where they changed something, so that it need not be read
            again; None: nobody has looked. Ascending by path.
        arrival: What is merged, where that is one tree compared with one other.
    """

    changes: ChangeSet
    conflicts: pa.Table
    ours: pa.Table
    theirs: pa.Table
    standing: pa.Table | None = None
    arrival: Arrival | None = None

    def settled_by(self, more: ChangeSet, done: Mask) -> MergePlan:
        """Return the plan with more changes, and without the conflicts that these settle."""
        left = where(self.conflicts, ~done)
        return replace(
            self,
            changes=self.changes.merged_with(more),
            conflicts=left,
            ours=where(self.ours, is_in(self.ours.column("path"), left.column("path"))),
            theirs=where(self.theirs, is_in(self.theirs.column("path"), left.column("path"))),
        )

    def diff(self) -> Diff | None:
        """Return what the changes do to our tree; None if it would have to be read for that."""
        if self.standing is None:
            return None
        old = where(self.standing, is_in(self.standing.column("path"), self.changes.paths()))
        return diff_tables(old, self.changes.upserts)


def plan_merge(ours: Diff, theirs: Diff) -> MergePlan:
    """Decide what of their changes goes on top of ours; both are against the same base.

    A path that only they changed is taken. Where both did: the same content on both sides, or deleted on both, is no
    conflict; a content change or deletion wins over a layout change, and our layout over theirs; everything else
    (two contents, or a deletion and a content) is a conflict. So is a path that one side has as a file and the other
    one as a directory, with all that either side put there. Pure.
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
    plan = MergePlan(_changes_of(theirs, wanted), conflicts, _rows(ours, paths), _rows(theirs, paths))
    return _with_clashes(plan, ours, theirs)


def _with_clashes(plan: MergePlan, ours: Diff, theirs: Diff) -> MergePlan:
    """Take out of the changes what clashes with something of ours, and add all that clashes to the conflicts.

    What a conflict could bring counts as well. All clashes are between paths that a side has put there: what neither
    side touched was there together with all else of that side.
    """
    standing = _paths_without(ours.new_entries, plan.changes.deleted)
    arriving = pa.concat_arrays([single(plan.changes.upserts.column("path")), single(plan.theirs.column("path"))])
    if not len(standing) or not len(arriving):
        return plan
    paths = compute.unique(pa.concat_arrays([standing, arriving])).sort()
    is_new = is_in(paths, arriving) & ~is_in(paths, standing)
    partners = _partners(paths, is_new)
    if not partners:
        return plan
    at = np.array(sorted(partners), dtype=np.int64)
    named = pa.array([partners[number] for number in at.tolist()], pa.string())
    found = _clash_rows(paths.take(at), named, ours, theirs)
    others = where(plan.conflicts, ~is_in(plan.conflicts.column("path"), found.column("path")))
    conflicts = sorted_by_path(concat([others, found], CONFLICT_SCHEMA))
    every = conflicts.column("path")
    upserts = where(plan.changes.upserts, ~is_in(plan.changes.upserts.column("path"), found.column("path")))
    return MergePlan(ChangeSet(upserts, plan.changes.deleted), conflicts, _rows(ours, every), _rows(theirs, every))


def _partners(paths: Any, is_new: Mask) -> dict[int, str]:
    """Return for each path that clashes, by its position, another one that it clashes with, best of the other side."""
    partners: dict[int, str] = {}
    for clash in find_clashes(paths):
        members = clash.members()
        if not is_new[members].any():
            continue
        partners |= dict.fromkeys(members[1:], str(paths[clash.file].as_py()))
        other = np.flatnonzero(is_new[clash.start : clash.stop] != is_new[clash.file])
        partners[clash.file] = str(paths[clash.start + (int(other[0]) if len(other) else 0)].as_py())
    return partners


def _clash_rows(paths: Any, partners: Any, ours: Diff, theirs: Diff) -> pa.Table:
    """Return the conflicts of paths that clash with their partners."""
    columns: list[Any] = []
    for side in (ours, theirs):
        at = positions_in(paths, side.table.column("path"))
        rows, known = take(side.table, np.maximum(at, 0)), pa.array(at >= 0)
        columns.append(compute.if_else(known, single(rows.column("op")), ABSENT))
        columns.append(compute.if_else(known, single(rows.column("new_size")), None))
    ours_op, ours_size, theirs_op, theirs_size = columns
    rows = pa.Table.from_arrays([paths, ours_op, theirs_op, ours_size, theirs_size, partners], schema=CONFLICT_SCHEMA)
    ops = _texts(rows, "ours"), _texts(rows, "theirs")
    # A file that one side left as it was is none that it never had: that side had the clash before.
    kept = (ops[0] == ADDED) | (ops[1] == ADDED) | ((ops[0] != ABSENT) & (ops[1] != ABSENT))
    return where(rows, kept)


def _paths_without(entries: pa.Table, gone: Any) -> Any:
    paths = single(entries.column("path"))
    return paths.filter(pa.array(~is_in(paths, gone)))


def is_gone(conflicts: pa.Table, side: str) -> Mask:
    """Say of which conflicts a side ("ours", "theirs") has no file."""
    ops = _texts(conflicts, side)
    gone: Mask = (ops == DELETED) | (ops == ABSENT)
    return gone


def settled(plan: MergePlan, strategies: Strategies, *, taken: Callable[[pa.Array[Any]], Mask]) -> MergePlan:
    """Settle the conflicts that a strategy is for; see `versioning.strategies.Strategy`.

    Args:
        plan: Of `plan_merge`.
        strategies: Which is for which path.
        taken: Says of each path whether our tree or their tree has a file or a directory of that name, or a file where
            it has a directory.
    """
    if not plan.conflicts.num_rows:
        return plan
    paths = single(plan.conflicts.column("path"))
    how = strategies.of(paths)
    ours_gone, theirs_gone = is_gone(plan.conflicts, "ours"), is_gone(plan.conflicts, "theirs")
    clashes = np.asarray(plan.conflicts.column("clash").is_valid())
    union = how == "union"
    copies, copied = _copies(plan, union & ~theirs_gone & (clashes | ~ours_gone), taken)
    keep, take_theirs = _newest(plan, how == "newest")
    keep |= (how == "ours") | (union & theirs_gone) | copied
    take_theirs |= (how == "theirs") | (union & ours_gone & ~clashes)
    # What different strategies bring together may still clash: then what would arrive stays a conflict.
    take_theirs &= ~is_clashing(paths, np.where(take_theirs, ~theirs_gone, ~ours_gone)) | theirs_gone
    taken_paths = paths.filter(pa.array(take_theirs))
    upserts = where(plan.theirs, is_in(plan.theirs.column("path"), taken_paths))
    gone = paths.filter(pa.array(take_theirs & theirs_gone))
    more = ChangeSet.of_table(concat([upserts, copies], ENTRY_SCHEMA), gone)
    return plan.settled_by(more, keep | take_theirs)


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
    wanted = where(plan.conflicts, both)
    rows = where(plan.theirs, is_in(plan.theirs.column("path"), wanted.column("path")))
    partners = wanted.column("clash").to_pylist()
    named = [replace(each, path=beside(each, clash)) for each, clash in zip(table_entries(rows), partners, strict=True)]
    names = pa.array([each.path for each in named], pa.string())
    changed = plan.changes.paths()
    free = ~(taken(names) | is_in(names, changed)) if named else np.zeros(0, dtype=np.bool_)
    free &= np.array([len(each.path.encode()) <= MAX_PATH_BYTES for each in named], dtype=np.bool_)
    settles = both.copy()
    settles[np.flatnonzero(both)] = free
    return entries_table([each for each, good in zip(named, free, strict=True) if good]), settles


def beside(theirs: Entry, clash: str | None = None) -> str:
    """Return the path that "union" keeps their content under, beside ours: `a/b~theirs-1f0c9a2b.png`.

    Args:
        theirs: Their entry.
        clash: What its path clashes with. Of `a/b/c` with the file `a/b` it is `a/b~theirs/c`.
    """
    if clash is not None and theirs.path.startswith(f"{clash}/"):
        return f"{clash}~theirs{theirs.path[len(clash) :]}"
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
    arrays = [*(single(column) for column in columns + sizes), pa.nulls(ours.num_rows, pa.string())]
    return pa.Table.from_arrays(arrays, schema=CONFLICT_SCHEMA)
