"""Which files a path names: the file itself, or all files below the directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute

from versioning import ChangeSet, PathNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from versioning import Tree

_compute: Any = pyarrow.compute


def rows_at(table: pa.Table, path: str) -> pa.Table:
    """Return the rows of a table with a column `path` that a path names; "" names all."""
    paths = table.column("path")
    below = _compute.starts_with(paths, path and f"{path.rstrip('/')}/")
    return table.filter(_compute.or_(_compute.equal(paths, path), below))


def plan_removal(paths: Iterable[str], *, tree: Tree | None, staged: pa.Table, branch: str) -> ChangeSet:
    """Return the removal of all files that the paths name, of a version or staged on it.

    Args:
        paths: Files and directories; "" names nothing, for it would be the whole dataset.
        tree: The version; None for an empty one.
        staged: Rows of the files that are staged.
        branch: Named by the error.

    Raises:
        PathNotFoundError: If a path names no file.
    """
    staged, gone = staged.select(["path"]), set[str]()
    for path in paths:
        found: list[Any] = rows_at(staged, path).column("path").to_pylist() + _paths_at(tree, path)
        if not found or not path:
            raise PathNotFoundError(path, where=branch)
        gone.update(found)
    return ChangeSet.of(deleted=gone)


def _paths_at(tree: Tree | None, path: str) -> list[str]:
    tables = tree.scan_at(path, columns=["path"]) if tree is not None else ()
    try:
        found: list[Any] = [name for table in tables for name in table.column("path").to_pylist()]
    except PathNotFoundError:
        return []
    return found
