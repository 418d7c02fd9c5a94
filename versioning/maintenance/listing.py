"""What a repository holds, as its store lists it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import sources
from sources import SourceNotFoundError
from versioning.columns import compute, single
from versioning.maintenance.keys import ObjectKind, ids_of_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sources import ObjectStat, RepositoryStore
    from versioning.columns import Mask
    from versioning.maintenance.ids import Ids

_UNKNOWN_TIME = np.iinfo(np.int64).max
"""Time of an object whose store tells none: it counts as new for ever."""
_SECOND = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Listed:
    """Objects of one kind, as they were listed.

    Attributes:
        kind: Of all of them.
        ids: Their ids.
        sizes: Bytes.
        times: When they were last written, by the store's clock, nanoseconds since 1970.
    """

    kind: ObjectKind
    ids: Ids
    sizes: NDArray[np.int64]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, mask: Mask) -> Listed:
        """Return some of them."""
        return Listed(self.kind, self.ids[mask], self.sizes[mask], self.times[mask])


def list_objects(store: RepositoryStore, prefix: str, kind: ObjectKind) -> Iterator[Listed]:
    """Yield the objects of a kind, thousands at a time and many requests in flight; other names are left out."""
    batches = sources.scan(store, prefix + kind.folder)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except SourceNotFoundError:  # a directory store has no such folder yet
            return
        mask, ids = ids_of_keys(batch.column("key"), kind, prefix=prefix)
        times = single(compute.fill_null(batch.column("mtime_ns"), _UNKNOWN_TIME)).to_numpy()
        found = Listed(kind, ids, batch.column("size").to_numpy()[mask], times[mask])
        if len(found):
            yield found


def list_keys(store: RepositoryStore, prefix: str) -> list[ObjectStat]:
    """Return what is below a prefix, in byte order of keys."""
    try:
        return sorted(store.list(prefix), key=_key)
    except SourceNotFoundError:  # a directory store has no such folder yet
        return []


def store_time(store: RepositoryStore, prefix: str) -> int:
    """Ask the store for the time, by writing a small object: nanoseconds since 1970, or 0 if it tells none.

    Ages are differences of times of one clock, so that no machine's clock can make an object older than it is.
    """
    key = f"{prefix}gc/clock-{secrets.token_hex(8)}"
    store.put(key, b"")
    try:
        return store.stat(key).mtime_ns or 0
    finally:
        store.delete(key)


def written_ns(store: RepositoryStore, key: str) -> int | None:
    """Return when an object was written, None if the store does not tell.

    An NFS client may answer from its memory for a minute; but to open a file it asks the server.

    Raises:
        SourceNotFoundError: If it is not there.
    """
    if not getattr(store, "remote", True):
        store.read(key, start=0, length=0, version=None)
    return store.stat(key).mtime_ns


def is_same_time(now_ns: int | None, listed_ns: int) -> bool:
    """Say whether an object was not written since it was listed; some stores list milliseconds and tell seconds."""
    if now_ns is None or now_ns == listed_ns:
        return now_ns is not None
    return now_ns % _SECOND == 0 and abs(now_ns - listed_ns) < _SECOND


def _key(stat: Any) -> str:
    return str(stat.key)
