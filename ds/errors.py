"""What can be wrong with a command.

CommandError
├── ImportRunningError                 another process imports the same dataset
├── MountBusyError                     a mount is in use and was not taken away
├── MountFailedError                   the process that was to serve a mount could not
├── OperationError                     a pack, process or migration did not end well
├── ObjectChangedError                 a source object is no longer the one that a commit points at
├── WritesKeptError       (OSError)    written files are not committed, and wait on the local disk
│   └── WriteConflictError             because others changed the same paths first
└── UsageError            (ValueError) the arguments do not fit together, or name what is not there
    ├── MountPointError                nothing can be mounted on this directory
    ├── NotMountedError                nothing of ours is mounted on this directory
    ├── TargetError                    a text names no dataset, version or path
    ├── TransactionError               a transaction cannot be used like this
    ├── DetachedHeadError              a working copy shows a commit and is on no branch
    ├── WriteModeError    (OSError)    a file cannot be opened like this
    └── ReadOnlyRevisionError (OSError) a tag or commit was to be written to
"""

from __future__ import annotations


class CommandError(Exception):
    """Base of every error of this package."""

    kind = "command"


class ImportRunningError(CommandError):
    """Another process of this machine imports the dataset; it was left alone, and nothing was done."""

    kind = "import_running"

    def __init__(self, dataset: str) -> None:
        """Carry the dataset's name."""
        super().__init__(f"an import of {dataset} is running already; wait until it ends, or end it")
        self.dataset = dataset


class ObjectChangedError(CommandError):
    """A source object is no longer the one that a commit points at; no byte of it was used."""

    kind = "object_changed"

    def __init__(self, commit: str, cause: str) -> None:
        """Carry the commit's id and what the source said."""
        super().__init__(f'the object changed since commit {commit[:8]}: run "ds import" ({cause})')
        self.commit = commit


class OperationError(CommandError):
    """A pack, process or migration did not end well; run again, it goes on where it stopped."""

    kind = "operation"


class MountBusyError(CommandError):
    """A mount is in use; it stays as it was."""

    kind = "mount_busy"

    def __init__(self, path: str, users: str) -> None:
        """Carry the mount point, and who uses it as far as that can be seen."""
        super().__init__(f"{path} is in use{users}; end that, or take the mount out of sight: ds umount --lazy {path}")
        self.path = path


class MountFailedError(CommandError):
    """The process that was to serve a mount ended before it did; nothing is mounted."""

    kind = "mount_failed"

    def __init__(self, path: str, *, reason: str) -> None:
        """Carry the mount point and what is known."""
        super().__init__(f"{path}: {reason}")
        self.path = path


class UsageError(CommandError, ValueError):
    """The command cannot be run like this; nothing was done."""

    kind = "usage"


class MountPointError(UsageError):
    """Nothing can be mounted on this directory; nothing was done."""

    kind = "mount_point"

    def __init__(self, path: str, *, reason: str) -> None:
        """Carry the directory, why not, and what to do."""
        super().__init__(f"{path}: {reason}")
        self.path = path


class NotMountedError(UsageError):
    """Nothing of ours is mounted on this directory; nothing was done."""

    kind = "not_mounted"

    def __init__(self, path: str) -> None:
        """Carry the directory."""
        super().__init__(f"{path}: no dataset is mounted there; see: ds mounts")
        self.path = path


class TargetError(UsageError):
    """The text names no dataset, version or path."""

    kind = "target"


class DetachedHeadError(UsageError):
    """A working copy shows a commit by itself, and a branch is needed; nothing was done."""

    kind = "detached_head"

    def __init__(self, commit: str) -> None:
        """Carry the commit."""
        super().__init__(f"no branch is checked out, only commit {commit[:8]}; begin one here: ds checkout -b NAME")
        self.commit = commit


class TransactionError(UsageError):
    """The transaction is over, belongs to another process, or writes elsewhere; nothing was done."""

    kind = "transaction"


class WriteModeError(UsageError, OSError):
    """The file was not opened: a version's files are written whole, never changed in place."""

    kind = "write_mode"

    def __init__(self, path: str, mode: str) -> None:
        """Carry the path and the mode asked for."""
        super().__init__(f"{path}: cannot open with mode {mode!r}; files are written whole: use 'wb', 'xb', 'w' or 'x'")
        self.path = path
        self.mode = mode

    def __str__(self) -> str:
        return str(self.args[0])


class ReadOnlyRevisionError(UsageError, OSError):
    """The revision is no branch, so that nothing can be written to it."""

    kind = "read_only_revision"

    def __init__(self, dataset: str, revision: str, *, what: str) -> None:
        """Carry dataset and revision; `what` is "tag" or "commit"."""
        super().__init__(
            f"{dataset}@{revision} is a {what}, which never changes; write to a branch, made with: "
            f"ds branch NAME {revision}"
        )
        self.dataset = dataset
        self.revision = revision
        self.what = what

    def __str__(self) -> str:
        return str(self.args[0])


class TornFileError(CommandError, OSError):
    """A file was closed after a write to it had failed; it was thrown away, so that no half of it is committed."""

    kind = "torn_file"

    def __init__(self, path: str) -> None:
        """Carry the path in the dataset."""
        super().__init__(f"{path} was thrown away: an earlier write to it failed; write it again")
        self.path = path

    def __str__(self) -> str:
        return str(self.args[0])


class WritesKeptError(CommandError, OSError):
    """Written files could not be committed; their bytes are safe on the local disk and are not lost."""

    kind = "writes_kept"

    def __init__(self, parcel: str, branch: str, *, reason: str) -> None:
        """Carry the name under which they wait, the branch they are for, and what stopped the commit."""
        super().__init__(self._describe(parcel, branch, reason))
        self.parcel = parcel
        self.branch = branch
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])

    def _describe(self, parcel: str, branch: str, reason: str) -> str:
        return f"not on {branch} yet, kept as {parcel}: {reason}; try again with: ds writes resume {parcel}"


class WriteConflictError(WritesKeptError):
    """Others changed the same paths on the branch since the transaction was begun; the branch was not moved."""

    kind = "write_conflict"

    def _describe(self, parcel: str, branch: str, reason: str) -> str:
        return (
            f"{reason} changed on {branch} since this transaction was begun; all is kept as {parcel}: put it over what "
            f"they wrote with: ds writes resume {parcel} --overwrite, or: ds writes drop {parcel}"
        )
