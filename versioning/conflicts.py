"""Conflicts that wait for a person: what they are, and how each is to be settled, in one local file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from sources.lazy import LazyModule
from versioning.changes import ChangeSet
from versioning.clashes import find_clashes, is_clashing
from versioning.columns import concat, is_in, positions_in, single, sorted_by_path, take, where
from versioning.commits import CommitId, check_commit_id
from versioning.diffs import same_content
from versioning.entries import ENTRY_SCHEMA
from versioning.errors import MergeStateError, PathClashError, PathNotFoundError, VersioningError
from versioning.integrating import Job, MergeOptions
from versioning.localfiles import LockedFile
from versioning.merging import CONFLICT_SCHEMA, MergePlan, is_gone
from versioning.strategies import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

How = Literal["ours", "theirs", "delete", "file"]
"""How a conflict is settled: with a side, be it a file or a deletion; with a deletion; with another file."""

CHOICE_SCHEMA: pa.Schema = pa.schema([pa.field("path", pa.string(), False), pa.field("how", pa.string(), False)])
_HEADER = b"forebay.merge"
_ROLE = pa.field("role", pa.string(), nullable=False)
_NOTE = pa.field("note", pa.string(), nullable=False)
_parquet: Any = LazyModule("pyarrow.parquet")


@dataclass(frozen=True, eq=False)
class MergeState:
    """A merge, revert or cherry-pick that stopped at conflicts.

    Attributes:
        branch: Where it goes.
        head: The branch's commit that the conflicts are with.
        job: What is brought onto it.
        conflicts: Table of `CONFLICT_SCHEMA`, ascending by path.
        ours: Table of `ENTRY_SCHEMA`: our side, without what we deleted.
        theirs: The same of their side.
        choices: Table of `CHOICE_SCHEMA`: what was settled, ascending by path.
        files: Table of `ENTRY_SCHEMA`: the files that "file" stands for.
    """

    branch: str
    head: CommitId
    job: Job
    conflicts: pa.Table
    ours: pa.Table
    theirs: pa.Table
    choices: pa.Table
    files: pa.Table

    @classmethod
    def of(cls, branch: str, head: CommitId, job: Job, plan: MergePlan) -> MergeState:
        """Return the state of a plan that has conflicts, with nothing settled."""
        nothing = CHOICE_SCHEMA.empty_table()
        return cls(branch, head, job, plan.conflicts, plan.ours, plan.theirs, nothing, ENTRY_SCHEMA.empty_table())

    @property
    def left(self) -> pa.Table:
        """The conflicts that are not settled."""
        return where(self.conflicts, ~is_in(self.conflicts.column("path"), self.choices.column("path")))

    def how_of(self) -> dict[str, str]:
        """Return how each settled path is settled."""
        return _pairs(self.choices, "how")

    def resolved(self, paths: Sequence[str], how: How, *, files: pa.Table | None = None) -> MergeState:
        """Settle paths; what was said of them before is forgotten.

        Args:
            paths: Conflicts, or directories that have some below them.
            how: How.
            files: With "file", table of `ENTRY_SCHEMA` with one row for each path.

        Raises:
            PathNotFoundError: If nothing there is in conflict; nothing was settled.
            PathClashError: If a path would be a file and a directory with what is settled already; as above.
        """
        known = single(self.conflicts.column("path"))
        chosen = np.zeros(len(known), dtype=np.bool_)
        for path in paths:
            # One file cannot stand for a directory's files that the path clashes with.
            found = _at_or_below(known, path) if how != "file" else _at(known, path)
            if not found.any():
                raise PathNotFoundError(path, where="the conflicts; see: ds conflicts")
            chosen |= found
        settled = known.filter(pa.array(chosen))
        rows = pa.Table.from_arrays([settled, pa.array([how] * len(settled), pa.string())], schema=CHOICE_SCHEMA)
        old = where(self.choices, ~is_in(self.choices.column("path"), settled))
        kept = where(self.files, ~is_in(self.files.column("path"), settled))
        state = replace(
            self,
            choices=sorted_by_path(concat([old, rows], CHOICE_SCHEMA)),
            files=sorted_by_path(concat([kept, *([files] if files is not None else [])], ENTRY_SCHEMA)),
        )
        state._check_no_clash()
        return state

    def _how_at(self, paths: Any) -> Any:
        """Return how each path is settled; "" if it is not."""
        at = positions_in(paths, self.choices.column("path"))
        how = np.asarray([*self.choices.column("how").to_pylist(), ""], dtype=object)
        return how[at]  # -1, of those that are not settled, is the last one

    def _check_no_clash(self) -> None:
        """Check that what is settled can be together."""
        paths = single(self.conflicts.column("path"))
        how = self._how_at(paths)
        gone = [is_gone(self.conflicts, side) for side in ("ours", "theirs")]
        present = (how != "") & _present(how, *gone)
        for clash in find_clashes(known := single(paths.filter(pa.array(present)))):
            raise PathClashError(str(known[clash.file].as_py()), str(known[clash.start].as_py()))

    def settle(self, plan: MergePlan) -> MergePlan:
        """Settle those conflicts of a plan that were settled here while both sides were what they are in the plan."""
        paths = single(plan.conflicts.column("path"))
        done = is_in(paths, self.choices.column("path"))
        done &= _same_side(paths, self.ours, plan.ours) & _same_side(paths, self.theirs, plan.theirs)
        how = np.where(done, self._how_at(paths), "")
        ours_gone, theirs_gone = is_gone(plan.conflicts, "ours"), is_gone(plan.conflicts, "theirs")
        # What was settled may clash with what came since: then what would arrive is a conflict again.
        arrives = (how == "file") | ((how == "theirs") & ~theirs_gone)
        how[is_clashing(paths, _present(how, ours_gone, theirs_gone)) & arrives] = ""
        from_theirs = paths.filter(pa.array((how == "theirs") & ~theirs_gone))
        from_files = paths.filter(pa.array(how == "file"))
        upserts = [
            where(plan.theirs, is_in(plan.theirs.column("path"), from_theirs)),
            where(self.files, is_in(self.files.column("path"), from_files)),
        ]
        gone = paths.filter(pa.array((how == "delete") | ((how == "theirs") & theirs_gone)))
        return plan.settled_by(ChangeSet.of_table(concat(upserts, ENTRY_SCHEMA), gone), how != "")

    def moved(self, head: CommitId, plan: MergePlan) -> MergeState:
        """Return the state after the branch moved: the conflicts of a new plan, with what still holds settled."""
        left = self.settle(plan).conflicts.column("path")
        kept = is_in(self.choices.column("path"), plan.conflicts.column("path"))
        kept &= ~is_in(self.choices.column("path"), left)
        return replace(
            MergeState.of(self.branch, head, self.job, plan), choices=where(self.choices, kept), files=self.files
        )


class MergeFile:
    """Keeps the state of a merge that is under way. Safe for several processes.

    Args:
        path: The file; a lock file lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self._file = LockedFile(path)

    def read(self) -> MergeState | None:
        """Return the state; None if no merge is under way.

        Raises:
            MergeStateError: If the file is damaged.
            StageUnavailableError: If it cannot be read.
        """
        data = self._file.read()
        return None if data is None else _decode(data, str(self._file.path))

    def begin(self, state: MergeState) -> None:
        """Keep the state of a merge that begins.

        Raises:
            MergeStateError: If one is under way already.
        """
        with self._file.locked():
            if (found := self.read()) is not None:
                raise MergeStateError(under_way(found))
            self._file.publish(_encode(state))

    def update(self, change: Callable[[MergeState], MergeState]) -> MergeState:
        """Replace the state by what a function makes of it, with the file locked.

        Raises:
            MergeStateError: If no merge is under way.
        """
        with self._file.locked():
            found = self.read()
            if found is None:
                raise MergeStateError("no merge is under way; nothing to settle")
            state = change(found)
            self._file.publish(_encode(state))
            return state

    def clear(self) -> bool:
        """Forget the merge; say whether there was one."""
        with self._file.locked():
            return self._file.remove()


def under_way(state: MergeState) -> str:
    """Say that a merge is under way, and what to do."""
    return (
        f"a {state.job.kind} of {state.job.source[:12]} into {state.branch} is under way; "
        "end it with: ds merge --continue, or: ds merge --abort"
    )


def _at_or_below(paths: Any, path: str) -> Any:
    top = path.rstrip("/")
    return np.array([each == top or each.startswith(f"{top}/") for each in paths.to_pylist()], dtype=np.bool_)


def _at(paths: Any, path: str) -> Any:
    return np.array([each == path for each in paths.to_pylist()], dtype=np.bool_)


def _present(how: Any, ours_gone: Any, theirs_gone: Any) -> Any:
    """Say of each conflict whether the path has a file when it is settled so; not settled, it stays as ours."""
    kept = ((how == "ours") | (how == "")) & ~ours_gone
    return kept | ((how == "theirs") & ~theirs_gone) | (how == "file")


def _same_side(paths: Any, before: pa.Table, now: pa.Table) -> Any:
    """Say of each path whether a side is what it was: the same content, or deleted."""
    at_before, at_now = positions_in(paths, before.column("path")), positions_in(paths, now.column("path"))
    same = (at_before < 0) & (at_now < 0)
    both = np.flatnonzero((at_before >= 0) & (at_now >= 0))
    same[both] = same_content(take(before, at_before[both]), take(now, at_now[both]))
    return same


def _encode(state: MergeState) -> bytes:
    header = {
        "format": 1,
        "branch": state.branch,
        "head": state.head,
        "kind": state.job.kind,
        "source": state.job.source,
        "message": state.job.message,
        "author": state.job.author,
        "mainline": state.job.mainline,
        "options": asdict(state.job.options),
    }
    sides = {"ours": state.ours, "theirs": state.theirs}
    ops = {
        side: dict(zip(*(state.conflicts.column(n).to_pylist() for n in ("path", side)), strict=True)) for side in sides
    }
    parts = [_rows(sides[side], role=side, notes=ops[side]) for side in sides]
    header["clashes"] = {path: clash for path, clash in _pairs(state.conflicts, "clash").items() if clash}
    parts.append(_rows(state.files, role="chosen", notes=state.how_of()))
    table = pa.concat_tables(parts).replace_schema_metadata({_HEADER: json.dumps(header).encode()})
    sink = pa.BufferOutputStream()
    _parquet.write_table(table, sink, compression="zstd", use_dictionary=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _rows(entries: pa.Table, *, role: str, notes: dict[str, str]) -> pa.Table:
    """Return one row for each note: its entry, or a blank one where there is none."""
    paths = pa.array(list(notes), pa.string())
    entries = where(entries, is_in(entries.column("path"), paths))
    missing = paths.filter(pa.array(~is_in(paths, entries.column("path"))))
    blank = {field.name: _blank(field, len(missing)) for field in ENTRY_SCHEMA}
    rows = concat([entries, pa.table({**blank, "path": missing}, schema=ENTRY_SCHEMA)], ENTRY_SCHEMA)
    rows = rows.append_column(_ROLE, pa.array([role] * rows.num_rows, pa.string()))
    return rows.append_column(
        _NOTE, pa.array([notes[str(path)] for path in rows.column("path").to_pylist()], pa.string())
    )


def _blank(field: Any, count: int) -> Any:
    if field.nullable:
        return pa.nulls(count, field.type)
    return pa.array(["" if pa.types.is_string(field.type) else 0] * count, field.type)


def _decode(data: bytes, path: str) -> MergeState:
    try:
        table = _parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        header = json.loads((table.schema.metadata or {})[_HEADER])
        if header["format"] != 1:
            raise ValueError("it is of another version")
        return _state_of(header, table)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, EOFError, VersioningError) as error:
        hint = f"delete it and merge again ({error})"
        raise MergeStateError(f"the merge state {path} cannot be used; {hint}") from error


def _state_of(header: dict[str, Any], table: pa.Table) -> MergeState:
    roles = np.asarray(table.column("role").to_pylist(), dtype=object)
    parts = {role: sorted_by_path(where(table, roles == role)) for role in ("ours", "theirs", "chosen")}
    present = {
        role: where(rows, np.asarray(rows.column("key").to_pylist(), dtype=object) != "")
        .select(ENTRY_SCHEMA.names)
        .cast(ENTRY_SCHEMA)
        for role, rows in parts.items()
    }
    ours, theirs = parts["ours"], parts["theirs"]
    sizes = [_sizes(side.column("path"), present[role]) for role, side in (("ours", ours), ("theirs", theirs))]
    columns = [single(ours.column("path")), single(ours.column("note")), single(theirs.column("note")), *sizes]
    clashes = header.get("clashes", {})  # merges that an earlier version began know none
    columns.append(pa.array([clashes.get(path) for path in ours.column("path").to_pylist()], pa.string()))
    options = header["options"]
    drivers = tuple(Driver(**each) for each in options.pop("drivers"))
    job = Job(
        kind=header["kind"],
        source=check_commit_id(header["source"]),
        message=header["message"],
        author=header["author"],
        options=MergeOptions(**options, drivers=drivers),
        mainline=header["mainline"],
    )
    return MergeState(
        header["branch"],
        check_commit_id(header["head"]),
        job,
        pa.Table.from_arrays(columns, schema=CONFLICT_SCHEMA),
        present["ours"],
        present["theirs"],
        pa.Table.from_arrays(
            [single(parts["chosen"].column("path")), single(parts["chosen"].column("note"))], schema=CHOICE_SCHEMA
        ),
        present["chosen"],
    )


def _sizes(paths: Any, entries: pa.Table) -> Any:
    known = _pairs(entries, "size")
    return pa.array([known.get(path) for path in paths.to_pylist()], pa.int64())


def _pairs(rows: pa.Table, column: str) -> dict[str, Any]:
    return dict(zip(map(str, rows.column("path").to_pylist()), rows.column(column).to_pylist(), strict=True))
