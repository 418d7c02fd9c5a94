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
from versioning.shallow import read_shallow

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        digest: Of what the refs are and where histories end; equal if both are.
    """

    refs: dict[str, CommitId]
    recent: frozenset[CommitId]
    digest: str


def read_roots(store: RepositoryStore, prefix: str, *, since_ns: int) -> Roots:
    """Read all refs, in whichever folder, and the lines of branch logs written since a time of the store's clock.

    A branch that is renamed meanwhile is made under its new name before the old one goes, so refs are listed again
    after they were read, and the logs last of all.

    Raises:
        CorruptRepositoryError: If a ref or line is damaged: what it named may be needed.
    """
    first = list_keys(store, prefix + "refs/")
    facts = [f"{stat.key} {stat.version}" for stat in first] + [str(read_shallow(store, prefix).version)]
    refs: dict[str, CommitId] = {}
    recent: set[CommitId] = set()
    with ThreadPoolExecutor(CONCURRENCY, "forebay-roots") as pool:

        def read(keys: list[str]) -> Iterator[tuple[str, tuple[CommitId, ...]]]:
            return zip(keys, pool.map(lambda key: read_named(store, prefix, key), keys), strict=True)

        for key, found in read([stat.key for stat in first]):
            refs.update({key.removeprefix(prefix): commit for commit in found})
        known = {(stat.key, stat.version) for stat in first}
        again = [stat.key for stat in list_keys(store, prefix + "refs/") if (stat.key, stat.version) not in known]
        for key, found in read(again):
            recent.update(each for each in [refs.get(key.removeprefix(prefix))] if each)
            refs.update({key.removeprefix(prefix): commit for commit in found})
        lines = [
            stat.key
            for stat in list_keys(store, prefix + "logs/heads/")
            if stat.mtime_ns is None or stat.mtime_ns >= since_ns
        ]
        for _, found in read(lines):
            recent.update(found)
    return Roots(refs, frozenset(recent), blake3("\n".join(facts).encode()).hexdigest())


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
