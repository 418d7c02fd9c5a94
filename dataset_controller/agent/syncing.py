"""Looking after one dataset: its repository is there, its sources answer, what changed in them becomes a commit."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute

from dataset_controller.agent.counting import VersionLocations
from dataset_controller.agent.troubles import Trouble, mount_troubles, redacted, told_reason, trouble_of
from dataset_controller.embedded import ensure_repository
from dataset_controller.errors import ControllerError
from dataset_controller.importing import scan_sources
from dataset_controller.opening import OpenDataset
from sources import SourceError
from versioning import NodeFiles, NothingToCommitError, RepositoryNotFoundError, VersioningError
from versioning.columns import single

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dataset_controller.model import Dataset
    from sources import Location
    from versioning import ChangeSet, CommitId, Repository, Tree

compute: Any = pyarrow.compute
AUTHOR = "forebay"
TROUBLES = (SourceError, ControllerError, VersioningError, OSError)
"""What sources and repositories do to us; anything else is a bug."""


@dataclass(frozen=True)
class Version:
    """A commit, and how large it is."""

    commit: CommitId
    files: int
    size_bytes: int


@dataclass(frozen=True)
class Commit:
    """A commit that was just made.

    Attributes:
        id: Its id.
        message: What it says.
    """

    id: CommitId
    message: str


@dataclass(frozen=True)
class Report:
    """How a dataset was found.

    Attributes:
        version: At the head of its branch; None before the first commit, or if nobody can tell.
        commit: Made just now.
        repository: What is wrong with the repository.
        sources: What is wrong with the sources.
        sync: Why what changed did not become a commit.
        is_synced: Whether the sources were listed, and the branch is as they are.
    """

    version: Version | None = None
    commit: Commit | None = None
    repository: Trouble | None = None
    sources: Trouble | None = None
    sync: Trouble | None = None
    is_synced: bool = False

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return self.repository is None and self.sources is None and self.sync is None


class DatasetLook:
    """Looks at one dataset; by one thread at a time.

    Args:
        dataset: As declared.
        home: Its secrets, and a directory for what a scan that is interrupted goes on with.
    """

    def __init__(self, dataset: Dataset, home: Path) -> None:
        self._dataset = dataset
        self._home = home
        self._opened = OpenDataset(dataset, None, secrets=home / "secrets")
        self._repository: Repository | None = None

    @property
    def branch(self) -> str:
        """The branch that is synced, or shown."""
        sync = self._dataset.spec.sync
        return sync.branch if sync is not None else "main"

    def locations(self, commit: CommitId) -> Iterable[Location] | None:
        """Return where a version's bytes are; None before the repository was opened."""
        repository = self._repository
        return None if repository is None else VersionLocations(repository, commit)

    def look(self, *, checks_sources: bool = True) -> Report:
        """Look at it; what changed in its sources is committed, if it is to be synced.

        Args:
            checks_sources: Of a dataset that is not synced, ask each source for a key.
        """
        try:
            repository = self._ensured()
            head = repository.head(self.branch)
            version = self._version(head)
        except TROUBLES as error:
            self._repository = None
            return Report(repository=self._trouble(error, f"repository {self._dataset.spec.repo.uri}"))
        if self._dataset.spec.sync is None:
            troubles = mount_troubles(self._opened) if checks_sources else None
            return Report(version, sources=troubles)
        return self._sync(repository, head, version)

    def _ensured(self) -> Repository:
        if self._repository is None:
            self._opened = OpenDataset(self._dataset, None, secrets=self._home / "secrets")
            try:
                self._repository = self._opened.repository
            except RepositoryNotFoundError:  # asked first: to create one probes its store with writes
                ensure_repository(self._dataset, self._home / "secrets")
                self._repository = self._opened.repository
            self._repository.nodes.files = NodeFiles(self._home / "nodes")
        return self._repository

    def _sync(self, repository: Repository, head: CommitId | None, version: Version | None) -> Report:
        tree = repository.tree_of(head) if head is not None else None
        try:
            changes = self._scan(tree)
        except SourceError as error:
            self._repository = None  # all is opened anew: a secret may be another one
            mount = next(iter(getattr(error, "__notes__", ())), "listing the sources")
            unknown = Trouble("SourcesUnreachable", "the sources were not listed: see condition SourcesReachable")
            return Report(version, sources=self._trouble(error, mount), sync=unknown)
        except TROUBLES as error:
            return Report(version, sync=self._trouble(error, "listing the sources"))
        if not changes:
            return Report(version, is_synced=True)
        return self._commit(repository, head, changes)

    def _scan(self, tree: Tree | None) -> ChangeSet:
        """List the sources; one that goes away in the middle is continued by the next scan, if it comes soon."""
        journals = self._home / "listings" / self._dataset.metadata.name / self._opened.repository.spec.id
        try:
            changes = scan_sources(self._opened, tree, on_progress=lambda mount, count: None, journals=journals)
        except SourceError:
            raise
        except BaseException:  # what was listed is at fault: the next scan must list anew
            _forget(journals)
            raise
        _forget(journals)
        return changes

    def _commit(self, repository: Repository, head: CommitId | None, changes: ChangeSet) -> Report:
        tree = repository.tree_of(head) if head is not None else None
        message = describe(changes, tree)
        try:
            commit = repository.commit_changes(self.branch, changes, message=message, author=AUTHOR, base=head)
        except NothingToCommitError:  # somebody else was faster
            return Report(self._version(repository.head(self.branch)), is_synced=True)
        except TROUBLES as error:
            return Report(self._version(head), sync=self._trouble(error, f"committing to {self.branch}"))
        return Report(self._version(commit), commit=Commit(commit, message), is_synced=True)

    def _version(self, commit: CommitId | None) -> Version | None:
        if commit is None:
            return None
        assert self._repository is not None
        tree = self._repository.tree_of(commit)
        return Version(commit, tree.rows, tree.size)

    def _trouble(self, error: Exception, what: str) -> Trouble:
        found = trouble_of(error)
        return found._replace(message=redacted(f"{what}: {told_reason(error)}", self._dataset, self._home / "secrets"))


def describe(changes: ChangeSet, before: Tree | None) -> str:
    """Return the message of a commit of what changed in the sources."""
    known = 0 if before is None else before.get_many(single(changes.upserts.column("path"))).num_rows
    put = changes.upserts.num_rows
    counts = {"added": put - known, "changed": known, "deleted": len(changes.deleted)}
    parts = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    return f"Sync of the sources: {parts}"


def _forget(journals: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(journals)
