"""Whether the sources still hold the objects that were imported."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from blake3 import blake3

from sources import ObjectStat, SourceError, SourceNotFoundError
from versioning.columns import as_mask, compute, where
from versioning.maintenance.findings import Finding, FindingKind, Findings
from versioning.maintenance.ids import IdSet, ids_of

if TYPE_CHECKING:
    from versioning.maintenance.leaves import Need
    from versioning.nodes import Node

StatExternal: TypeAlias = Callable[[str, str], ObjectStat]
"""Given a store's id and a key, looks the object up; raises `SourceError` as stores do."""

_REQUESTS = 32


class ExternalCheck:
    """Asks sources about objects, each version of each once.

    Attributes:
        objects: How many were asked about.
    """

    def __init__(self, stat: StatExternal, findings: Findings) -> None:
        self.objects = 0
        self._stat = stat
        self._findings = findings
        self._asked = IdSet()

    def check(self, leaf: Node, need: Need) -> None:
        """Compare the external objects of a leaf with their sources, by version and size."""
        rows = where(leaf.table, as_mask(compute.not_equal(leaf.table.column("store"), "")))
        found = rows.select(["path", "store", "key", "version", "object_size"]).to_pylist()
        if not found:
            return
        names = (blake3(f"{row['store']}\n{row['key']}\n{row['version']}".encode()).digest() for row in found)
        asked = [row for row, is_new in zip(found, self._asked.add(ids_of(names)), strict=True) if is_new]
        self.objects += len(asked)
        with ThreadPoolExecutor(_REQUESTS, "forebay-fsck") as pool:
            list(pool.map(lambda row: self._check_one(row, need), asked))

    def _check_one(self, row: dict[str, Any], need: Need) -> None:
        kind, detail = FindingKind.DRIFTED, ""
        try:
            now = self._stat(row["store"], row["key"])
        except SourceNotFoundError:
            detail = "it is gone"
        except SourceError as error:
            kind, detail = FindingKind.UNREACHABLE_SOURCE, str(error)
        else:
            if now.version != row["version"]:
                detail = f"it is {now.version} now, not {row['version']}"
            elif now.size != row["object_size"]:
                detail = f"it has {now.size:,} bytes, not {row['object_size']:,}"
        if detail:
            name = f"{row['store']}/{row['key']}"
            self._findings.add(Finding(kind, name, detail, need.ref, need.commit, row["path"]))
