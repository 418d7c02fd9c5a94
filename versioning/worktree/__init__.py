"""Working copies: directories that show a version, what was changed there, and the way from one to another."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from versioning.worktree.copies import WorkingCopy
    from versioning.worktree.index import Head, Index, read_index, write_index
    from versioning.worktree.recording import (
        current_entries,
        delete_files,
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
else:
    __getattr__ = lazily(
        __name__,
        {
            "copies": ("WorkingCopy",),
            "index": ("Head", "Index", "read_index", "write_index"),
            "recording": (
                "current_entries",
                "delete_files",
                "move_tracked",
                "record_files",
                "remove_tracked",
                "tracked_at",
                "unstage",
            ),
            "restoring": ("restore_files",),
            "scanning": ("LOCAL", "Ignores"),
            "selection": ("Selection",),
            "statuses": ("Changes", "local_changes", "refresh"),
            "updating": ("UpdateReport",),
            "writing": ("LocalPacks",),
        },
    )

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
    "delete_files",
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
