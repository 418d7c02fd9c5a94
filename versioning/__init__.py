"""Versions of datasets: names, trees, commits, branches, merges and packs, in an object store or a directory."""

from versioning.adding import BLOB_BYTES, AddProgress, add_files
from versioning.ancestry import merge_base
from versioning.annotating import Blame, annotate
from versioning.blobs import put_blob
from versioning.branching import Branch
from versioning.changes import ChangeSet
from versioning.chunking import CutRule
from versioning.commits import Commit, CommitId, CommitStats, HookResult
from versioning.committing import RetryPolicy
from versioning.conflicts import MergeFile, MergeState
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
    AttributesError,
    ConflictError,
    CorruptRepositoryError,
    HookRefusedError,
    HooksFileError,
    InterruptedUpdateError,
    InvalidNameError,
    LocalChangesError,
    LostRaceError,
    MergeConflictError,
    MergeStateError,
    NotFastForwardError,
    NothingToCommitError,
    PathNotFoundError,
    ProtectedBranchError,
    RefExistsError,
    RepositoryExistsError,
    RepositoryFormatError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SigningError,
    SpoolError,
    StageError,
    StageUnavailableError,
    TransactionOverError,
    UnreadableFileError,
    UntrustedHooksError,
    UnwritableFileError,
    VersioningError,
    WorkingCopyBusyError,
    WorkingCopyError,
    WorkingCopyIndexError,
)
from versioning.histories import HistoryQuery, history, range_of
from versioning.hooks import Gate, Hook, HookContext, Proposal
from versioning.importing import stage_import
from versioning.integrating import Job, MergeOptions, plan_job, run_job
from versioning.merging import CONFLICT_SCHEMA, MergePlan, MergeResult
from versioning.names import check_path, check_ref_name
from versioning.node_files import NODE_FILES_BYTES, NodeFiles
from versioning.packs import PACK_BYTES, PackedMember, PackSet, PackWriter, StoredObject, WritesObjects
from versioning.reflogs import RefUpdate
from versioning.repository import Repository
from versioning.signing import SshSigner, Verdict, Verified, verify
from versioning.spans import diff_spans, spans_of
from versioning.spec import RepositorySpec
from versioning.staging import Stage, Staged
from versioning.strategies import STRATEGIES, Driver
from versioning.transactions import Transaction
from versioning.trees import DirectoryItem, Tree, TreeId

__all__ = [
    "BLOB_BYTES",
    "CONFLICT_SCHEMA",
    "DIFF_SCHEMA",
    "ENTRY_SCHEMA",
    "NODE_FILES_BYTES",
    "PACK_BYTES",
    "STRATEGIES",
    "AddProgress",
    "AmbiguousRevisionError",
    "AttributesError",
    "Blame",
    "Branch",
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
    "Driver",
    "Entry",
    "EntryKind",
    "Gate",
    "HistoryQuery",
    "Hook",
    "HookContext",
    "HookRefusedError",
    "HookResult",
    "HooksFileError",
    "InterruptedUpdateError",
    "InvalidNameError",
    "Job",
    "LocalChangesError",
    "LostRaceError",
    "MergeConflictError",
    "MergeFile",
    "MergeOptions",
    "MergePlan",
    "MergeResult",
    "MergeState",
    "MergeStateError",
    "NodeFiles",
    "NotFastForwardError",
    "NothingToCommitError",
    "PackSet",
    "PackWriter",
    "PackedMember",
    "PathNotFoundError",
    "Proposal",
    "ProtectedBranchError",
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
    "SigningError",
    "SpoolError",
    "SshSigner",
    "Stage",
    "StageError",
    "StageUnavailableError",
    "Staged",
    "StoredObject",
    "Transaction",
    "TransactionOverError",
    "Tree",
    "TreeId",
    "UnreadableFileError",
    "UntrustedHooksError",
    "UnwritableFileError",
    "Verdict",
    "Verified",
    "VersioningError",
    "WorkingCopyBusyError",
    "WorkingCopyError",
    "WorkingCopyIndexError",
    "WritesObjects",
    "add_files",
    "annotate",
    "check_path",
    "check_ref_name",
    "diff_spans",
    "entries_table",
    "history",
    "locations",
    "merge_base",
    "plan_job",
    "put_blob",
    "range_of",
    "run_job",
    "spans_of",
    "stage_import",
    "table_entries",
    "verify",
]
