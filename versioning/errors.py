"""What can go wrong with a repository, grouped by what a caller would do about it.

    VersioningError
    ├── RepositoryNotFoundError      (FileNotFoundError)  there is no repository here
    ├── RepositoryExistsError        (FileExistsError)    there already is one
    ├── RepositoryFormatError        (ValueError)         written by a newer Forebay, or not a repository at all
    ├── RevisionNotFoundError        (LookupError)        no such branch, tag, commit or ancestor
    │   └── AmbiguousRevisionError                        an id prefix that several commits share
    ├── PathNotFoundError            (FileNotFoundError)  the revision has no such path
    ├── RefExistsError               (FileExistsError)    the branch or tag is there already
    ├── InvalidNameError             (ValueError)         a branch, tag or path that cannot be stored
    ├── NothingToCommitError                              the change set changes nothing
    ├── ConflictError                                     somebody else changed the same paths first
    │   └── MergeConflictError                            both sides of a merge changed the same paths
    ├── LostRaceError                                     other writers kept winning the compare-and-swap
    ├── UnreadableFileError          (OSError)            a local file to add cannot be read
    ├── SpoolError                   (OSError)            a temporary file cannot be written
    ├── StageError                   (ValueError)         the local stage file is damaged
    ├── StageUnavailableError        (OSError)            the local stage file cannot be read or written now
    └── CorruptRepositoryError                            an object is missing or does not match its id

`kind` names the error in machine-readable output; it is append-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

_SHOWN = 5


class VersioningError(Exception):
    """Base of every error of this package."""

    kind = "versioning"


class _FileError(VersioningError):
    """Gives errors that are also an OSError their own message."""

    def __str__(self) -> str:
        return str(self.args[0])


class RepositoryNotFoundError(_FileError, FileNotFoundError):
    """There is no repo.json at this place."""

    kind = "repository_not_found"

    def __init__(self, uri: str) -> None:
        """Name the place that was looked at."""
        super().__init__(f"no repository at {uri}; create one with: ds apply")
        self.uri = uri


class RepositoryExistsError(_FileError, FileExistsError):
    """There already is a repo.json at this place; it was not touched."""

    kind = "repository_exists"

    def __init__(self, uri: str) -> None:
        """Name the place."""
        super().__init__(f"{uri} is a repository already; open it, or choose another prefix")
        self.uri = uri


class RepositoryFormatError(VersioningError, ValueError):
    """The repository's description cannot be understood by this version."""

    kind = "repository_format"


class RevisionNotFoundError(VersioningError, LookupError):
    """The revision names no commit."""

    kind = "revision_not_found"

    def __init__(self, revision: str, *, detail: str = "", near: Sequence[str] = ()) -> None:
        """Carry the revision as written, why it fails, and names that look alike."""
        hint = f"; did you mean {', '.join(near)}?" if near else "; list names with: ds branch"
        super().__init__(f"no such revision: {revision}{f' ({detail})' if detail else ''}{hint}")
        self.revision = revision
        self.near = tuple(near)

    def __str__(self) -> str:
        return str(self.args[0])


class AmbiguousRevisionError(RevisionNotFoundError):
    """Several commits start with this prefix."""

    kind = "revision_ambiguous"

    def __init__(self, revision: str, candidates: Sequence[str]) -> None:
        """Carry the prefix and some of the commits it could mean."""
        shown = [candidate[:16] for candidate in candidates[:_SHOWN]]
        super().__init__(revision, detail="several commits start with it", near=shown)
        self.candidates = tuple(candidates)


class PathNotFoundError(_FileError, FileNotFoundError):
    """The revision has no such path."""

    kind = "path_not_found"

    def __init__(self, path: str, *, where: str = "this revision") -> None:
        """Name the path and the tree it was looked for in."""
        super().__init__(f"no such path in {where}: {path or '/'}")
        self.path = path
        self.where = where


class RefExistsError(_FileError, FileExistsError):
    """The branch or tag exists; it was not moved."""

    kind = "ref_exists"

    def __init__(self, name: str, *, what: str) -> None:
        """Name the ref; `what` is "branch" or "tag"."""
        super().__init__(f"{what} {name} exists already; choose another name")
        self.name = name
        self.what = what


class InvalidNameError(VersioningError, ValueError):
    """A name that cannot be stored; nothing was written."""

    kind = "invalid_name"

    def __init__(self, name: str, *, what: str, reason: str) -> None:
        """Carry the name, what it should name ("branch", "tag", "path") and the broken rule."""
        super().__init__(f"{name!r} cannot be a {what}: {reason}")
        self.name = name
        self.what = what
        self.reason = reason


class NothingToCommitError(VersioningError):
    """The branch's head already has exactly this content and layout."""

    kind = "nothing_to_commit"

    def __init__(self, branch: str) -> None:
        """Name the branch."""
        super().__init__(f"nothing to commit on {branch}, working tree clean")
        self.branch = branch


class ConflictError(VersioningError):
    """Paths of this change set were changed on the branch since its base; the branch was not moved.

    Attributes:
        conflicts: Table with columns path, ours, theirs (operations "A", "M", "D"), ours_size, theirs_size; `ours` is
            the branch's side.
    """

    kind = "conflict"

    def __init__(self, branch: str, conflicts: pa.Table) -> None:
        """Carry the branch and the table of conflicts."""
        super().__init__(self._describe(branch, conflicts))
        self.branch = branch
        self.conflicts = conflicts

    def _describe(self, branch: str, conflicts: pa.Table) -> str:
        return (
            f"{_count_paths(conflicts)} changed on {branch} since this change set was begun: "
            f"{_shown_paths(conflicts)}; look at them with: ds diff, then ds reset, and import or add again"
        )


class MergeConflictError(ConflictError):
    """Both sides of a merge changed the same paths in different ways; the branch was not moved."""

    kind = "merge_conflict"

    def _describe(self, branch: str, conflicts: pa.Table) -> str:
        return (
            f"merge into {branch}: {_count_paths(conflicts)} changed on both sides: "
            f"{_shown_paths(conflicts)}; make them agree on one side, then merge again"
        )


class LostRaceError(VersioningError):
    """Other writers moved the branch each time; the commit is not on it."""

    kind = "lost_race"

    def __init__(self, branch: str, *, detail: str) -> None:
        """Name the branch and what was tried."""
        super().__init__(f"{branch} moved: {detail}; run the command again")
        self.branch = branch
        self.detail = detail


class UnreadableFileError(_FileError, OSError):
    """A local file to add cannot be read; nothing was staged."""

    kind = "unreadable_file"

    def __init__(self, file: str, *, reason: str) -> None:
        """Name the file and the operating system's reason."""
        super().__init__(f"cannot read {file}: {reason}; nothing was staged")
        self.file = file
        self.reason = reason


class SpoolError(_FileError, OSError):
    """A temporary file cannot be written; nothing was staged."""

    kind = "spool"

    def __init__(self, directory: str, *, reason: str) -> None:
        """Name the directory and the operating system's reason."""
        super().__init__(f"cannot write temporary files in {directory}: {reason}; free some space or choose another")
        self.directory = directory
        self.reason = reason


class StageUnavailableError(_FileError, OSError):
    """The stage file cannot be read, written or locked; it was left as it is."""

    kind = "stage_unavailable"

    def __init__(self, file: str, *, reason: str) -> None:
        """Name the stage file and the operating system's reason."""
        super().__init__(f"cannot use the stage {file}: {reason}; nothing was staged")
        self.file = file
        self.reason = reason


class StageError(VersioningError, ValueError):
    """The stage file cannot be read; it was left as it is."""

    kind = "stage"

    def __init__(self, file: str, *, reason: str) -> None:
        """Name the stage file and what is wrong with it."""
        super().__init__(f"the stage {file} cannot be used: {reason}; delete it and stage the changes again")
        self.file = file
        self.reason = reason


class CorruptRepositoryError(VersioningError):
    """An object of the repository is missing, or its bytes do not match its id."""

    kind = "corrupt_repository"

    def __init__(self, key: str, *, reason: str) -> None:
        """Name the object's key and what is wrong with it."""
        super().__init__(f"{key}: {reason}; restore this object from a copy of the repository")
        self.key = key
        self.reason = reason


def _count_paths(conflicts: pa.Table) -> str:
    return f"{conflicts.num_rows} path{'' if conflicts.num_rows == 1 else 's'}"


def _shown_paths(conflicts: pa.Table) -> str:
    shown = [str(path) for path in conflicts.column("path").slice(0, _SHOWN).to_pylist()]
    return ", ".join(shown) + (", ..." if conflicts.num_rows > _SHOWN else "")
