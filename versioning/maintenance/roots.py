"""What everything that is needed is reached from: branches, tags, pins, and where branches were lately."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from sources import SourceNotFoundError
from versioning.commits import check_commit_id
from versioning.errors import CorruptRepositoryError
from versioning.maintenance.documents import decode_document
from versioning.maintenance.listing import list_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sources import RepositoryStore
    from versioning.commits import CommitId

CONCURRENCY = 16  # requests in flight; an object store answers each in 20-60 ms
_FIELDS = {"refs/": ("commit",), "logs/heads/": ("before", "after")}


@dataclass(frozen=True, slots=True)
class Roots:
    """Commits that everything needed is reached from.

    Attributes:
        refs: Key of each ref below the repository's prefix (`refs/heads/main`), and its commit. These must be whole.
        recent: Where branches were lately, deleted ones too. Parts of these may be gone by a shorter grace period.
        digest: Of what the refs are; equal for equal refs.
    """

    refs: dict[str, CommitId]
    recent: frozenset[CommitId]
    digest: str


def read_roots(store: RepositoryStore, prefix: str, *, since_ns: int) -> Roots:
    """Read all refs, in whichever folder, and the lines of branch logs written since a time of the store's clock.

    Raises:
        CorruptRepositoryError: If a ref or line is damaged: what it named may be needed.
    """
    stats = list_keys(store, prefix + "refs/")
    digest = blake3("\n".join(f"{stat.key} {stat.version}" for stat in stats).encode()).hexdigest()
    lines = [
        stat.key
        for stat in list_keys(store, prefix + "logs/heads/")
        if stat.mtime_ns is None or stat.mtime_ns >= since_ns
    ]
    with ThreadPoolExecutor(CONCURRENCY, "forebay-roots") as pool:
        named = list(pool.map(lambda stat: read_named(store, prefix, stat.key), stats))
        logged = list(pool.map(lambda key: read_named(store, prefix, key), lines))
    refs = {stat.key.removeprefix(prefix): found[0] for stat, found in zip(stats, named, strict=True) if found}
    return Roots(refs, _union(logged), digest)


def read_named(store: RepositoryStore, prefix: str, key: str) -> tuple[CommitId, ...]:
    """Return the commits that a ref or a line of a log names; none if it is gone.

    Raises:
        CorruptRepositoryError: If it is damaged.
    """
    fields = next(fields for folder, fields in _FIELDS.items() if key.startswith(prefix + folder))
    try:
        content = decode_document(store.fetch(key)[0], key)
    except SourceNotFoundError:
        return ()
    try:
        found = [content[name] for name in fields]
        return tuple(check_commit_id(each) for each in found if each is not None)
    except (KeyError, ValueError) as error:
        raise CorruptRepositoryError(key, reason=f"it does not say which commit it names ({error!r})") from error


def _union(found: Iterable[tuple[CommitId, ...]]) -> frozenset[CommitId]:
    return frozenset(each for commits in found for each in commits)
