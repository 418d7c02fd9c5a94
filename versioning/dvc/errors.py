"""What can be wrong with a DVC project.

VersioningError
└── DvcError
    ├── DvcFileError           (ValueError)        a file of the project is damaged, or names what it must not
    ├── DvcObjectMissingError  (FileNotFoundError) neither cache nor remote has an object
    └── DvcForeignFileError    (FileExistsError)   an export would destroy what it did not write
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from versioning.errors import VersioningError

if TYPE_CHECKING:
    from collections.abc import Sequence


class DvcError(VersioningError):
    """Base of the errors of DVC projects."""

    kind = "dvc"

    def __str__(self) -> str:
        return str(self.args[0])


class DvcFileError(DvcError, ValueError):
    """A file of the project cannot be understood, or names what it must not; nothing of it was used."""

    kind = "dvc_file"

    def __init__(self, file: str, *, reason: str) -> None:
        """Name the file and what is wrong with it."""
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class DvcObjectMissingError(DvcError, FileNotFoundError):
    """Neither the cache nor the remote has an object that the project tracks."""

    kind = "dvc_object_missing"

    def __init__(self, paths: Sequence[str], *, where: str) -> None:
        """Name the files whose bytes are missing, and where they are tracked."""
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        super().__init__(
            f"{where} tracks {paths[0]}{more}, which no place of the dvc://objects mount has; bring it there with "
            "dvc push --all-commits, or leave such files out with --skip-missing"
        )
        self.paths = tuple(paths)
        self.where = where


class DvcForeignFileError(DvcError, FileExistsError):
    """An export found files that it did not write and that DVC's cache does not have; nothing was changed."""

    kind = "dvc_foreign_file"

    def __init__(self, paths: Sequence[str]) -> None:
        """Name the files."""
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        super().__init__(f"{paths[0]}{more} would be lost; move it away, or export to another directory")
        self.paths = tuple(paths)
