"""Versions of datasets: names, trees, commits, branches, merges and packs, in an object store or a directory."""

from versioning.adding import BLOB_BYTES, AddProgress, add_files
from versioning.blobs import put_blob
from versioning.changes import ChangeSet
from versioning.chunking import CutRule
from versioning.commits import Commit, CommitId, CommitStats
from versioning.committing import RetryPolicy
from versioning.diffs import DIFF_SCHEMA, Diff, DiffSummary
from versioning.entries import (
    ENTRY_SCHEMA,
    Entry,
    EntryKind,
    RepositoryRoot,
    entries_table,
    locations,
    table_entries,
)
from versioning.errors import (
    AmbiguousRevisionError,
    ConflictError,
    CorruptRepositoryError,
    InvalidNameError,
    LostRaceError,
    MergeConflictError,
    NothingToCommitError,
    PathNotFoundError,
    RefExistsError,
    RepositoryExistsError,
    RepositoryFormatError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SpoolError,
    StageError,
    StageUnavailableError,
    UnreadableFileError,
    VersioningError,
)
from versioning.importing import stage_import
from versioning.merging import CONFLICT_SCHEMA, MergePlan, MergeResult
from versioning.names import check_path, check_ref_name
from versioning.packs import PACK_BYTES, PackedMember, PackSet, PackWriter, StoredObject, WritesObjects
from versioning.refs import RefUpdate
from versioning.repository import Repository
from versioning.spec import RepositorySpec
from versioning.staging import Stage, Staged
from versioning.trees import DirectoryItem, Tree, TreeId

__all__ = [
    "BLOB_BYTES",
    "CONFLICT_SCHEMA",
    "DIFF_SCHEMA",
    "ENTRY_SCHEMA",
    "PACK_BYTES",
    "AddProgress",
    "AmbiguousRevisionError",
    "ChangeSet",
    "Commit",
    "CommitId",
    "CommitStats",
    "ConflictError",
    "CorruptRepositoryError",
    "CutRule",
    "Diff",
    "DiffSummary",
    "DirectoryItem",
    "Entry",
    "EntryKind",
    "InvalidNameError",
    "LostRaceError",
    "MergeConflictError",
    "MergePlan",
    "MergeResult",
    "NothingToCommitError",
    "PackSet",
    "PackWriter",
    "PackedMember",
    "PathNotFoundError",
    "RefExistsError",
    "RefUpdate",
    "Repository",
    "RepositoryExistsError",
    "RepositoryFormatError",
    "RepositoryNotFoundError",
    "RepositoryRoot",
    "RepositorySpec",
    "RetryPolicy",
    "RevisionNotFoundError",
    "SpoolError",
    "Stage",
    "StageError",
    "StageUnavailableError",
    "Staged",
    "StoredObject",
    "Tree",
    "TreeId",
    "UnreadableFileError",
    "VersioningError",
    "WritesObjects",
    "add_files",
    "check_path",
    "check_ref_name",
    "entries_table",
    "locations",
    "put_blob",
    "stage_import",
    "table_entries",
]
