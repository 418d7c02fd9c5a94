"""Which error ends in which exit code. Loads all our packages."""

from __future__ import annotations

from cache_runtime import CacheCapacityError, CacheError, ChecksumError, OutboxBusyError, ParcelNotFoundError
from cache_runtime.errors import CacheShareError, MembershipError, WorkerConfigError
from dataset_controller import (
    CatalogError,
    ClusterError,
    DatasetInUseError,
    DatasetNotFoundError,
    EmptySourceError,
    ManifestError,
)
from ds.errors import (
    ImportRunningError,
    MountBusyError,
    MountFailedError,
    NotMountedError,
    ObjectChangedError,
    UsageError,
    WriteConflictError,
    WritesKeptError,
)
from ds.exit_codes import Exit
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
    AttributesError,
    ConflictError,
    CorruptRepositoryError,
    HookRefusedError,
    HooksFileError,
    InterruptedUpdateError,
    InvalidNameError,
    LocalChangesError,
    LostRaceError,
    MergeStateError,
    NotFastForwardError,
    NothingToCommitError,
    PathNotFoundError,
    ProtectedBranchError,
    RefExistsError,
    RepositoryFormatError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SigningError,
    SpoolError,
    StageError,
    StageUnavailableError,
    TransactionOverError,
    UnreadableFileError,
    UnwritableFileError,
    VersioningError,
    WorkingCopyBusyError,
    WorkingCopyIndexError,
)
from versioning.dvc import DvcFileError, DvcForeignFileError, DvcObjectMissingError
from versioning.errors import (
    CollectingError,
    ExpiredCommitError,
    HistoryCutError,
    MainlineError,
    ObjectsCollectedError,
    ReaderDiedError,
    StoreClockError,
)

__all__ = ["EXPECTED_ERRORS", "Exit", "exit_of"]

_EXITS: tuple[tuple[type[Exception], Exit], ...] = (  # the first that fits
    (NothingToCommitError, Exit.NO),
    (ConflictError, Exit.NO),
    (LocalChangesError, Exit.NO),
    (InterruptedUpdateError, Exit.NO),
    (NotFastForwardError, Exit.NO),
    (HistoryCutError, Exit.NO),
    (ExpiredCommitError, Exit.NOT_FOUND),
    (SourceChangedError, Exit.NO),
    (ObjectChangedError, Exit.NO),
    (WriteConflictError, Exit.NO),
    (MountBusyError, Exit.NO),
    (MountFailedError, Exit.UNAVAILABLE),
    (NotMountedError, Exit.NOT_FOUND),
    (DvcForeignFileError, Exit.NO),
    (DvcObjectMissingError, Exit.NOT_FOUND),
    (DvcFileError, Exit.USAGE),
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
    (MainlineError, Exit.USAGE),
    (AttributesError, Exit.USAGE),
    (MergeStateError, Exit.USAGE),
    (TransactionOverError, Exit.USAGE),
    (StageError, Exit.USAGE),
    (WorkingCopyIndexError, Exit.USAGE),
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
    (ObjectsCollectedError, Exit.NOT_FOUND),
    (LostRaceError, Exit.LOST_RACE),
    (CollectingError, Exit.LOST_RACE),
    (ImportRunningError, Exit.LOST_RACE),
    (WorkingCopyBusyError, Exit.LOST_RACE),
    (OutboxBusyError, Exit.LOST_RACE),
    (WritesKeptError, Exit.UNAVAILABLE),
    (SwapLostError, Exit.LOST_RACE),
    (SourceAuthError, Exit.REFUSED),
    (StoreClockError, Exit.USAGE),
    (ProtectedBranchError, Exit.REFUSED),
    (HookRefusedError, Exit.REFUSED),
    (HooksFileError, Exit.USAGE),
    (SigningError, Exit.UNAVAILABLE),
    (CorruptRepositoryError, Exit.INTERNAL),
    (CorruptSampleError, Exit.INTERNAL),
    (ChecksumError, Exit.INTERNAL),
    (LoaderError, Exit.USAGE),
    (StageUnavailableError, Exit.UNAVAILABLE),
    (UnwritableFileError, Exit.UNAVAILABLE),
    (ReaderDiedError, Exit.UNAVAILABLE),
    (SpoolError, Exit.UNAVAILABLE),
    (SourceError, Exit.UNAVAILABLE),
    (CatalogError, Exit.UNAVAILABLE),
    (ClusterError, Exit.UNAVAILABLE),
    (CacheError, Exit.UNAVAILABLE),
    (VersioningError, Exit.INTERNAL),
)

EXPECTED_ERRORS = tuple(error for error, _ in _EXITS)
"""Errors that are answers to the user; anything else is a bug."""


def exit_of(error: Exception) -> Exit:
    """Return the code that an error ends in."""
    return next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.INTERNAL)
