"""A working copy: a directory that shows one version of a dataset, and what was changed there since."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sources.locking import locked_file
from versioning.columns import as_filter, where
from versioning.commits import check_commit_id
from versioning.errors import InterruptedUpdateError, LocalChangesError, WorkingCopyBusyError
from versioning.staging import Stage
from versioning.worktree.clock import FileClock, NoClock
from versioning.worktree.index import listed, read_index, write_index
from versioning.worktree.inspecting import Inspector
from versioning.worktree.places import Places
from versioning.worktree.planning import State
from versioning.worktree.scanning import LOCAL
from versioning.worktree.selection import Selection
from versioning.worktree.updating import Update, UpdateReport, changes_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from versioning.changes import ChangeSet
    from versioning.commits import CommitId
    from versioning.repository import Repository
    from versioning.worktree.index import Head, Index
    from versioning.worktree.writing import Fetch

LOCK_SECONDS = 10.0
"""How long a command waits for another one in the same working copy."""


class WorkingCopy:
    """The files of one version in a directory. Any number of processes may use it; those that change it take turns.

    Everything of its own lies in `.ds/local`: the index, the stage, a lock and files that are not in place yet.

    Args:
        root: The directory.
        lock_seconds: How long to wait for another process.
    """

    def __init__(self, root: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self.root = root
        self.local = root / LOCAL
        self._lock_seconds = lock_seconds

    @property
    def stage(self) -> Stage:
        """What is staged for the next commit."""
        return Stage(self.local / "stage.parquet")

    def index(self) -> Index:
        """Return what is checked out.

        Raises:
            WorkingCopyIndexError: If it is damaged.
        """
        return read_index(self.local / "index.arrow")

    def save(self, index: Index) -> None:
        """Replace the index; the caller holds the lock."""
        write_index(self.local / "index.arrow", index)

    @contextmanager
    def locked(self, *, seconds: float | None = None) -> Iterator[None]:
        """Keep other processes from changing the working copy.

        Raises:
            WorkingCopyBusyError: If another one does for too long, or this one may not write here.
        """
        wait = self._lock_seconds if seconds is None else seconds
        with ExitStack() as held:
            try:
                held.enter_context(locked_file(self.local / "lock", seconds=wait))
            except OSError as error:
                raise WorkingCopyBusyError(str(self.root), reason=error.strerror or str(error)) from error
            yield

    def clock(self) -> FileClock | NoClock:
        """Return the clock of the file system; close it."""
        try:
            return FileClock(self.local / "clock")
        except OSError:  # read-only: it can still be looked at
            return NoClock()

    def interrupted(self) -> list[CommitId]:
        """Return the commits, the last one last, whose files are here because their update did not come to its end."""
        try:
            content: Any = json.loads((self.local / "update.json").read_bytes())
            commits = [check_commit_id(commit) for commit in content["commits"]]
            return commits if content["index"] == self._index_token() else []  # else the index was saved since
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def require_finished(self) -> None:
        """Refuse to go on after an update that did not come to its end.

        Raises:
            InterruptedUpdateError: If there is one.
        """
        found = self.interrupted()
        if found:
            raise InterruptedUpdateError(found[-1])

    def require_room(self, changes: ChangeSet) -> None:
        """See that changes could be checked out without loss: nothing they touch was changed or staged here.

        Raises:
            LocalChangesError: Naming what was.
        """
        index = self.index()
        chosen = Selection(index.head.sparse)
        upserts = where(changes.upserts, chosen.mask(changes.upserts.column("path")))
        paths, oids = listed(upserts.column("path")), listed(upserts.column("oid"))
        gone = listed(changes.deleted.filter(as_filter(index.positions(changes.deleted) >= 0)))
        staged = set(listed(self.stage.read().changes.paths()))
        conflicts = {path: "staged here" for path in (*paths, *gone) if path in staged}
        with self.clock() as clock, Places(self.root) as places:
            inspector = Inspector(self.root, index, places, clock)
            for found in (*inspector.look(paths, lambda at: oids[at]), *inspector.look(gone)):
                if found.state == State.CHANGED:
                    conflicts.setdefault(found.path, "changed here" if found.tracked else "untracked and in the way")
        if conflicts:
            raise LocalChangesError(conflicts)

    def update(
        self,
        repository: Repository,
        fetch: Fetch,
        head: Head,
        *,
        force: bool = False,
        on_progress: Callable[[UpdateReport], None] | None = None,
    ) -> UpdateReport:
        """Let the files be those of another version, writing and deleting only what differs.

        Files that were changed here are never overwritten without `force`; an update that was interrupted is finished
        by the next. What is staged stays staged, unless `force` forgets it.

        Args:
            repository: Holds the version.
            fetch: Reads its bytes.
            head: What to check out; its commit must be there.
            force: Throw away what was changed and staged here. Untracked files stay unless they are in the way.
            on_progress: Called after each batch of files.

        Raises:
            LocalChangesError: If changed files are in the way; no file was touched.
            UnwritableFileError: If the file system refuses a file; run it again.
            WorkingCopyBusyError: If another process has the lock.
        """
        with self.locked(), self.clock() as clock:
            index = self.index()
            update = Update(self, repository, fetch, index, head, clock, force=force, on_progress=on_progress)
            halfway = self.interrupted()
            update.prepare(halfway)
            if update.plan.conflicts:
                raise LocalChangesError(update.plan.conflicts)
            self._begin([*halfway, *([head.commit] if head.commit else [])])
            done = update.run()
            self.save(done)
            self._end()
            if force:
                self.stage.clear()
            elif self.stage.read().changes:  # what this version has is no change any more
                left = partial(changes_left, repository, head.commit)
                self.stage.rewrite(left, base=head.commit)
            return update.report

    def _begin(self, commits: list[CommitId]) -> None:
        """Leave word of the versions whose files may be here until the index is saved."""
        content = {"commits": list(dict.fromkeys(commits)), "index": self._index_token()}
        temporary = self.local / ".update.json"
        temporary.write_text(json.dumps(content))
        os.rename(temporary, self.local / "update.json")

    def _index_token(self) -> str:
        try:
            found = os.stat(self.local / "index.arrow")
        except FileNotFoundError:
            return ""
        return f"{found.st_ino}:{found.st_mtime_ns}"

    def _end(self) -> None:
        with suppress(FileNotFoundError):
            (self.local / "update.json").unlink()
