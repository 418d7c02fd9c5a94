"""What the rows of a leaf say about objects of the repository, and whether that can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from sources import SourceNotFoundError
from versioning.columns import as_mask, compute, where
from versioning.maintenance.findings import Finding, FindingKind, Findings
from versioning.maintenance.ids import IdSet, ids_with_sizes
from versioning.maintenance.keys import ObjectKind, ids_of_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sources import RepositoryStore
    from versioning.maintenance.ids import Ids
    from versioning.nodes import Node

_OBJECTS = (ObjectKind.PACK, ObjectKind.BLOB)


class Need(NamedTuple):
    """What needs an object: a ref and a commit."""

    ref: str
    commit: str


@dataclass(frozen=True, eq=False)
class LeafCheck:
    """Checks leaves against what the store listed.

    Args:
        store: Asked about single objects that are not as expected.
        prefix: The repository's.
        stored: Packs and blobs that were listed, by kind, each id mixed with the object's size.
        findings: Where findings go.
    """

    store: RepositoryStore
    prefix: str
    stored: Mapping[ObjectKind, IdSet]
    findings: Findings

    def check(self, leaf: Node, need: Need) -> bool:
        """Check that each object is there, as long as the leaf says, and that each range lies in its object."""
        before = self.findings.count
        rows = own_rows(leaf)
        self._check_ranges(rows, need)
        known = np.zeros(rows.num_rows, np.bool_)
        for kind in _OBJECTS:
            mask, ids = ids_of_keys(rows.column("key"), kind)
            known |= mask
            self._check_stored(kind, where(rows, mask), ids, need)
        for row in where(rows, ~known).to_pylist():
            self._add(FindingKind.INCONSISTENT, row["key"], "no object of a repository has such a key", need, row)
        return self.findings.count == before

    def _check_ranges(self, rows: pa.Table, need: Need) -> None:
        offset, size, whole = (rows.column(name).to_numpy() for name in ("offset", "size", "object_size"))
        bad = (offset < 0) | (size < 0) | (offset > whole - size)
        for row in where(rows, bad).to_pylist() if bad.any() else []:
            detail = f"{row['path']} is said to be bytes [{row['offset']}, {row['offset'] + row['size']}) of it"
            self._add(FindingKind.INCONSISTENT, row["key"], detail, need, row)

    def _check_stored(self, kind: ObjectKind, rows: pa.Table, ids: Ids, need: Need) -> None:
        there = self.stored[kind].contains(ids_with_sizes(ids, rows.column("object_size").to_numpy()))
        if there.all():
            return
        for row in first_of_each(where(rows, ~there)).to_pylist():
            key, expected = row["key"], row["object_size"]
            try:
                found = self.store.stat(self.prefix + key).size
            except SourceNotFoundError:
                self._add(FindingKind.MISSING, key, f"{expected:,} bytes are gone", need, row)
                continue
            if found != expected:  # else it was written since the listing
                self._add(FindingKind.WRONG_SIZE, key, f"it has {found:,} bytes, not {expected:,}", need, row)

    def _add(self, kind: FindingKind, key: str, detail: str, need: Need, row: Mapping[str, str]) -> None:
        self.findings.add(Finding(kind, key, detail, need.ref, need.commit, row["path"]))


def named_with_sizes(leaf: Node) -> Ids:
    """Return the packs and blobs that a leaf names, each id mixed with the object's size; some more than once."""
    rows = own_rows(leaf)
    found = []
    for kind in _OBJECTS:
        mask, ids = ids_of_keys(rows.column("key"), kind)
        found.append(ids_with_sizes(ids, rows.column("object_size").to_numpy()[mask]))
    return np.concatenate(found)


def own_rows(leaf: Node) -> pa.Table:
    """Return the rows whose bytes lie in the repository."""
    return where(leaf.table, as_mask(compute.equal(leaf.table.column("store"), "")))


def first_of_each(rows: pa.Table) -> pa.Table:
    """Return the first row of each object."""
    numbered = pa.table({"key": rows.column("key"), "row": np.arange(rows.num_rows)})
    first = numbered.group_by("key", use_threads=False).aggregate([("row", "min")]).column("row_min")
    return rows.take(np.sort(first.to_numpy()))
