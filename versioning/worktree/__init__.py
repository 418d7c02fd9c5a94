"""Working copies: directories that show a version, what was changed there, and the way from one to another."""

from versioning.worktree.copies import WorkingCopy
from versioning.worktree.index import Head, Index, read_index, write_index
from versioning.worktree.recording import (
    current_entries,
    move_tracked,
    record_files,
    remove_tracked,
    tracked_at,
    unstage,
)
from versioning.worktree.restoring import restore_files
from versioning.worktree.scanning import LOCAL, Ignores
from versioning.worktree.selection import Selection
from versioning.worktree.statuses import Changes, local_changes, refresh
from versioning.worktree.updating import UpdateReport
from versioning.worktree.writing import LocalPacks

__all__ = [
    "LOCAL",
    "Changes",
    "Head",
    "Ignores",
    "Index",
    "LocalPacks",
    "Selection",
    "UpdateReport",
    "WorkingCopy",
    "current_entries",
    "local_changes",
    "move_tracked",
    "read_index",
    "record_files",
    "refresh",
    "remove_tracked",
    "restore_files",
    "tracked_at",
    "unstage",
    "write_index",
]
