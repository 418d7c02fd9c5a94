"""Importing the sources of a dataset: by one process at a time, and going on where the last import broke off."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from dataset_controller import ControllerError, scan_sources, staged_by_hand
from ds.errors import ImportRunningError
from sources.locking import locked_file
from versioning import VersioningError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dataset_controller import OpenDataset
    from versioning import ChangeSet, CommitId, Stage, Tree

    Progress: TypeAlias = Callable[[str, int], None]

_JOURNAL_SECONDS = 24 * 3600
"""A listing is continued for so long: what it listed first may have changed since."""


class Importer:
    """The imports of one dataset on this machine.

    Args:
        name: The dataset's.
        opened: Its parts.
        journals: The directory for the journals of an import, there while one is under way or interrupted. A lock file
            lies beside it.
    """

    def __init__(self, name: str, opened: OpenDataset, *, journals: Path) -> None:
        self._name = name
        self._opened = opened
        self._journals = journals

    def interrupted_at(self) -> datetime | None:
        """Say when an import broke off that `run` would continue; None: there is none, or it still runs."""
        try:
            with self._alone():
                return self._interrupted_at()
        except ImportRunningError:
            return None

    def run(
        self, stage: Stage, *, branch: str, restart: bool, on_progress: Progress, on_excluded: Progress
    ) -> ChangeSet:
        """List the sources, stage what differs from a branch, and return that. See `Dataset.import_sources`.

        Args:
            stage: Where to; what was staged by hand stays there, on the commit that it was staged on.
            branch: Whose head to compare with, if nothing was staged by hand.
            restart: List everything anew, even if an import was interrupted.
            on_progress: Called with a mount's name and how many of its objects were listed.
            on_excluded: Called with a mount's name and how many of its objects `exclude` left out.

        Raises:
            ImportRunningError: If another process imports this dataset.
            SourceError: If a source cannot be listed; the next import goes on there.
            EmptySourceError: If a mount lists nothing where the version has files; nothing was staged.
            PathClashError: If a mount lists a path and others below it; nothing was staged.
        """
        with self._alone():
            if restart or self._interrupted_at() is None:
                self._forget_journals()
            return self._stage_changes(
                stage, branch, partial(scan_sources, on_progress=on_progress, on_excluded=on_excluded)
            )

    def _stage_changes(self, stage: Stage, branch: str, scan: Callable[..., ChangeSet]) -> ChangeSet:
        mounts = self._opened.resource.spec.mounts
        before = stage.read()
        by_hand = staged_by_hand(before.changes, self._tree_at(before.base), mounts)
        base = before.base if by_hand else self._opened.repository.head(branch)
        tree = self._tree_at(base)
        try:
            changes = scan(self._opened, tree, journals=self._journals)
            stage.rewrite(lambda staged: changes.merged_with(staged_by_hand(staged, tree, mounts)), base=base)
        except (ControllerError, VersioningError):
            # What was listed is at fault, or all of it was listed: the next import must look again. After all else, a
            # source that is away or Ctrl-C, it goes on with the journals.
            self._forget_journals()
            raise
        self._forget_journals()
        return changes

    def _tree_at(self, commit: CommitId | None) -> Tree | None:
        return self._opened.repository.tree_of(commit) if commit else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other imports of the dataset away: they would write the same journals, or delete them."""
        lock = self._journals.with_name(f"{self._journals.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(locked_file(lock, seconds=0))
            except TimeoutError as error:
                raise ImportRunningError(self._name) from error
            yield

    def _interrupted_at(self) -> datetime | None:
        try:
            times = [entry.stat().st_mtime for entry in self._journals.iterdir()]
        except FileNotFoundError:
            return None
        if not times or time.time() - max(times) > _JOURNAL_SECONDS:
            return None
        return datetime.fromtimestamp(max(times), UTC)

    def _forget_journals(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._journals)
