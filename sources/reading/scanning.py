"""`scan`: list any store, one that was made steady with its retries and its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources import listing
from sources.reading.steady import SteadyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from sources.listing import ScanProgress
    from sources.stores import ListObjects


def scan(
    store: ListObjects,
    prefix: str,
    *,
    journal: Path | None = None,
    concurrency: int = 16,
    on_progress: Callable[[ScanProgress], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """List every object below a prefix, many requests at a time. See `sources.listing.scan`."""
    if isinstance(store, SteadyStore):
        return store.scan(prefix, journal=journal, concurrency=concurrency, on_progress=on_progress)
    return listing.scan(store, prefix, journal=journal, concurrency=concurrency, on_progress=on_progress)
