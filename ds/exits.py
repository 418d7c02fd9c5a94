"""Exit codes, and which error ends in which.

0   done
1   the answer is no: differences, conflicts, nothing to commit, a load with failures, a changed source
2   usage: wrong arguments, a manifest or name that cannot be
3   not found: dataset, revision, path, bucket, object
4   lost race: others kept writing; run it again
5   refused: credentials, permissions, policy
69  unavailable: a store or disk cannot be reached or is full; run it again when it is back
70  internal: damaged bytes, a damaged repository or a bug
130 interrupted
"""

from __future__ import annotations

from enum import IntEnum

from cache_runtime import CacheCapacityError, CacheError, ChecksumError, OutboxBusyError, ParcelNotFoundError
from cache_runtime.errors import CacheShareError, MembershipError, WorkerConfigError
from dataset_controller import CatalogError, DatasetInUseError, DatasetNotFoundError, EmptySourceError, ManifestError
from ds.errors import ImportRunningError, ObjectChangedError, UsageError, WriteConflictError, WritesKeptError
from loaders import CorruptSampleError, LoaderError
from sources import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SwapLostError,
    UnsafeSwapError,
)
from versioning import (
    ConflictError,
    CorruptRepositoryError,
    InvalidNameError,
    LostRaceError,
    NothingToCommitError,
    PathNotFoundError,
    RefExistsError,
    RepositoryFormatError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SpoolError,
    StageError,
    StageUnavailableError,
    UnreadableFileError,
    VersioningError,
)


class Exit(IntEnum):
    """Exit codes of `ds`."""

    OK = 0
    NO = 1
    USAGE = 2
    NOT_FOUND = 3
    LOST_RACE = 4
    REFUSED = 5
    UNAVAILABLE = 69
    INTERNAL = 70
    INTERRUPTED = 130


_EXITS: tuple[tuple[type[Exception], Exit], ...] = (  # the first that fits
    (NothingToCommitError, Exit.NO),
    (ConflictError, Exit.NO),
    (SourceChangedError, Exit.NO),
    (ObjectChangedError, Exit.NO),
    (WriteConflictError, Exit.NO),
    (ManifestError, Exit.USAGE),
    (DatasetInUseError, Exit.USAGE),
    (CacheCapacityError, Exit.USAGE),
    (CacheShareError, Exit.USAGE),
    (MembershipError, Exit.USAGE),
    (WorkerConfigError, Exit.USAGE),
    (UsageError, Exit.USAGE),
    (SourceConfigError, Exit.USAGE),
    (InvalidNameError, Exit.USAGE),
    (RefExistsError, Exit.USAGE),
    (StageError, Exit.USAGE),
    (RepositoryFormatError, Exit.USAGE),
    (UnsafeSwapError, Exit.USAGE),
    (DatasetNotFoundError, Exit.NOT_FOUND),
    (EmptySourceError, Exit.NOT_FOUND),
    (SourceNotFoundError, Exit.NOT_FOUND),
    (RepositoryNotFoundError, Exit.NOT_FOUND),
    (RevisionNotFoundError, Exit.NOT_FOUND),
    (PathNotFoundError, Exit.NOT_FOUND),
    (UnreadableFileError, Exit.NOT_FOUND),
    (ParcelNotFoundError, Exit.NOT_FOUND),
    (LostRaceError, Exit.LOST_RACE),
    (ImportRunningError, Exit.LOST_RACE),
    (OutboxBusyError, Exit.LOST_RACE),
    (WritesKeptError, Exit.UNAVAILABLE),
    (SwapLostError, Exit.LOST_RACE),
    (SourceAuthError, Exit.REFUSED),
    (CorruptRepositoryError, Exit.INTERNAL),
    (CorruptSampleError, Exit.INTERNAL),
    (ChecksumError, Exit.INTERNAL),
    (LoaderError, Exit.USAGE),
    (StageUnavailableError, Exit.UNAVAILABLE),
    (SpoolError, Exit.UNAVAILABLE),
    (SourceError, Exit.UNAVAILABLE),
    (CatalogError, Exit.UNAVAILABLE),
    (CacheError, Exit.UNAVAILABLE),
    (VersioningError, Exit.INTERNAL),
)

EXPECTED_ERRORS = tuple(error for error, _ in _EXITS)
"""Errors that are answers to the user; anything else is a bug."""


def exit_of(error: Exception) -> Exit:
    """Return the code that an error ends in."""
    return next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.INTERNAL)
