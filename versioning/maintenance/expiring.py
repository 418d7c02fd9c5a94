"""Shortening histories: commits that are old enough are cut off, and garbage collection takes what only they need."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sources import SwapLostError
from versioning.commits import CommitStore, format_time
from versioning.errors import LostRaceError
from versioning.maintenance.operations import record_operation
from versioning.maintenance.roots import read_roots
from versioning.shallow import hide, read_shallow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime

    from versioning.commits import Commit, CommitId
    from versioning.repository import Repository

_ROUNDS = 8
_HEADS, _TAGS = "refs/heads/", "refs/tags/"


@dataclass(frozen=True, slots=True)
class ExpirePolicy:
    """What stays of a history. A commit stays if either rule keeps it; branch heads, tags and pins always stay."""

    since: datetime | None = None
    """Commits made since then stay, as far as they hang together from the head on."""
    newest: int | None = None
    """So many commits of each branch stay, from the head on."""
    tagged_history: bool = False
    """Everything behind a tag stays, not only the tagged commit."""
    by: str = ""
    """Who expires, for the record."""


@dataclass(frozen=True, slots=True)
class ExpireReport:
    """What was cut off, or would be.

    Attributes:
        kept: Commits that stay.
        hidden: Commits that were parents of one that stays, and are not any more; all behind them goes too.
        cut_at: By branch, how many of its commits stay.
        dry_run: Nothing was written.
    """

    kept: int
    hidden: tuple[CommitId, ...]
    cut_at: Mapping[str, int]
    dry_run: bool = False


def expire_history(
    repository: Repository, policy: ExpirePolicy, *, branches: Collection[str] = (), dry_run: bool = False
) -> ExpireReport:
    """Cut histories off: from now on they end at the last commit that stays.

    Commits are immutable and their ids cover their parents, so nothing is rewritten: a record says which parents are
    hidden, and whatever walks the history stops there. Their objects go when garbage is collected.

    Args:
        repository: Where.
        policy: What stays.
        branches: Only the histories of these; all by default. What other branches reach stays.
        dry_run: Write nothing.

    Raises:
        LostRaceError: If others kept changing the record.
        CorruptRepositoryError: If what stays is not whole.
    """
    store, prefix = repository.store, repository.prefix
    for _ in range(_ROUNDS):
        before = read_shallow(store, prefix)
        commits = CommitStore(store, prefix)
        report = plan_expiry(commits, _refs(repository), policy, branches=branches, dry_run=dry_run)
        if dry_run or not report.hidden:
            return report
        try:
            hide(store, prefix, before, report.hidden)
        except SwapLostError:
            continue
        repository.commits.forget_hidden()
        details = {"kept": report.kept, "hidden": len(report.hidden), "branches": sorted(branches)}
        details |= {"since": format_time(policy.since) if policy.since else None, "newest": policy.newest}
        record_operation(repository, "expire", policy.by, details)
        return report
    raise LostRaceError("the history", detail="others kept expiring it")


def plan_expiry(
    commits: CommitStore,
    refs: Mapping[str, CommitId],
    policy: ExpirePolicy,
    *,
    branches: Collection[str] = (),
    dry_run: bool = True,
) -> ExpireReport:
    """Decide what is cut off; reads the commits that stay.

    Args:
        commits: Where to read.
        refs: Key of each ref (`refs/heads/<encoded name>`) and its commit.
        policy: What stays.
        branches: Encoded names of the branches whose history is cut; all by default.
        dry_run: For the report.
    """
    kept: set[CommitId] = set()
    cut_at: dict[str, int] = {}
    for key, head in refs.items():
        name = key.removeprefix(_HEADS)
        if not key.startswith(_HEADS):
            whole = policy.tagged_history and key.startswith(_TAGS)
            kept |= _behind([head], commits) if whole else {head}
        elif branches and name not in branches:
            kept |= _behind([head], commits)
        else:
            stay = _newest(commits, head, policy)
            cut_at[name] = len(stay)
            kept |= stay
    parents = {parent for identity in kept for parent in commits.read(identity).parents}
    return ExpireReport(len(kept), tuple(sorted(parents - kept)), cut_at, dry_run)


def _newest(commits: CommitStore, head: CommitId, policy: ExpirePolicy) -> set[CommitId]:
    """Return the commits of a branch that stay: reached from its head through commits that stay."""
    since = format_time(policy.since) if policy.since else None

    def stays(number: int, commit: Commit) -> bool:
        recent = since is not None and commit.committed_at >= since
        return not number or recent or (policy.newest is not None and number < policy.newest)

    return _walk(commits, [head], stays)


def _behind(starts: Iterable[CommitId], commits: CommitStore) -> set[CommitId]:
    return _walk(commits, starts, lambda number, commit: True)


def _walk(commits: CommitStore, starts: Iterable[CommitId], stays: Callable[[int, Commit], bool]) -> set[CommitId]:
    """Return the commits that stay, highest generation first; the parents of others are not looked at."""
    queue: list[tuple[int, CommitId]] = []
    seen: set[CommitId] = set()
    kept: set[CommitId] = set()

    def push(found: Iterable[CommitId]) -> None:
        for identity in found:
            if identity not in seen:
                seen.add(identity)
                heapq.heappush(queue, (-commits.read(identity).generation, identity))

    push(starts)
    while queue:
        _, identity = heapq.heappop(queue)
        commit = commits.read(identity)
        if stays(len(kept), commit):
            kept.add(identity)
            push(commit.parents)
    return kept


def _refs(repository: Repository) -> Mapping[str, CommitId]:
    return read_roots(repository.store, repository.prefix, since_ns=1 << 62).refs
