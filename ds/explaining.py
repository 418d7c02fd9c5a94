"""Why a read of a path is fast or slow, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from cache_runtime.store.ghosts import MissReason
from ds.errors import UsageError

if TYPE_CHECKING:
    from cache_runtime.explaining import Explanation
    from ds.dataset import Dataset
    from sources import Location
    from versioning import CommitId

_COMMITS = 20  # further back nobody remembers what was cached


class Verdict(StrEnum):
    """What will happen to a read."""

    CACHED = "cached"
    AT_WORKER = "at_worker"
    """Not here, but a worker has it."""
    NO_CACHE = "no_cache"
    NEVER_CACHED = "never_cached"
    NEW_VERSION = "new_version"
    """The path has other bytes than an older commit, whose bytes are cached."""
    EVICTED = "evicted"
    NOT_ADMITTED = "not_admitted"
    CORRUPT = "corrupt"
    STORE_OFF = "store_off"
    WORKER_LOST = "worker_lost"
    """Nobody who answers has it, and its owner does not answer."""


@dataclass(frozen=True)
class EarlierVersion:
    """Other bytes that the path had.

    Attributes:
        commit: The newest commit with them.
        cached: Whether this node, or a worker that answers, has them.
    """

    commit: CommitId
    cached: bool


@dataclass(frozen=True)
class PathReport:
    """What is known about the bytes of a path.

    Attributes:
        path: The file.
        commit: The version.
        location: Where its bytes are.
        explanation: Where they are cached; None if the dataset has no cache.
        earlier: The bytes that the path had before; None if it always had these, as far as one looked.
        verdict: What a read finds.
    """

    path: str
    commit: CommitId
    location: Location
    explanation: Explanation | None
    earlier: EarlierVersion | None
    verdict: Verdict


def explain_path(dataset: Dataset, commit: CommitId, path: str) -> PathReport:
    """Find out where a file's bytes are, and why not here; asks the workers that may have them, and fetches nothing.

    Raises:
        PathNotFoundError: If the version has no such file.
        UsageError: If it is a directory.
    """
    tree = dataset.repository.tree_of(commit)
    entry = tree.get(path)
    if entry is None:
        tree.listdir(path)  # says so if there is nothing at all
        raise UsageError(
            f"{path or '/'} is a directory; name a file in it, see: ds ls {dataset.name}@{commit[:8]}/{path}"
        )
    location = entry.location(dataset.repository.root)
    if dataset.opened.runtime is None:
        return PathReport(path, commit, location, None, None, Verdict.NO_CACHE)
    found = dataset.opened.client_for(tree.size).explain(location)
    earlier = None if found.cached else _find_earlier(dataset, commit, path, location)
    return PathReport(path, commit, location, found, earlier, judge(found, earlier))


def _find_earlier(dataset: Dataset, commit: CommitId, path: str, location: Location) -> EarlierVersion | None:
    """Look for other bytes of the path in the commits before."""
    for older, _ in islice(dataset.repository.log(commit), 1, _COMMITS):
        entry = dataset.repository.tree_of(older).get(path)
        if entry is None:
            return None
        before = entry.location(dataset.repository.root)
        if before.object.id != location.object.id:
            return EarlierVersion(older, cached=_is_anywhere(dataset.client.explain(before)))
    return None


def _is_anywhere(found: Explanation) -> bool:
    return found.cached or all(any(state.has_it for state in group.candidates) for group in found.groups)


_REASONS = {
    MissReason.EVICTED: Verdict.EVICTED,
    MissReason.NOT_ADMITTED: Verdict.NOT_ADMITTED,
    MissReason.CORRUPT: Verdict.CORRUPT,
    MissReason.STORE_OFF: Verdict.STORE_OFF,
}


def judge(found: Explanation, earlier: EarlierVersion | None) -> Verdict:
    """Say what a read finds; pure."""
    if found.cached:
        return Verdict.CACHED
    groups = [group.candidates for group in found.groups if group.missing]
    if groups and all(any(state.has_it and not state.is_self for state in candidates) for candidates in groups):
        return Verdict.AT_WORKER
    foreign = [candidates[0] for candidates in groups if candidates and not candidates[0].is_self]
    here = _REASONS.get(found.reason) if found.reason is not None else None
    if here is not None and not foreign:  # what another worker owns is here as a guest only: that it went says little
        return here
    if earlier is not None and earlier.cached:
        return Verdict.NEW_VERSION
    if any(owner.has_it is None for owner in foreign):
        return Verdict.WORKER_LOST
    return here or Verdict.NEVER_CACHED


def describe_verdict(report: PathReport, *, name: str) -> tuple[str, str]:
    """Return in words why, and what to do; "" for nothing. `name` is the dataset's."""
    load = f"ds load {name}@{report.commit[:8]}/{report.path}"
    found = report.explanation
    earlier = "" if report.earlier is None else report.earlier.commit[:8]
    off = "" if found is None else found.store_off or ""
    words = {
        Verdict.CACHED: ("a read takes it from this node's cache", ""),
        Verdict.AT_WORKER: ("a read takes it from a worker, over the network", f"to have it here: {load} --here"),
        Verdict.NO_CACHE: (
            "the dataset names no cache: every read goes to the source",
            "add spec.cache.runtimeRef to its manifest",
        ),
        Verdict.NEVER_CACHED: ("it was not read or loaded yet, or so long ago that nobody remembers", load),
        Verdict.NEW_VERSION: (
            f"the file changed after commit {earlier}: the cache has those bytes, which are not this version's",
            f"ds load {name} --diff {earlier}..{report.commit[:8]}",
        ),
        Verdict.EVICTED: (
            "it was evicted: others needed the room, or somebody evicted it (ds cache evict)",
            f"pin it (ds cache pin {name}@{report.commit[:8]}), or raise capacity, quota or priority; then: {load}",
        ),
        Verdict.NOT_ADMITTED: (
            "there was no room that it may take: the cache keeps what it has (admission), or the quota is used up",
            "see ds cache status; raise capacity, quota or priority",
        ),
        Verdict.CORRUPT: (
            "its bytes on this node's disk failed their check and were dropped",
            f"{load}; look at the disk: ds cache doctor",
        ),
        Verdict.STORE_OFF: (f"this node's cache is off: {off}", "ds cache doctor"),
        Verdict.WORKER_LOST: (
            "its owner does not answer; a read goes to the next workers, then to the source",
            "ds cache doctor; the worker may be down, or unreachable from here",
        ),
    }
    return words[report.verdict]
