"""What can be wrong with a command.

CommandError
├── ImportRunningError               another process imports the same dataset
├── ObjectChangedError               a source object is no longer the one that a commit points at
└── UsageError        (ValueError)   the arguments do not fit together, or name what is not there
    └── TargetError                  a text names no dataset, version or path
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


class UsageError(CommandError, ValueError):
    """The command cannot be run like this; nothing was done."""

    kind = "usage"


class TargetError(UsageError):
    """The text names no dataset, version or path."""

    kind = "target"
