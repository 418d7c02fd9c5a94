"""Which files a path names: the file itself, or all files below the directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow

from ds.errors import UsageError
from sources.lazy import LazyModule
from versioning import ENTRY_SCHEMA, ChangeSet, PathNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from versioning import Tree

_compute: Any = LazyModule("pyarrow.compute")


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


def plan_move(source: str, target: str, *, tree: Tree | None, staged: ChangeSet) -> ChangeSet:
    """Return the change that gives files another path; what they hold stays where it is.

    Args:
        source: A file or directory.
        target: Its new path.
        tree: The version; None for an empty one.
        staged: What is staged on it.

    Raises:
        PathNotFoundError: If there is no such file.
        UsageError: If something has the new path, or it lies in the directory that is moved.
    """
    source, target = source.strip("/"), target.strip("/")
    if target == source or target.startswith(f"{source}/"):
        raise UsageError(f"{source} cannot be moved to {target}, which lies in it")
    if entries_at(target, tree=tree, staged=staged).num_rows:
        raise UsageError(f"{target} is there already; remove it first: ds rm {target}")
    entries = entries_at(source, tree=tree, staged=staged)
    if not source or not entries.num_rows:
        raise PathNotFoundError(source)
    old = entries.column("path")
    new = _compute.binary_join_element_wise(target, _compute.utf8_slice_codeunits(old, len(source)), "")
    return ChangeSet.of_table(entries.set_column(0, ENTRY_SCHEMA.field("path"), new), old.combine_chunks())


def entries_at(path: str, *, tree: Tree | None, staged: ChangeSet) -> pa.Table:
    """Return the entries that a path names, of a version with what is staged on it; "" names all."""
    tables = [rows_at(staged.upserts, path)]
    try:
        for table in tree.scan_at(path) if tree is not None else ():
            known = _compute.is_in(table.column("path"), value_set=staged.paths())
            tables.append(table.filter(_compute.invert(known)))
    except PathNotFoundError:
        pass
    return pyarrow.concat_tables(tables)


def _paths_at(tree: Tree | None, path: str) -> list[str]:
    tables = tree.scan_at(path, columns=["path"]) if tree is not None else ()
    try:
        found: list[Any] = [name for table in tables for name in table.column("path").to_pylist()]
    except PathNotFoundError:
        return []
    return found
