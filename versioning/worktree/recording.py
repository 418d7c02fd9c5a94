"""From changed files of a working copy to staged changes, and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from versioning.adding import AddOptions, upload_files
from versioning.changes import ChangeSet
from versioning.columns import compute, concat, equal_and_known, is_in, positions_in, single, take, where
from versioning.entries import ENTRY_SCHEMA
from versioning.errors import LocalChangesError, PathNotFoundError, UnreadableFileError, UnwritableFileError
from versioning.worktree.index import UNSETTLED, index_rows, listed, rows_of_files
from versioning.worktree.inspecting import Inspector
from versioning.worktree.places import Obstructed, Places, name_of
from versioning.worktree.planning import State
from versioning.worktree.selection import Selection
from versioning.worktree.updating import remove_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from versioning.adding import AddProgress
    from versioning.repository import Repository
    from versioning.worktree.copies import WorkingCopy
    from versioning.worktree.index import Index

_UNKNOWN = bytes(32)  # as a row's oid: nobody has hashed the bytes of an imported object


def record_files(
    copy: WorkingCopy,
    repository: Repository,
    files: Iterable[str],
    deleted: Iterable[str] = (),
    *,
    on_progress: Callable[[AddProgress], None] | None = None,
) -> ChangeSet:
    """Upload files of a working copy and stage them; files whose bytes the checked-out version has are not staged.

    Args:
        copy: The working copy; its lock is taken.
        repository: Where the bytes go.
        files: Paths of regular files in it.
        deleted: Paths to stage as deleted.
        on_progress: As in `add_files`.

    Returns:
        What is new in the stage.

    Raises:
        UnreadableFileError: If one of them is no regular file or cannot be read; nothing was staged.
    """
    with copy.locked(), copy.clock() as clock, Places(copy.root) as places:
        copy.require_finished()
        index = copy.index()
        now = clock.now()  # what is written from here on gets a later time, or this one: then it is looked at again
        paths = sorted(set(files), key=os.fsencode)
        _require_directories(places, paths)
        root = str(copy.root)  # a Path for each file would cost as much as opening it
        files_at = [(path, f"{root}/{path}") for path in paths]
        added = upload_files(repository, files_at, AddOptions(follow=False), on_progress=on_progress)
        changes = added.changes.merged_with(ChangeSet.of(deleted=deleted))
        base = index.head.commit
        same = _same_as(repository, index, changes.upserts)
        copy.stage.rewrite(lambda staged: _without(staged.merged_with(changes), same), base=base)
        copy.save(index.edited(rows_of_files(added.changes.upserts, added.stats, before=now), changes.deleted))
        return _without(changes, same)


def remove_tracked(
    copy: WorkingCopy, paths: Sequence[str], *, cached: bool = False, force: bool = False, recorded: Index | None = None
) -> ChangeSet:
    """Delete tracked files, or all of a directory, and stage that they are gone.

    Args:
        copy: The working copy; its lock is taken.
        paths: Files and directories in it.
        cached: Leave the files on the disk, untracked.
        force: Delete also what was changed here.
        recorded: For tests: the index to use.

    Raises:
        PathNotFoundError: If a path names no tracked file; nothing was done.
        LocalChangesError: If files were changed here; nothing was done.
    """
    with copy.locked(), copy.clock() as clock, Places(copy.root) as places:
        copy.require_finished()
        index = recorded or copy.index()
        gone = tracked_at(index, paths)
        if not cached and not force:
            found = Inspector(copy.root, index, places, clock).look(gone)
            lost = {each.path: "changed here" for each in found if each.state == State.CHANGED}
            # Nothing but the stage and the disk has these bytes: both would be gone.
            added = set(listed(copy.stage.read().changes.upserts.column("path")))
            lost.update((path, "staged, not committed yet") for path in gone if path in added)
            if lost:
                hint = "Nothing was touched. Keep the files with --cached, or delete them with --force."
                raise LocalChangesError(lost, what="would be deleted", hint=hint)
        changes = ChangeSet.of(deleted=gone)
        copy.stage.rewrite(lambda staged: staged.merged_with(changes), base=index.head.commit)
        if not cached:
            remove_files(places, gone)
        copy.save(index.edited(deleted=changes.deleted))
        return changes


def delete_files(copy: WorkingCopy, paths: Sequence[str]) -> None:
    """Delete files, changed ones too, and directories that are empty then; the index and the stage stay.

    Raises:
        UnwritableFileError: If the file system refuses one of them.
    """
    if paths:
        with copy.locked(), Places(copy.root) as places:
            copy.require_finished()
            remove_files(places, paths)


def move_tracked(copy: WorkingCopy, repository: Repository, source: str, target: str) -> ChangeSet:
    """Rename a tracked file or directory, on the disk and in the stage; no byte is read.

    Args:
        copy: The working copy; its lock is taken.
        repository: Holds the version.
        source: What to rename.
        target: Its new path; nothing may be there.

    Raises:
        PathNotFoundError: If nothing of `source` is tracked; nothing was done.
        UnwritableFileError: If there is something at `target`, or the file system refuses; nothing was staged.
    """
    with copy.locked(), copy.clock() as clock, Places(copy.root) as places:
        copy.require_finished()
        index = copy.index()
        paths = tracked_at(index, [source])
        clean = [each.state == State.CLEAN for each in Inspector(copy.root, index, places, clock).look(paths)]
        entries = current_entries(copy, repository, index, paths)
        moved = [target + path[len(source) :] for path in listed(entries.column("path"))]
        named = entries.set_column(0, ENTRY_SCHEMA.field("path"), pa.array(moved, pa.string()))
        changes = ChangeSet.of_table(named, entries.column("path").combine_chunks())
        _rename(places, source, target)
        copy.stage.rewrite(lambda staged: staged.merged_with(changes), base=index.head.commit)
        renamed = [target + path[len(source) :] for path in paths]
        rows = take(index.rows, index.positions(pa.array(paths, pa.string())))
        now = clock.now()
        found = [places.stat(path) for path in renamed]
        kept = [row for row, stat in enumerate(found) if stat is not None]
        oids = listed(rows.column("oid"))
        sizes = listed(rows.column("size"))
        settled = [
            clean[row] and found[row].st_mtime_ns < now and found[row].st_size == sizes[row]  # type: ignore[union-attr]
            for row in kept
        ]
        fresh = index_rows(
            [renamed[row] for row in kept],
            [found[row] for row in kept],  # type: ignore[misc] # none of these is None
            [oids[row] for row in kept],
            settled,
        )
        copy.save(index.edited(fresh, pa.array(paths, pa.string())))
        return changes


def unstage(copy: WorkingCopy, repository: Repository, path: str = "") -> ChangeSet:
    """Forget what is staged at a file or below a directory ("": everything); the files stay as they are.

    Returns:
        What was forgotten.

    Raises:
        PathNotFoundError: If nothing is staged there.
    """
    with copy.locked():
        copy.require_finished()
        index = copy.index()
        staged = copy.stage.read().changes
        paths = staged.paths()
        gone = paths.filter(pa.array(_at(paths, path)))
        if path and not len(gone):
            raise PathNotFoundError(path, where="the stage")
        forgotten = _only(staged, gone)
        rest = _without(staged, gone)
        if rest:
            copy.stage.rewrite(lambda now: _without(now, gone), base=index.head.commit)
        else:
            copy.stage.clear()
        copy.save(index.edited(_unlooked(_base_entries(repository, index, gone)), gone))
        return forgotten


def current_entries(copy: WorkingCopy, repository: Repository, index: Index, paths: Sequence[str]) -> pa.Table:
    """Return the entries of tracked paths: what is staged goes before what is checked out."""
    names = pa.array(sorted(paths, key=str.encode), pa.string())
    staged = copy.stage.read().changes.upserts
    staged = where(staged, is_in(staged.column("path"), names))
    rest = names.filter(pa.array(~is_in(names, staged.column("path"))))
    if index.head.commit is None:
        return staged
    return concat([staged, repository.tree_of(index.head.commit).get_many(rest)], ENTRY_SCHEMA)


def tracked_at(index: Index, paths: Iterable[str]) -> list[str]:
    """Return the tracked files that paths name, or that lie below them, sorted.

    Raises:
        PathNotFoundError: If one names none.
    """
    gone: set[str] = set()
    for path in paths:
        found = listed(index.paths.filter(pa.array(index.at(path))))
        if not found:
            raise PathNotFoundError(path, where="the tracked files")
        gone.update(found)
    return sorted(gone, key=str.encode)


def _require_directories(places: Places, paths: Sequence[str]) -> None:
    """See that no symbolic link leads to one of some files, sorted by path; the files themselves are opened later."""
    known = None
    for path in paths:
        directory = path.rpartition("/")[0]
        if directory == known:
            continue
        try:
            found = places.parent(path)
        except Obstructed as error:
            raise UnreadableFileError(path, reason=f"{error.path} is a symbolic link or a file") from error
        if found is None:
            raise UnreadableFileError(path, reason="no such file")
        known = directory


def _rename(places: Places, source: str, target: str) -> None:
    try:
        if places.stat(target) is not None:
            raise UnwritableFileError(target, reason="something is there already; remove it first")
        into = places.parent(target, create=True)
        assert into is not None
        into = os.dup(into)  # looking up the source closes it
        try:
            parent = places.parent(source)
            if parent is None:
                raise PathNotFoundError(source, where="the working copy")
            os.rename(name_of(source), name_of(target), src_dir_fd=parent, dst_dir_fd=into)
        finally:
            os.close(into)
        places.prune(source.rpartition("/")[0])
    except Obstructed as error:
        raise UnwritableFileError(target, reason=f"{error.path} is no directory") from error
    except OSError as error:
        if isinstance(error, (UnwritableFileError, PathNotFoundError)):
            raise
        raise UnwritableFileError(target, reason=error.strerror or str(error)) from error


def _base_entries(repository: Repository, index: Index, paths: pa.Array[Any]) -> pa.Table:
    if index.head.commit is None:
        return ENTRY_SCHEMA.empty_table()
    found = repository.tree_of(index.head.commit).get_many(paths)
    return where(found, Selection(index.head.sparse).mask(found.column("path")))


def _same_as(repository: Repository, index: Index, entries: pa.Table) -> pa.Array[Any]:
    """Return the paths of entries whose bytes the checked-out version has at that path."""
    if index.head.commit is None or not entries.num_rows:
        return pa.array([], pa.string())
    base = repository.tree_of(index.head.commit).get_many(single(entries.column("path")))
    at = positions_in(base.column("path"), entries.column("path"))
    same = equal_and_known(base.column("oid"), take(entries, at).column("oid"))
    paths: pa.Array[Any] = single(where(base, same).column("path"))
    return paths


def _without(changes: ChangeSet, paths: pa.Array[Any]) -> ChangeSet:
    upserts = where(changes.upserts, ~is_in(changes.upserts.column("path"), paths))
    return ChangeSet(upserts, changes.deleted.filter(pa.array(~is_in(changes.deleted, paths))))


def _only(changes: ChangeSet, paths: pa.Array[Any]) -> ChangeSet:
    upserts = where(changes.upserts, is_in(changes.upserts.column("path"), paths))
    return ChangeSet(upserts, changes.deleted.filter(pa.array(is_in(changes.deleted, paths))))


def _at(paths: pa.Array[Any], path: str) -> Any:
    if not path:
        return np.ones(len(paths), np.bool_)
    return np.asarray(compute.or_(compute.equal(paths, path), compute.starts_with(paths, f"{path}/")))


def _unlooked(entries: pa.Table) -> pa.Table:
    """Return rows of the index for files that nobody has looked at since."""
    split = [path.rpartition("/") for path in listed(entries.column("path"))]
    count = entries.num_rows
    return pa.table(
        {
            "directory": pa.array([above + slash for above, slash, _ in split], pa.string()),
            "name": pa.array([name for _, _, name in split], pa.string()),
            "size": entries.column("size"),
            "mtime_ns": pa.repeat(0, count),
            "ctime_ns": pa.repeat(UNSETTLED, count),
            "inode": pa.repeat(0, count),
            "oid": pa.array([oid or _UNKNOWN for oid in listed(entries.column("oid"))], pa.binary(32)),
        }
    )
