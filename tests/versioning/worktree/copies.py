"""A repository and a working copy in plain directories, and what both hold as dictionaries."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sources import Origins, open_store
from tests.versioning.samples import AUTHOR, TINY
from versioning import ConflictError, NothingToCommitError, Repository
from versioning.worktree import (
    LOCAL,
    Changes,
    Head,
    LocalPacks,
    WorkingCopy,
    local_changes,
    record_files,
    refresh,
    unstage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sources import Location, RepositoryStore
    from versioning import CommitId
    from versioning.worktree import UpdateReport


class Bench:
    """A working copy of a repository; every method is a command."""

    def __init__(self, directory: Path, name: str = "work") -> None:
        place = directory / "repo"
        store: RepositoryStore = open_store(f"file://{place}")  # type: ignore[assignment]
        prefix = f"{str(place)[1:]}/"
        self.repository = (
            Repository.open(store, prefix) if place.exists() else Repository.init(store, prefix, spec=TINY)
        )
        self.origins = Origins()
        self.origins.add(prefix, store)
        self.root = directory / name
        (self.root / LOCAL).mkdir(parents=True, exist_ok=True)
        self.copy = WorkingCopy(self.root, lock_seconds=5)
        self.reads = 0

    def fetch(self, wanted: Sequence[Location]) -> list[bytes]:
        return [bytes(self.origins.read(each.object, start=each.offset, length=each.length)) for each in wanted]

    def checkout(
        self, commit: CommitId | None, *, branch: str | None = "main", sparse: tuple[str, ...] = (), force: bool = False
    ) -> UpdateReport:
        fetch = LocalPacks(self.fetch, self.repository.root)
        return self.copy.update(self.repository, fetch, Head(branch, commit, sparse), force=force)

    def status(self) -> Changes:
        index = self.copy.index()
        changes, known = local_changes(self.copy, index)
        refresh(self.copy, index, known)
        return changes

    def add_all(self) -> None:
        found = self.status()
        record_files(self.copy, self.repository, [*found.modified, *found.untracked], found.deleted)

    def commit(self, message: str = "") -> CommitId:
        """Stage everything and commit it, without checking anything out."""
        self.add_all()
        staged = self.copy.stage.read()
        head = self.copy.index().head
        try:
            made = self.repository.commit_changes(
                head.branch or "main", staged.changes, message=message, author=AUTHOR, base=head.commit
            )
        except (NothingToCommitError, ConflictError) as error:
            unstage(self.copy, self.repository)
            if isinstance(error, ConflictError):
                raise
            return head.commit  # type: ignore[return-value]
        self.copy.stage.clear()
        self.checkout(made, branch=head.branch)
        return made

    def version(self, files: dict[str, bytes]) -> CommitId:
        """Make a commit that holds exactly these files."""
        for path in [path for path in self.files() if path not in files]:
            (self.root / path).unlink()
        for directory in reversed(self.directories()):
            with suppress(OSError):
                (self.root / directory).rmdir()
        self.write(files)
        return self.commit()

    def write(self, files: dict[str, bytes]) -> None:
        for path, data in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(data)

    def files(self) -> dict[str, bytes]:
        """Everything on the disk but the working copy's own."""
        return dict(self._files())

    def _files(self) -> Iterable[tuple[str, bytes]]:
        for top, directories, names in os.walk(self.root):
            if Path(top) == self.root / ".ds":
                directories.remove("local")
            for name in names:
                file = Path(top, name)
                yield str(file.relative_to(self.root)), file.read_bytes()

    def directories(self) -> list[str]:
        found = (Path(top).relative_to(self.root) for top, _, _ in os.walk(self.root))
        return sorted(str(each) for each in found if each.parts and each.parts[0] != ".ds")


def simple(tmp_path: Path) -> tuple[Bench, CommitId, CommitId]:
    """Two versions: the second changes one file, deletes one and adds one."""
    bench = Bench(tmp_path)
    first = bench.version({"a/1": b"one", "a/2": b"two", "a/b/3": b"three", "top": b"top"})
    second = bench.version({"a/1": b"one", "a/2": b"TWO!", "n/4": b"four", "top": b"top"})
    return bench, first, second
