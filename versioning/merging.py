"""Three-way merges: which changes of one side go on top of the other, and where both sides meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from versioning.changes import ChangeSet
from versioning.columns import is_in, positions_in, single, take, where
from versioning.diffs import DELETED, LAYOUT, Diff, same_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from versioning.columns import Mask
    from versioning.commits import CommitId

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
        kind: "up-to-date" (nothing to do), "fast-forward" (the branch now names the merged commit), or "merged".
        commit: What the branch names now.
    """

    kind: Literal["up-to-date", "fast-forward", "merged"]
    commit: CommitId


@dataclass(frozen=True, eq=False)
class MergePlan:
    """What a merge would do.

    Attributes:
        changes: What to apply to our tree.
        conflicts: Table of `CONFLICT_SCHEMA`; if it has rows, do not apply.
    """

    changes: ChangeSet
    conflicts: pa.Table


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
    return MergePlan(_changes_of(theirs, wanted), conflicts)


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
    return np.asarray(single(rows.column("op")).to_numpy(zero_copy_only=False), dtype=object)


def _conflicts(ours: pa.Table, theirs: pa.Table) -> pa.Table:
    columns = [ours.column("path"), ours.column("op"), theirs.column("op")]
    sizes = [ours.column("new_size"), theirs.column("new_size")]
    return pa.Table.from_arrays([single(column) for column in columns + sizes], schema=CONFLICT_SCHEMA)
