"""From one version to another in a working copy: what differs is written and deleted, nothing else is looked at."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from versioning.columns import as_filter, compute, concat, is_in, single, sorted_by_path, take, where
from versioning.committing import changes_of
from versioning.diffs import DELETED
from versioning.entries import ENTRY_SCHEMA
from versioning.errors import InvalidNameError, UnwritableFileError
from versioning.worktree.index import INDEX_SCHEMA, index_rows, listed
from versioning.worktree.inspecting import Inspector
from versioning.worktree.places import Obstructed, Places, name_of
from versioning.worktree.planning import Plan, plan_update
from versioning.worktree.scanning import LOCAL, scan
from versioning.worktree.selection import Selection
from versioning.worktree.writing import FileWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from versioning.changes import ChangeSet
    from versioning.commits import CommitId
    from versioning.repository import Repository
    from versioning.worktree.clock import Clock
    from versioning.worktree.copies import WorkingCopy
    from versioning.worktree.index import Head, Index
    from versioning.worktree.writing import Fetch


@dataclass(frozen=True)
class UpdateReport:
    """What an update did, or will have done.

    Attributes:
        files: Files to write.
        bytes: Their bytes.
        written: Files written so far.
        written_bytes: Their bytes.
        removed: Files deleted.
    """

    files: int = 0
    bytes: int = 0
    written: int = 0
    written_bytes: int = 0
    removed: int = 0

    def after(self, batch: pa.Table) -> UpdateReport:
        """Count a batch of rows of the index that were written."""
        size = self.written_bytes + int(batch.column("size").to_numpy().sum())
        return replace(self, written=self.written + batch.num_rows, written_bytes=size)


class Update:
    """One update of a working copy, whose lock the caller holds. `prepare` looks, `run` touches files.

    Attributes:
        plan: What `prepare` decided.
        report: What `run` has done.
    """

    def __init__(
        self,
        copy: WorkingCopy,
        repository: Repository,
        fetch: Fetch,
        index: Index,
        head: Head,
        clock: Clock,
        *,
        force: bool,
        on_progress: Callable[[UpdateReport], None] | None = None,
    ) -> None:
        self._copy = copy
        self._repository = repository
        self._fetch = fetch
        self._index = index
        self._head = head
        self._clock = clock
        self._force = force
        self._on_progress = on_progress or (lambda report: None)
        self._selection = Selection(head.sparse)
        self._entries = ENTRY_SCHEMA.empty_table()
        self._adopted = INDEX_SCHEMA.empty_table()
        self.plan = Plan()
        self.report = UpdateReport()

    def prepare(self, halfway: Sequence[CommitId] = ()) -> None:
        """Find out what to do; touches nothing.

        Args:
            halfway: Commits of earlier updates that did not come to their end.
        """
        wanted, unwanted = self._differences()
        again, written = self._left_behind(halfway)
        if self._force:
            again |= self._changed_here()
        wanted, unwanted = self._with_paths(wanted, unwanted, again)
        wanted = where(wanted, ~self._is_there(wanted) | is_in(wanted.column("path"), _strings(again)))
        check_names(wanted)
        check_cases(self._copy.root, wanted, self._index, unwanted)
        staged = set() if self._force else self._staged_against(wanted, unwanted)
        with Places(self._copy.root) as places:
            look = Inspector(self._copy.root, self._index, places, self._clock, halfway=written)
            oids = listed(wanted.column("oid"))
            found = list(look.look(listed(wanted.column("path")), lambda at: oids[at]))
            self.plan = plan_update(found, list(look.look(unwanted)), force=self._force)
        self.plan.conflicts.update(dict.fromkeys(staged, "staged here"))
        adopted = [(path, look.hashed[path]) for path in self.plan.adopt]
        self._adopted = index_rows(
            [path for path, _ in adopted],
            [each.stat for _, each in adopted],
            [each.oid for _, each in adopted],
            [each.settled for _, each in adopted],
        )
        self._entries = where(wanted, is_in(wanted.column("path"), _strings(self.plan.write)))

    def run(self) -> Index:
        """Delete and write files, and return the index that is true then.

        Raises:
            UnwritableFileError: If the file system refuses one.
        """
        sizes = self._entries.column("size").to_numpy()
        self.report = UpdateReport(self._entries.num_rows, int(sizes.sum()), removed=len(self.plan.remove))
        rows = [self._adopted]
        with Places(self._copy.root) as places:
            remove_files(places, self.plan.remove)
            writer = FileWriter(places, self._copy.local / "tmp", self._clock, self._fetch, self._repository.root)
            for batch in writer.write(self._entries):
                rows.append(batch)
                self.report = self.report.after(batch)
                self._on_progress(self.report)
        gone = _strings([*self.plan.remove, *self.plan.drop])
        return self._index.edited(concat(rows, INDEX_SCHEMA), gone, self._head)

    def _differences(self) -> tuple[pa.Table, list[str]]:
        """Return the entries to have and the paths to be without, by comparing what is checked out with the target."""
        before, after = self._index.head, self._head
        if after.commit is None:
            return ENTRY_SCHEMA.empty_table(), []
        if before.sparse == after.sparse and before.commit is not None:
            diff = self._repository.diff(before.commit, after.commit)
            gone = single(where(diff.table, is_in(diff.table.column("op"), pa.array([DELETED]))).column("path"))
            known = gone.filter(as_filter(self._index.positions(gone) >= 0))
            return self._selected(diff.new_entries), listed(known)
        tree = self._repository.tree_of(after.commit)
        entries = concat([self._selected(table) for table in tree.scan()], ENTRY_SCHEMA)
        staged = single(self._copy.stage.read().changes.upserts.column("path"))
        stays = is_in(self._index.paths, entries.column("path")) | is_in(self._index.paths, staged)
        return entries, listed(self._index.paths.filter(as_filter(~stays)))

    def _selected(self, entries: pa.Table) -> pa.Table:
        return where(entries, self._selection.mask(entries.column("path")))

    def _left_behind(self, halfway: Sequence[CommitId]) -> tuple[set[str], dict[str, bytes]]:
        """Return the paths that interrupted updates may have touched, and the bytes they wrote, by their hash."""
        paths: set[str] = set()
        written: dict[str, bytes] = {}
        before = self._index.head.commit
        for commit in halfway:
            if commit == before:
                continue
            diff = self._repository.diff(before, commit)
            paths.update(listed(diff.table.column("path")))
            columns = (listed(diff.new_entries.column(name)) for name in ("path", "oid"))
            written.update({path: oid for path, oid in zip(*columns, strict=True) if oid})
        return paths, written

    def _changed_here(self) -> set[str]:
        """Return the paths that are not as the index says, or staged."""
        found = scan(self._copy.root, self._index)
        paths = listed(self._index.paths.filter(as_filter(found.suspects | found.missing)))
        return {*paths, *listed(self._copy.stage.read().changes.paths())}

    def _with_paths(self, wanted: pa.Table, unwanted: list[str], again: set[str]) -> tuple[pa.Table, list[str]]:
        """Add paths to those that are to be as in the target."""
        again = again - set(listed(wanted.column("path"))) - set(unwanted)
        if not again or self._head.commit is None:
            return wanted, unwanted
        names = pa.array(sorted(again, key=str.encode), pa.string())
        more = self._selected(self._repository.tree_of(self._head.commit).get_many(names))
        absent = again - set(listed(more.column("path")))
        return sorted_by_path(concat([wanted, more], ENTRY_SCHEMA)), [*unwanted, *absent]

    def _is_there(self, entries: pa.Table) -> Any:
        """Say which entries the index has with the same bytes."""
        at = self._index.positions(entries.column("path"))
        rows = np.flatnonzero(at >= 0)
        recorded = take(self._index.rows, at[rows]).column("oid")
        same = np.zeros(entries.num_rows, np.bool_)
        same[rows] = _equal(recorded, take(entries, rows).column("oid"))
        return same

    def _staged_against(self, wanted: pa.Table, unwanted: list[str]) -> set[str]:
        """Return the staged paths that the target has otherwise."""
        staged = self._copy.stage.read().changes
        if not staged:
            return set()
        left = changes_left(self._repository, self._head.commit, staged)
        touched = {*listed(wanted.column("path")), *unwanted}
        return touched.intersection(listed(left.paths()))


def changes_left(repository: Repository, commit: CommitId | None, changes: ChangeSet) -> ChangeSet:
    """Return what of some changes a commit does not have; the same bytes in another place are no change."""
    return changes_of(repository.diff_changes(commit, changes).only("A", "M", "D"))


def remove_files(places: Places, paths: Iterable[str]) -> None:
    """Delete files and the directories that are empty then.

    Raises:
        UnwritableFileError: If the file system refuses.
    """
    directories = set()
    for path in paths:
        try:
            parent = places.parent(path)
            if parent is not None:
                os.unlink(name_of(path), dir_fd=parent)
        except (FileNotFoundError, Obstructed):
            continue
        except OSError as error:
            if isinstance(error, UnwritableFileError):
                raise
            raise UnwritableFileError(path, reason=error.strerror or str(error)) from error
        directories.add(path.rpartition("/")[0])
    for directory in sorted(directories, reverse=True):
        places.prune(directory)


def check_names(entries: pa.Table) -> None:
    """Refuse a version that would write into the working copy's own directory."""
    mask = compute.match_substring_regex(entries.column("path"), pattern=rf"(?i)^{LOCAL.replace('.', '[.]')}(/|$)")
    for path in listed(entries.column("path").filter(mask)):
        raise InvalidNameError(path, what="path in a working copy", reason=f"{LOCAL} is the working copy's own")


def check_cases(root: Path, entries: pa.Table, index: Index, gone: Sequence[str]) -> None:
    """Refuse two names that differ only in case where the file system takes them for one.

    Raises:
        UnwritableFileError: Naming one of them.
    """
    if not is_case_blind(root):
        return
    stays = index.paths.filter(as_filter(~is_in(index.paths, pa.concat_arrays([_column(entries), _strings(gone)]))))
    paths = pa.concat_arrays([_column(entries), stays])
    lower = compute.utf8_lower(paths)
    counts = compute.value_counts(lower)
    twice = counts.field("values").filter(compute.greater(counts.field("counts"), 1))
    for path in listed(paths.filter(compute.is_in(lower, value_set=twice)))[:1]:
        raise UnwritableFileError(path, reason="this file system takes it and another name for one, for their case")


def is_case_blind(root: Path) -> bool:
    """Say whether the file system of a working copy takes `a` and `A` for one name."""
    return (root / LOCAL.upper()).exists()


def _column(entries: pa.Table) -> pa.Array[Any]:
    found: pa.Array[Any] = single(entries.column("path"))
    return found


def _equal(left: Any, right: Any) -> Any:
    return np.asarray(compute.fill_null(compute.equal(left, right), False))


def _strings(values: Iterable[str]) -> pa.Array[Any]:
    return pa.array(list(values), pa.string())
