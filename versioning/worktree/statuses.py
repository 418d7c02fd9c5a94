"""Which files of a working copy were changed, deleted or never added."""

from __future__ import annotations

from dataclasses import dataclass, field
from stat import S_ISREG
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from versioning.columns import as_filter, take
from versioning.errors import WorkingCopyBusyError
from versioning.worktree.hashing import hash_file
from versioning.worktree.index import index_rows, listed
from versioning.worktree.places import Places
from versioning.worktree.scanning import scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from versioning.worktree.copies import WorkingCopy
    from versioning.worktree.index import Index
    from versioning.worktree.scanning import Ignores


@dataclass(eq=False)
class Changes:
    """How the disk differs from the index.

    Attributes:
        modified: Files with other bytes than the index says.
        deleted: Files that are gone, or no regular files any more.
        untracked: Files that the index does not have.
        hashed: How many files had to be read.
    """

    modified: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)
    hashed: int = 0

    def __bool__(self) -> bool:
        return bool(self.modified or self.deleted or self.untracked)


def local_changes(
    copy: WorkingCopy,
    index: Index,
    *,
    below: str = "",
    ignores: Ignores | None = None,
    on_files: Callable[[int], None] | None = None,
) -> tuple[Changes, Index]:
    """Compare the disk with the index, reading only files whose stat differs.

    Returns:
        What differs, and the index with the new stat of files that turned out to be the same.

    Raises:
        UnreadableFileError: If a file or directory cannot be read.
    """
    found = scan(copy.root, index, below=below, ignores=ignores, on_files=on_files)
    gone = listed(index.paths.filter(as_filter(found.missing))) if found.missing.any() else []
    changes = Changes(deleted=gone, untracked=found.untracked)
    suspects = np.flatnonzero(found.suspects)
    if not len(suspects):
        return changes, index
    rows = take(index.rows, suspects)
    paths = listed(take(pa.table({"path": index.paths}), suspects).column("path"))
    same = []
    with Places(copy.root) as places, copy.clock() as clock:
        sizes, oids = listed(rows.column("size")), listed(rows.column("oid"))
        for path, size, oid in zip(paths, sizes, oids, strict=True):
            if (stat := places.stat(path)) is not None and S_ISREG(stat.st_mode) and stat.st_size != size:
                changes.modified.append(path)
                continue
            changes.hashed += 1
            hashed = hash_file(places, path, clock)
            if hashed is None:
                changes.deleted.append(path)
            elif hashed.oid == oid:
                same.append((path, hashed))
            else:
                changes.modified.append(path)
    fresh = index_rows(
        [path for path, _ in same],
        [each.stat for _, each in same],
        [each.oid for _, each in same],
        [each.settled for _, each in same],
    )
    return changes, index.edited(fresh) if same else index


def refresh(copy: WorkingCopy, before: Index, after: Index) -> None:
    """Save what a look at the disk has found out, unless another process is faster or nothing may be written here."""
    if after is before:
        return
    try:
        with copy.locked(seconds=0):
            now = copy.index()
            if now.head == before.head and now.rows.equals(before.rows) and not copy.interrupted():
                copy.save(after)
    except (WorkingCopyBusyError, OSError):
        return  # the next look finds it out again
