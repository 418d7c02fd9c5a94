"""Differences as people and programs read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning import Diff, DiffSummary, diff_spans, spans_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ds.dataset import Dataset
    from versioning import CommitId, Repository


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs.

    Attributes:
        path: Where it is now, or was.
        op: A added, M modified, D deleted, L the same content stored elsewhere, R renamed.
        old_size: Bytes before; None if it was not there.
        new_size: Bytes now; None if it is gone.
        old_path: Of a renamed file.
    """

    path: str
    op: str
    old_size: int | None
    new_size: int | None
    old_path: str | None = None

    def record(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        record: dict[str, Any] = {
            "path": self.path,
            "op": self.op,
            "old_size": self.old_size,
            "new_size": self.new_size,
        }
        return record if self.old_path is None else {**record, "old_path": self.old_path}


def diff_at(repository: Repository, old: CommitId | None, new: CommitId, paths: Sequence[str] = ()) -> Diff:
    """Compare two versions, within some files and directories only; reads only what covers those and differs."""
    if not paths:
        return repository.diff(old, new)
    before, after = (repository.work.tree_root(commit) for commit in (old, new))
    return diff_spans(repository.nodes, before, after, spans_of(paths))


def diff_of_stage(opened: Dataset, paths: Sequence[str] = ()) -> Diff:
    """Compare what is staged with the commit that it was staged on, within some files and directories only."""
    diff = opened.staged_diff()
    if not paths:
        return diff
    from ds.selecting import rows_at

    parts = [(rows_at(diff.table, path), rows_at(diff.new_entries, path)) for path in _outermost(paths)]
    return Diff(pa.concat_tables([table for table, _ in parts]), pa.concat_tables([rows for _, rows in parts]))


def summary_of(changes: Sequence[Change]) -> DiffSummary:
    """Count paths and bytes of changes by operation."""
    names = {"A": "added", "M": "modified", "D": "deleted", "L": "layout"}
    counts: dict[str, int] = {}
    for each in changes:
        name = names[each.op]
        size = each.old_size if each.op == "D" else each.new_size
        counts[name] = counts.get(name, 0) + 1
        counts[f"{name}_bytes"] = counts.get(f"{name}_bytes", 0) + (size or 0)
    return DiffSummary(**counts)


def _outermost(paths: Sequence[str]) -> list[str]:
    """Leave out what lies below another one, and order the rest."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda each: f"{each}/".encode("utf-8", "surrogateescape")):
        if not kept or not f"{path}/".startswith(f"{kept[-1]}/"):
            kept.append(path)
    return kept


def changes_of(diff: Diff, renamed: dict[str, str] | None = None) -> Iterator[Change]:
    """Yield the rows of a diff; a file of `renamed` (new path: old path) is one change instead of two."""
    renamed = renamed or {}
    gone = set(renamed.values())
    for row in diff.table.to_pylist():
        path = row["path"]
        if path in renamed:
            yield Change(path, "R", row["new_size"], row["new_size"], renamed[path])
        elif not (row["op"] == "D" and path in gone):
            yield Change(path, row["op"], row["old_size"], row["new_size"])


def find_renames(repository: Repository, old: CommitId | None, diff: Diff) -> dict[str, str]:
    """Pair added with deleted files of the same bytes; new path: old path.

    Bytes are the same if their hashes are; files that nobody has hashed are never paired. Of several, files of one
    name go together first, then in order of their paths.
    """
    deleted = diff.only("D").table.column("path")
    added = diff.only("A").new_entries
    if old is None or not len(deleted) or not added.num_rows:
        return {}
    before = repository.tree_of(old).get_many(pa.array(deleted.to_pylist(), pa.string()))
    by_oid: dict[bytes, list[str]] = {}
    for path, oid in _hashed(before):
        by_oid.setdefault(oid, []).append(path)
    found: dict[str, str] = {}
    for same_name in (True, False):
        for path, oid in _hashed(added):
            candidates = [each for each in by_oid.get(oid, ()) if not same_name or _name(each) == _name(path)]
            if path not in found and candidates:
                found[path] = candidates[0]
                by_oid[oid].remove(candidates[0])
    return found


def _hashed(entries: pa.Table) -> Iterator[tuple[str, bytes]]:
    for path, oid in zip(entries.column("path").to_pylist(), entries.column("oid").to_pylist(), strict=True):
        if path is not None and isinstance(oid, bytes):
            yield path, oid


def _name(path: str) -> str:
    return path.rpartition("/")[2]
