"""Changes as hooks read them, one mapping or one line of JSON each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from versioning.columns import positions_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.diffs import Diff

_ROWS = 4096  # rows that are Python objects at a time


def changes_of(diff: Diff) -> Iterator[dict[str, Any]]:
    """Yield the rows of a diff, in order of their paths.

    Each has `path`, `op`, `old_size`, `new_size` as in a diff, and of what is there afterwards `kind`, `store`, `key`,
    `version`, `oid` (hex, or None) and `meta` (JSON, or None).
    """
    at = positions_in(diff.table.column("path"), diff.new_entries.column("path"))
    entries = diff.new_entries.select(["kind", "store", "key", "version", "oid", "meta"])
    for start in range(0, diff.table.num_rows, _ROWS):
        rows = diff.table.slice(start, _ROWS).to_pylist()
        places = at[start : start + _ROWS]
        found = iter(entries.take(places[places >= 0]).to_pylist())
        for row, place in zip(rows, places, strict=True):
            yield {**row, **_shown(next(found))} if place >= 0 else row


def lines_of(diff: Diff) -> Iterator[bytes]:
    """Yield the rows of a diff as NDJSON."""
    for row in changes_of(diff):
        yield json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    oid, meta = entry["oid"], entry["meta"]
    return {**entry, "oid": oid.hex() if oid is not None else None, "meta": _parsed(meta)}


def _parsed(meta: str | None) -> Any:
    try:
        return json.loads(meta) if meta is not None else None
    except ValueError:  # somebody else's writer; it is shown as it is
        return meta
