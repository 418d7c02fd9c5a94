"""What can go wrong with a repository, grouped by what a caller would do about it.

    VersioningError
    ├── RepositoryNotFoundError      (FileNotFoundError)  there is no repository here
    ├── RepositoryExistsError        (FileExistsError)    there already is one
    ├── RepositoryFormatError        (ValueError)         written by a newer Forebay, or not a repository at all
    ├── RevisionNotFoundError        (LookupError)        no such branch, tag, commit or ancestor
    │   ├── AmbiguousRevisionError                        an id prefix that several commits share
    │   └── MainlineError                                 a parent of a merge must be named
    ├── PathNotFoundError            (FileNotFoundError)  the revision has no such path
    ├── RefExistsError               (FileExistsError)    the branch or tag is there already
    ├── InvalidNameError             (ValueError)         a branch, tag or path that cannot be stored
    │   └── PathClashError                                a path would be a file and a directory
    ├── NothingToCommitError                              the change set changes nothing
    ├── ConflictError                                     somebody else changed the same paths first
    │   └── MergeConflictError                            both sides of a merge changed the same paths
    ├── NotFastForwardError                               the branch has commits that the move would leave behind
    ├── ExpiredCommitError           (LookupError)        expire cut a commit off; no ref may name it
    ├── HistoryCutError                                   expire cut off what two commits have in common
    ├── ProtectedBranchError                              the branch only moves forward
    ├── HookRefusedError                                  a hook of the branch refuses what was to go onto it
    │   └── UntrustedHooksError                           hooks would run code that nobody here has trusted
    ├── HooksFileError               (ValueError)         .ds/hooks.yaml cannot be used
    ├── SigningError                 (OSError)            ssh-keygen cannot sign or check
    ├── AttributesError              (ValueError)         .ds/attributes in the tree cannot be used
    ├── MergeStateError              (ValueError)         a merge is under way, or none is
    ├── TransactionOverError         (ValueError)         a transaction was committed or discarded already
    ├── LostRaceError                                     other writers kept winning the compare-and-swap
    ├── UnreadableFileError          (OSError)            a local file to add cannot be read
    ├── ReaderDiedError                                   a process that read files to add was ended
    ├── SpoolError                   (OSError)            a temporary file cannot be written
    ├── StageError                   (ValueError)         the local stage file is damaged
    ├── StageUnavailableError        (OSError)            the local stage file cannot be read or written now
    ├── CollectingError                                   garbage collection is busy with what is asked for
    ├── ObjectsCollectedError        (LookupError)        garbage collection deleted what was to be committed
    ├── StoreClockError                                   the store does not tell when objects were written
    ├── WorkingCopyError                                  what a working copy has stands against it
    │   ├── LocalChangesError                             files would be lost that no version has
    │   ├── InterruptedUpdateError                        a checkout must be finished first
    │   ├── WorkingCopyBusyError     (OSError)            another process changes the working copy
    │   └── WorkingCopyIndexError    (ValueError)         its index is damaged
    ├── UnwritableFileError          (OSError)            a file of a working copy cannot be written
    └── CorruptRepositoryError                            an object is missing or does not match its id

`kind` names the error in machine-readable output; it is append-only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from versioning.commits import CommitId
    from versioning.merging import MergePlan

_SHOWN = 5
_SHOWN_CHANGES = 20


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


class MainlineError(RevisionNotFoundError):
    """It was not said, or wrongly, against which of its parents a commit is taken; nothing was done."""

    kind = "mainline"

    def __init__(self, commit: str, *, parents: int, mainline: int | None) -> None:
        """Carry the commit, how many parents it has, and the number that was given."""
        said = "say which parent is meant" if mainline is None else f"it has no parent number {mainline}"
        what = "is a merge" if parents > 1 else "is no merge"
        hint = f" with -m N, from 1 to {parents}" if parents > 1 else "; leave out -m"
        Exception.__init__(self, f"commit {commit[:12]} {what}: {said}{hint}")
        self.revision, self.near = commit, ()


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


class PathClashError(InvalidNameError):
    """A path would be a file and, of another path, a directory, which no working copy can hold; nothing was moved."""

    kind = "path_clash"

    def __init__(self, file: str, below: str, *, way_out: str = "") -> None:
        """Carry the file and a path below it; say what to do, if there is something better than the usual."""
        usual = (
            "remove or move one of them with: ds rm, ds mv; "
            "of a source, leave one out by `exclude` of its mount in the dataset's YAML"
        )
        reason = f"{file!r} is a file; {way_out or usual}"
        super().__init__(below, what="path", reason=reason)
        self.file = file
        self.below = below


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
        conflicts: Table with columns path, ours, theirs (operations "A", "M", "D", "-"), ours_size, theirs_size, clash;
            `ours` is the branch's side.
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
    """Both sides of a merge, revert or cherry-pick changed the same paths in different ways; nothing was moved.

    Attributes:
        plan: What is settled and what is not; None if nobody planned it.
        head: The branch's commit that it was planned for.
    """

    kind = "merge_conflict"

    def __init__(
        self,
        branch: str,
        conflicts: pa.Table,
        *,
        what: str = "merge",
        plan: MergePlan | None = None,
        head: CommitId | None = None,
    ) -> None:
        """Carry the branch and the table of conflicts; `what` is "merge", "revert" or "cherry-pick"."""
        self.what = what
        self.plan = plan
        self.head = head
        super().__init__(branch, conflicts)

    def _describe(self, branch: str, conflicts: pa.Table) -> str:
        shown = f"{_count_paths(conflicts)} changed on both sides: {_shown_paths(conflicts)}"
        return (
            f"{self.what} into {branch}: {shown}; settle them with: ds resolve, then ds merge --continue; "
            "or give up with: ds merge --abort"
        )


class ExpiredCommitError(VersioningError, LookupError):
    """A commit was cut off by expire; nothing may be built on it any more, for its history is not shown."""

    kind = "expired_commit"

    def __init__(self, commit: str) -> None:
        """Name the commit."""
        super().__init__(
            f"{commit[:12]} was cut off by ds expire, so no branch, tag or commit can be put on it; take its changes, "
            "while they are there, with: ds cherry-pick"
        )
        self.commit = commit

    def __str__(self) -> str:
        return str(self.args[0])


class HistoryCutError(VersioningError):
    """What is asked for needs commits that expire has cut off; nothing was changed."""

    kind = "history_cut"

    def __init__(self, text: str) -> None:
        """Say what is not known any more, and what to do."""
        super().__init__(text)


class NotFastForwardError(VersioningError):
    """The branch has commits that the target lacks; it was not moved."""

    kind = "not_fast_forward"

    def __init__(self, branch: str, to: str, *, hint: str) -> None:
        """Name the branch, where it should go, and what to do instead."""
        super().__init__(f"{branch} has commits that {to} has not, so it cannot simply move there; {hint}")
        self.branch = branch
        self.to = to


class ProtectedBranchError(VersioningError):
    """The branch is protected: it only moves forward; nothing was changed."""

    kind = "protected_branch"

    def __init__(self, branch: str, *, action: str) -> None:
        """Name the branch and what was tried."""
        super().__init__(
            f"{branch} is protected and only moves forward, refused: {action}; "
            f"commit or merge instead, or first: ds branch --unprotect {branch}"
        )
        self.branch = branch
        self.action = action


class HookRefusedError(VersioningError):
    """A hook of the branch refuses what was to go onto it; the branch was not moved.

    Attributes:
        branch: The branch.
        hook: Its id.
        reason: Why.
        findings: The first offending paths, each with what is wrong with it (may be empty).
    """

    kind = "hook_refused"

    def __init__(self, branch: str, hook: str, *, reason: str, findings: Sequence[tuple[str, str]] = ()) -> None:
        """Carry the hook, why it refuses, and the paths that it names."""
        shown = [f"\n  {path}{f': {what}' if what else ''}" for path, what in findings[:_SHOWN]]
        more = len(findings) - len(shown)
        shown += [f"\n  ... and {more:,} more"] if more > 0 else []
        super().__init__(f"hook {hook} of {branch} refused this: {reason}{''.join(shown)}\nThe branch was not moved.")
        self.branch = branch
        self.hook = hook
        self.reason = reason
        self.findings = tuple(findings)


class UntrustedHooksError(HookRefusedError):
    """Hooks of the branch would run code, and nobody here has trusted them; nothing was run.

    Attributes:
        digest: What to trust: a hash of the hooks, the files they name, and where the repository lies.
    """

    kind = "untrusted_hooks"

    def __init__(self, branch: str, hook: str, *, command: str, digest: str) -> None:
        """Name the first such hook and what it would run."""
        super().__init__(
            branch,
            hook,
            reason=f"it would run {command}, which you have not trusted; look at it with: ds hooks list, "
            "then: ds hooks trust",
        )
        self.digest = digest


class HooksFileError(VersioningError, ValueError):
    """The hooks of a version cannot be read; nothing was moved."""

    kind = "hooks_file"

    def __init__(self, reason: str) -> None:
        """Say what is wrong, and where."""
        super().__init__(f".ds/hooks.yaml: {reason}; nothing was moved, commit a corrected file (or remove it)")
        self.reason = reason


class SigningError(_FileError, OSError):
    """A signature cannot be made or checked."""

    kind = "signing"


class AttributesError(VersioningError, ValueError):
    """The attributes in a tree, or a strategy given by hand, cannot be used; nothing was merged."""

    kind = "attributes"

    def __init__(self, where: str, *, reason: str) -> None:
        """Name the file and line, or the option, and what is wrong with it."""
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class MergeStateError(VersioningError, ValueError):
    """A merge is under way where none may be, or none is where one must be, or its file is damaged."""

    kind = "merge_state"


class TransactionOverError(VersioningError, ValueError):
    """The transaction was committed or discarded already; nothing was done."""

    kind = "transaction_over"

    def __init__(self, branch: str) -> None:
        """Name the branch that it was for."""
        super().__init__(f"this transaction of {branch} is over; begin another one")
        self.branch = branch


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


class ReaderDiedError(VersioningError):
    """A process that read files for this one ended before it had answered; nothing was staged."""

    kind = "reader_died"

    def __init__(self, *, status: int) -> None:
        """Say how it ended, as `subprocess` does: the exit status, or less than 0 for a signal."""
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        memory = " (the kernel does that where memory is short)" if status == -9 else ""
        super().__init__(f"a process that reads files {how}{memory}; nothing was staged, so run it again")
        self.status = status


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


class CollectingError(VersioningError):
    """Garbage collection is deleting just now; nothing was changed."""

    kind = "collecting"

    def __init__(self, detail: str) -> None:
        """Say what it is busy with."""
        super().__init__(f"garbage collection: {detail}; run the command again in a few minutes")
        self.detail = detail


class ObjectsCollectedError(VersioningError, LookupError):
    """Objects that were uploaded or unreferenced long ago are gone; no ref was moved."""

    kind = "objects_collected"

    def __init__(self, key: str, count: int = 1) -> None:
        """Name the first such object, and say how many there are."""
        more = f" and {count - 1:,} more" if count > 1 else ""
        if "commits/" in key:
            text = (
                "garbage collection deleted this commit, nothing needed it; name another one. If staged changes were "
                "made against it, stage the files again: ds reset, then ds add or ds import"
            )
        else:
            text = (
                "garbage collection deleted it before it was committed; stage the files again: "
                "ds reset, then ds add or ds import"
            )
        super().__init__(f"{key}{more}: {text}")
        self.key = key
        self.count = count

    def __str__(self) -> str:
        return str(self.args[0])


class StoreClockError(VersioningError):
    """The store does not tell when objects were written, so none is known to be old; nothing was changed."""

    kind = "store_clock"

    def __init__(self, store: str) -> None:
        """Name the store."""
        super().__init__(f"{store} does not tell when objects were written: it cannot be collected")
        self.store = store


class WorkingCopyError(VersioningError):
    """Something in a working copy stands against what was asked for."""

    kind = "working_copy"


class LocalChangesError(WorkingCopyError):
    """Files of the working copy would be lost; none of its files was touched.

    Attributes:
        conflicts: What speaks against each path, by path.
    """

    kind = "local_changes"

    def __init__(self, conflicts: Mapping[str, str], *, what: str = "would be overwritten", hint: str = "") -> None:
        """Carry the paths; `what` says what would happen to them, `hint` what is true now and what to do."""
        lines = [f"\n  {path}: {reason}" for path, reason in list(conflicts.items())[:_SHOWN_CHANGES]]
        more = len(conflicts) - len(lines)
        lines += [f"\n  ... and {more:,} more"] if more else []
        count = f"{len(conflicts):,} file{'' if len(conflicts) == 1 else 's'}"
        hint = hint or "Nothing was touched. Commit them, move them away, or undo them with: ds restore, ds reset"
        super().__init__(f"{count} {what}:{''.join(lines)}\n{hint}")
        self.conflicts = dict(conflicts)


class InterruptedUpdateError(WorkingCopyError):
    """A checkout was interrupted: some files are of another version than the working copy says."""

    kind = "interrupted_update"

    def __init__(self, commit: str) -> None:
        """Name the commit that was being checked out."""
        super().__init__(
            f"a checkout of {commit[:8]} was interrupted; finish it with: ds checkout {commit[:8]}, or go back with: "
            "ds checkout HEAD"
        )
        self.commit = commit


class WorkingCopyBusyError(_FileError, WorkingCopyError, OSError):
    """Another process changes the working copy; nothing was done."""

    kind = "working_copy_busy"

    def __init__(self, directory: str, *, reason: str) -> None:
        """Name the working copy and why its lock cannot be had."""
        super().__init__(f"cannot lock the working copy {directory}: {reason}; nothing was done, run it again")
        self.directory = directory
        self.reason = reason


class WorkingCopyIndexError(WorkingCopyError, ValueError):
    """The index of a working copy cannot be read; it was left as it is."""

    kind = "working_copy_index"

    def __init__(self, file: str, *, reason: str) -> None:
        """Name the index and what is wrong with it."""
        super().__init__(
            f"the index {file} cannot be used: {reason}; delete it and check your branch out again: files that are as "
            "in its version are kept, others are named and left alone"
        )
        self.file = file
        self.reason = reason


class UnwritableFileError(_FileError, OSError):
    """A file of a working copy cannot be written; others may be already, and the same command goes on."""

    kind = "unwritable_file"

    def __init__(self, file: str, *, reason: str) -> None:
        """Name the file and the operating system's reason."""
        super().__init__(f"cannot write {file}: {reason}; what was written stays, run the same command again")
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
    rows = conflicts.select(["path", "clash"]).slice(0, _SHOWN).to_pylist()
    shown = [f"{row['path']} (clashes with {row['clash']})" if row["clash"] else str(row["path"]) for row in rows]
    return ", ".join(shown) + (", ..." if conflicts.num_rows > _SHOWN else "")
