"""A dataset whose files lie in a working copy: what its commands read and change."""

from __future__ import annotations

import os
import stat
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_controller.opening import OpenDataset, open_plain_repository
from ds.dataset import Dataset
from ds.errors import DetachedHeadError, UsageError
from ds.settings import Settings, current_settings
from ds.worktree.finding import path_inside, read_manifest, read_plain_manifest
from ds.worktree.ignoring import IgnoreRules
from versioning import LocalChangesError, PathNotFoundError, RevisionNotFoundError, UnreadableFileError
from versioning.worktree import (
    Head,
    LocalPacks,
    WorkingCopy,
    current_entries,
    delete_files,
    local_changes,
    move_tracked,
    record_files,
    refresh,
    remove_tracked,
    restore_files,
    unstage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from dataset_controller import Catalog
    from sources import Location
    from versioning import AddProgress, ChangeSet, CommitId, Repository, Stage, Staged
    from versioning.worktree import Changes, Index, UpdateReport
    from versioning.worktree.writing import Fetch


class WorkingDataset(Dataset):
    """The dataset of a working copy. Its head is the commit that is checked out, whatever its branch does meanwhile.

    Args:
        root: The working copy.
        settings: Author and token; by default from the environment.

    Attributes:
        root: The working copy.
        copy: Its files and index.

    Raises:
        ManifestError: If the working copy's manifest is damaged.
    """

    def __init__(self, root: Path, *, settings: Settings | None = None) -> None:
        self._settings = settings or current_settings()
        self.root = root
        self.copy = WorkingCopy(root)
        self._plain = read_plain_manifest(root, self._settings.variables)
        self.name = self._plain.name if self._plain else self.opened.resource.metadata.name

    @cached_property
    def opened(self) -> OpenDataset:  # type: ignore[override] # most commands need the repository alone
        """Its parts: manifest, stores, repository, cache."""
        resource, runtime = read_manifest(self.root, self._settings.variables)
        access = self._settings.access if runtime else None
        repository = self.repository if self._plain else None
        return OpenDataset(resource, runtime, access, self._settings.secrets, repository)

    def _open_repository(self) -> Repository:
        return open_plain_repository(self._plain) if self._plain else super()._open_repository()

    @cached_property
    def _catalog(self) -> Catalog:  # type: ignore[override] # asked for by nothing that works here
        return self._settings.catalog()

    @property
    def branch(self) -> str:
        """The branch that a commit goes to.

        Raises:
            DetachedHeadError: If a commit is checked out by itself.
        """
        head = self.copy.index().head
        if head.branch is None:
            raise DetachedHeadError(head.commit or "")
        return head.branch

    @property
    def _directory(self) -> Path | None:
        return self.root

    @property
    def branch_name(self) -> str | None:
        """The branch; None if a commit is checked out by itself."""
        return self.copy.index().head.branch

    def head(self) -> CommitId | None:
        """Return the commit that is checked out; None before the first."""
        return self.copy.index().head.commit

    def resolve(self, revision: str | None) -> CommitId:
        """Return the commit that a revision means; HEAD and None are what is checked out."""
        if revision is None or revision == "HEAD" or revision.startswith(("HEAD~", "HEAD^")):
            commit = self.head()
            if commit is None:
                raise RevisionNotFoundError(revision or "HEAD", detail="nothing was committed yet: ds add, then commit")
            revision = commit + (revision or "")[4:]
        return super().resolve(revision)

    def stage(self) -> Stage:
        """Return what is staged in the working copy."""
        return self.copy.stage

    def path(self, text: str | os.PathLike[str]) -> str:
        """Return the path in the dataset of a path on this machine. Raises as `path_inside`."""
        return path_inside(self.root, text)

    def status(self, below: str = "", *, on_files: Callable[[int], None] | None = None) -> Changes:
        """Return how the files differ from what was checked out and staged; reads only those whose stat differs."""
        index = self.copy.index()
        rules = IgnoreRules(self.root)
        rules.enter_above(below)
        changes, known = local_changes(self.copy, index, below=below, ignores=rules, on_files=on_files)
        refresh(self.copy, index, known)
        return changes

    def checkout(
        self,
        revision: str | None,
        *,
        branch: str | None = None,
        sparse: Sequence[str] | None = None,
        force: bool = False,
        on_progress: Callable[[UpdateReport], None] | None = None,
    ) -> UpdateReport:
        """Let the files be those of a revision: of its newest commit, if it is a branch.

        Args:
            revision: What to check out; None: what is checked out already.
            branch: The branch to be on then; by default the one that `revision` names, if it does.
            sparse: Patterns of what to hold from now on; none at all: everything. None: as before.
            force: Throw away what was changed and staged here.
            on_progress: Called after each batch of files.

        Raises:
            LocalChangesError: If files were changed here that would be overwritten; nothing was touched.
            RevisionNotFoundError: If there is no such revision.
        """
        now = self.copy.index().head
        commit: CommitId | None
        if revision is None or revision == "HEAD":
            commit, on = now.commit, branch or now.branch
        elif self.repository.head(revision) is not None or (revision == now.branch and now.commit is None):
            commit, on = self.repository.head(revision), branch or revision
        else:
            commit, on = self.resolve(revision), branch
        head = Head(on, commit, now.sparse if sparse is None else tuple(sparse))
        fetch = LocalPacks(self._reads_of(commit), self.repository.root)
        return self.copy.update(self.repository, fetch, head, force=force, on_progress=on_progress)

    def switch(self, branch: str) -> None:
        """Check a branch out. Raises as `checkout`."""
        if self.repository.head(branch) is not None:
            self.checkout(branch)
        elif branch != self.branch_name:
            raise RevisionNotFoundError(branch, detail="no such branch", near=sorted(self.repository.branches()))

    def be_on(self, branch: str) -> None:
        """Be on a branch; the files stay as they are, and it may have no commit yet."""
        with self.copy.locked():
            self.copy.save(self.copy.index().with_head(branch=branch))

    def follow(self) -> None:
        """Check out the newest commit of the branch."""
        branch = self.branch_name
        if branch is not None and self.repository.head(branch) is not None:
            self.checkout(branch)

    def require_room(self, changes: Callable[[], ChangeSet]) -> None:
        """See that nothing that was changed or staged here is in the way of changes to the branch."""
        self.copy.require_finished()
        self.copy.require_room(changes())

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        to: str = "",
        on_progress: Callable[[AddProgress], None] | None = None,
    ) -> ChangeSet:
        """Stage what was changed, added or deleted at some paths of the working copy; ignored files are left out.

        Args:
            paths: Files and directories in the working copy; with `to` also outside of it: they are copied into it.
            to: Directory of the dataset.
            on_progress: As in `versioning.add_files`.

        Raises:
            UsageError: If a path lies elsewhere, or is ignored by `.dsignore`; nothing was staged.
        """
        if to:
            return super().add(paths, to=to, on_progress=on_progress)
        changed: set[str] = set()
        deleted: set[str] = set()
        index = self.copy.index()
        for path in paths:
            found, gone = self._changed_at(index, self.path(path), str(path))
            changed.update(found)
            deleted.update(gone)
        return record_files(self.copy, self.repository, changed, deleted, on_progress=on_progress)

    def add_changed(self, *, untracked: bool, on_progress: Callable[[AddProgress], None] | None = None) -> ChangeSet:
        """Stage every changed and deleted file, as `ds commit -a` does, and with `untracked` every new one."""
        found = self.status()
        files = [*found.modified, *found.untracked] if untracked else found.modified
        return record_files(self.copy, self.repository, files, found.deleted, on_progress=on_progress)

    def remove(self, paths: Iterable[str], *, cached: bool = False, force: bool = False) -> ChangeSet:
        """Delete tracked files and stage that; see `versioning.worktree.remove_tracked`."""
        return remove_tracked(self.copy, [self.path(path) for path in paths], cached=cached, force=force)

    def move(self, source: str, target: str) -> ChangeSet:
        """Rename a tracked file or directory; into `target`, if that is a directory."""
        before, after = self.path(source), self.path(target)
        if after != before and (self.root / after).is_dir() and not (self.root / after).is_symlink():
            after = f"{after}/{before.rpartition('/')[2]}".lstrip("/")
        if after == before:
            raise UsageError(f"{source} is called {target} already")
        if os.path.lexists(self.root / after):
            raise UsageError(f"{after} is there already; remove it first, or choose another name")
        if after.startswith(f"{before}/"):
            raise UsageError(f"{source} cannot be moved to {target}, which lies in it")
        return move_tracked(self.copy, self.repository, before, after)

    def commit(
        self,
        message: str,
        *,
        author: str | None = None,
        meta: Mapping[str, Any] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> CommitId:
        """Commit what is staged, then check the new commit out: others may have committed in between.

        Raises:
            LocalChangesError: After the commit, if a file that others changed was changed here, too.
        """
        self.copy.require_finished()
        return super().commit(message, author=author, meta=meta, lineage=lineage)

    def _forget_committed(self, staged: Staged, commit: CommitId | None = None) -> None:
        """Check out what has the staged changes; that forgets them.

        In this order, because the index is the checked-out commit and what is staged: whatever ends this half-way, no
        file is taken for one of the commit that it is not of.
        """
        del staged
        try:
            self.checkout(commit or self.repository.head(self.branch), branch=self.branch)
        except LocalChangesError as error:
            done = f"{self.branch} is at {commit[:8]}" if commit else f"{self.branch} has what was staged"
            hint = f"{done}, but others changed what was changed here; when that is settled: ds checkout {self.branch}"
            raise LocalChangesError(error.conflicts, hint=hint) from error

    def reset(self, path: str = "") -> ChangeSet:
        """Forget what is staged, at a path of the dataset or everywhere; the files stay as they are."""
        return unstage(self.copy, self.repository, path)

    def restore(
        self,
        paths: Sequence[str],
        *,
        revision: str | None = None,
        stage: bool = False,
        on_progress: Callable[[UpdateReport], None] | None = None,
    ) -> UpdateReport:
        """Write files as they were staged or checked out, or as a revision has them, over what is there.

        Tracked files there that a revision lacks are deleted, as `git restore` does; with `stage` they stay.

        Args:
            paths: Files and directories on this machine.
            revision: Whose files; None: what is staged, else checked out.
            stage: Stage them, too, as `ds checkout REV -- PATH` does.
            on_progress: Called after each batch of files.

        Raises:
            PathNotFoundError: If one of them names nothing there; nothing was written.
        """
        index = self.copy.index()
        wanted = [self.path(path) for path in paths]
        entries = self._tracked_entries(index, wanted) if revision is None else self._entries_of(revision, wanted)
        fetch = LocalPacks(self._reads_of(None), self.repository.root)
        known = revision is None
        report = restore_files(
            self.copy, self.repository, fetch, entries, stage=stage, known=known, on_progress=on_progress
        )
        if revision is not None and not stage:
            held = set(entries.column("path").to_pylist())
            found = {path for each in wanted for path in index.paths.filter(pa.array(index.at(each))).to_pylist()}
            delete_files(self.copy, sorted(found - held, key=str.encode))
        return report

    def _reads_of(self, commit: CommitId | None) -> Fetch:
        """Return what reads files through the cache, which is opened with the first of them."""

        def read_many(locations: Sequence[Location]) -> Sequence[Buffer]:
            size = self.repository.tree_of(commit).size if commit else 0
            return self.opened.client_for(size).read_many(locations)

        return read_many

    def _tracked_entries(self, index: Index, paths: Sequence[str]) -> pa.Table:
        """Return the entries at some paths that differ on the disk, so that nothing else is written."""
        changed: set[str] = set()
        for path in paths:
            if not index.at(path).any():
                raise PathNotFoundError(path, where="the tracked files")
            found, _ = local_changes(self.copy, index, below=self._directory_of(path))
            changed.update(each for each in (*found.modified, *found.deleted) if _lies_at(each, path))
        return current_entries(self.copy, self.repository, index, sorted(changed))

    def _entries_of(self, revision: str, paths: Sequence[str]) -> pa.Table:
        tree = self.tree(revision)
        tables = [table for path in paths for table in tree.scan_at(path)]
        return pa.concat_tables(tables)

    def _changed_at(self, index: Index, path: str, written: str) -> tuple[list[str], list[str]]:
        """Return the files to add and those to delete that a path of the command line names."""
        place = self.root / path
        tracked = bool(index.at(path).any())
        try:
            mode = place.lstat().st_mode
        except OSError:
            if not tracked:
                raise UnreadableFileError(written, reason="no such file or directory") from None
            return [], index.paths.filter(pa.array(index.at(path))).to_pylist()
        if path and not tracked and IgnoreRules(self.root).ignores_by_name(path, is_dir=stat.S_ISDIR(mode)):
            raise UsageError(f"{written} is ignored by .dsignore; change that, or leave the file out")
        if not stat.S_ISDIR(mode):
            return [path], []
        found = self.status(path)
        return [*found.modified, *found.untracked], found.deleted

    def _directory_of(self, path: str) -> str:
        return path if (self.root / path).is_dir() else path.rpartition("/")[0]

    def _state(self, kind: str) -> Path:
        return self.copy.local / kind


def _lies_at(path: str, where: str) -> bool:
    return not where or path == where or path.startswith(f"{where}/")
