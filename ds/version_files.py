"""Some files of a version, by path, directory or pattern, as the places where their bytes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ds.globbing import is_pattern, literal_prefix, pattern_regex
from ds.selecting import rows_at
from sources.lazy import LazyModule
from versioning import PathNotFoundError, locations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from sources import Location
    from versioning import CommitId, Repository, Tree

_compute: Any = LazyModule("pyarrow.compute")


class VersionFiles:
    """Locations of the files of a version that a path names; may be gone through any number of times.

    Args:
        repository: Holds the version.
        commit: The version.
        path: A file, a directory, or a pattern (`images/*/0*.png`); "" is all. What is there by that very name goes
            before what it would be as a pattern.
        since: Only files that differ from this version.

    Attributes:
        version_bytes: Size of the whole version.

    Raises:
        PathNotFoundError: If the version has nothing there.
        TargetError: If the pattern cannot be.
    """

    def __init__(
        self, repository: Repository, commit: CommitId, *, path: str = "", since: CommitId | None = None
    ) -> None:
        self._repository = repository
        self._tree = repository.tree_of(commit)
        self._path = path
        self._commit = commit
        self._since = since
        self._regex = pattern_regex(path) if is_pattern(path) and not _is_there(self._tree, path) else None
        self.version_bytes = self._tree.size
        if since is None and not any(table.num_rows for table in self.tables()):
            raise PathNotFoundError(path, where=commit[:8])

    def __iter__(self) -> Iterator[Location]:
        for table in self.tables():
            yield from locations(table, self._repository.root)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the entries."""
        if self._since is not None:
            yield self._matching(self._repository.diff(self._since, self._commit).new_entries)
            return
        tables: Iterable[pa.Table]
        if self._regex is None:
            tables = self._tree.scan_at(self._path) if self._path else self._tree.scan()
        else:
            tables = map(self._matching, self._tree.scan(literal_prefix(self._path)))
        yield from tables

    def _matching(self, table: pa.Table) -> pa.Table:
        if self._regex is None:
            return rows_at(table, self._path)
        return table.filter(_compute.match_substring_regex(table.column("path"), pattern=self._regex))


def _is_there(tree: Tree, path: str) -> bool:
    try:
        return tree.get(path) is not None or bool(tree.listdir(path))
    except PathNotFoundError:
        return False
