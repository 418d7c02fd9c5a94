"""Files of a version that patterns choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ds.globbing import is_pattern, pattern_regex
from sources.lazy import LazyModule
from versioning import PathNotFoundError, locations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from sources import Location
    from versioning import CommitId, Repository

_compute: Any = LazyModule("pyarrow.compute")


class ChosenFiles:
    """Locations of the files of a version that patterns choose; may be gone through any number of times.

    Args:
        repository: Holds the version.
        commit: The version.
        include: Files, directories or patterns, as `ds load` takes them; all files if there are none.
        exclude: The same; goes before `include`.

    Attributes:
        files: How many there are.
        version_bytes: Size of the whole version.

    Raises:
        PathNotFoundError: If patterns choose nothing.
        TargetError: If one of them cannot be.
    """

    def __init__(
        self, repository: Repository, commit: CommitId, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        self._repository = repository
        self._tree = repository.tree_of(commit)
        self._include = [_regex(each) for each in include]
        self._exclude = [_regex(each) for each in exclude]
        self.version_bytes = self._tree.size
        self.files = self._tree.rows
        if include or exclude:
            self.files = sum(table.num_rows for table in self.tables())
            if not self.files:
                chosen = ", ".join(include) or f"anything but {', '.join(exclude)}"
                raise PathNotFoundError(chosen, where=commit[:8])

    def __iter__(self) -> Iterator[Location]:
        for table in self.tables():
            yield from locations(table, self._repository.root)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the chosen entries, in the order of their paths."""
        for table in self._tree.scan():
            paths = table.column("path")
            kept = _matches(paths, self._include) if self._include else None
            if self._exclude:
                others = _compute.invert(_matches(paths, self._exclude))
                kept = others if kept is None else _compute.and_(kept, others)
            yield table if kept is None else table.filter(kept)


def _matches(paths: Any, patterns: Sequence[str]) -> Any:
    found = _compute.match_substring_regex(paths, pattern=patterns[0])
    for pattern in patterns[1:]:
        found = _compute.or_(found, _compute.match_substring_regex(paths, pattern=pattern))
    return found


def _regex(pattern: str) -> str:
    """Return the regular expression of a file, a directory or a pattern; what has no special letters has none."""
    pattern = pattern.strip("/")
    if is_pattern(pattern):
        return pattern_regex(pattern)
    import re

    return f"^{re.escape(pattern)}(?:/|$)"
