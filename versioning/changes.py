"""A set of changes to a tree: entries to put in place and paths to delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning.columns import as_bytes, as_filter, compute, concat, is_in, is_sorted, single, sorted_by_path, where
from versioning.entries import ENTRY_SCHEMA, Entry, entries_table
from versioning.errors import InvalidNameError
from versioning.names import check_paths

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, eq=False)
class ChangeSet:
    """Entries to put in place and paths to delete; no path is in both. Build one with `of` or `of_table`.

    Attributes:
        upserts: Table of `ENTRY_SCHEMA`, strictly ascending by path.
        deleted: String array of paths, strictly ascending; deleting what is not there changes nothing.
    """

    upserts: pa.Table
    deleted: pa.Array[Any]

    @classmethod
    def of(cls, entries: Iterable[Entry] = (), deleted: Iterable[str] = ()) -> ChangeSet:
        """Build a change set; of several entries with one path the last stays, and an entry wins over a deletion.

        Raises:
            InvalidNameError: For a path that cannot be stored.
        """
        latest, gone = {entry.path: entry for entry in entries}, list(deleted)
        if not latest and not gone:  # most commands look for what is staged, and find nothing
            return cls(ENTRY_SCHEMA.empty_table(), pa.array([], pa.string()))
        try:
            return cls.of_table(entries_table(latest.values()), pa.array(gone, pa.string()))
        except UnicodeEncodeError as error:
            raise InvalidNameError(str(error.object), what="path", reason="it is not valid Unicode") from error

    @classmethod
    def of_table(cls, upserts: pa.Table, deleted: pa.Array[Any] | None = None) -> ChangeSet:
        """Build a change set from a table of `ENTRY_SCHEMA` in any order, each path once.

        Raises:
            InvalidNameError: For a path that cannot be stored, or that comes twice.
        """
        if deleted is None:
            deleted = pa.array([], pa.string())
        upserts = sorted_by_path(upserts.select(ENTRY_SCHEMA.names).cast(ENTRY_SCHEMA))
        paths = single(upserts.column("path"))
        check_paths(paths)
        check_paths(deleted)
        if not is_sorted(paths):
            raise InvalidNameError(_first_repeated(paths), what="path", reason="the change set has it twice")
        if len(paths) and len(deleted):
            deleted = deleted.filter(as_filter(~is_in(deleted, paths)))
        return cls(upserts, _sorted_unique(deleted))

    def __len__(self) -> int:
        return self.upserts.num_rows + len(self.deleted)

    def __bool__(self) -> bool:
        return len(self) > 0

    def merged_with(self, later: ChangeSet) -> ChangeSet:
        """Return what this change set followed by `later` does."""
        touched = pa.concat_arrays([single(later.upserts.column("path")), later.deleted])
        kept = where(self.upserts, ~is_in(self.upserts.column("path"), touched))
        return ChangeSet.of_table(
            concat([kept, later.upserts], ENTRY_SCHEMA), pa.concat_arrays([self.deleted, later.deleted])
        )

    def paths(self) -> pa.Array[Any]:
        """Return every path that is put or deleted, strictly ascending."""
        return _sorted_unique(pa.concat_arrays([single(self.upserts.column("path")), self.deleted]))


def _sorted_unique(paths: pa.Array[Any]) -> pa.Array[Any]:
    if is_sorted(paths):
        return paths
    ordered: pa.Array[Any] = compute.unique(paths.take(compute.array_sort_indices(paths)))
    return ordered


def _first_repeated(paths: Any) -> str:
    keys = as_bytes(paths)
    same = compute.equal(keys.slice(0, len(keys) - 1), keys.slice(1))
    return str(paths[compute.index(same, True).as_py()].as_py())
