"""What was changed in a working copy since it was staged or checked out, as differences."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa

from ds.diffing import Change
from versioning.columns import take
from versioning.worktree.index import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ds.worktree.dataset import WorkingDataset


def working_changes(opened: WorkingDataset, paths: Sequence[str] = ()) -> list[Change]:
    """Compare the files with what is staged, else checked out, in order of their paths; untracked files are left out.

    Args:
        opened: The working copy.
        paths: Only these files and directories, as paths in the dataset; none at all: everything.
    """
    modified: set[str] = set()
    deleted: set[str] = set()
    for path in paths or ("",):
        inside = path if os.path.isdir(opened.root / path) else path.rpartition("/")[0]
        found = opened.status(inside)
        modified.update(each for each in found.modified if _lies_at(each, path))
        deleted.update(each for each in found.deleted if _lies_at(each, path))
    changed = sorted(modified | deleted, key=os.fsencode)
    old_sizes = _recorded_sizes(opened, changed)
    changes = []
    for path, old_size in zip(changed, old_sizes, strict=True):
        new_size = _size_of(os.path.join(opened.root, path)) if path in modified else None
        changes.append(Change(path, "D" if new_size is None else "M", old_size, new_size))
    return changes


def _recorded_sizes(opened: WorkingDataset, paths: list[str]) -> list[int]:
    if not paths:
        return []
    index = opened.copy.index()
    return listed(take(index.rows, index.positions(pa.array(paths, pa.string()))).column("size"))


def _size_of(file: str) -> int | None:
    """Return how many bytes a file has; None if it was deleted in this moment."""
    try:
        return os.lstat(file).st_size
    except FileNotFoundError:
        return None


def _lies_at(path: str, where: str) -> bool:
    return not where or path == where or path.startswith(f"{where}/")
