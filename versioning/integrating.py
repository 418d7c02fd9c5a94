"""Bringing commits onto a branch: merge, revert, cherry-pick; planned, then committed, again if the branch moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from versioning.ancestry import is_ancestor
from versioning.bases import MergeBases, Side
from versioning.clashes import clashing_with
from versioning.columns import is_in
from versioning.committing import Committer, Draft, diff_commits
from versioning.errors import (
    AttributesError,
    HistoryCutError,
    MainlineError,
    MergeConflictError,
    NotFastForwardError,
    RevisionNotFoundError,
)
from versioning.hooks.proposals import Proposal
from versioning.merging import MergePlan, MergeResult, settled
from versioning.reading import read_stored
from versioning.strategies import ATTRIBUTES_BYTES, ATTRIBUTES_PATH, Driver, Strategies, Strategy, parse_attributes

if TYPE_CHECKING:
    import pyarrow as pa

    from versioning.columns import Mask
    from versioning.commits import Commit, CommitId
    from versioning.diffs import Diff
    from versioning.hooks.proposals import HookEvent
    from versioning.refs import RefState
    from versioning.repository import Repository

JobKind = Literal["merge", "revert", "cherry-pick"]
FastForward = Literal["auto", "only", "never"]
_RESULTS: dict[str, Literal["merged", "reverted", "picked"]] = {
    "merge": "merged",
    "revert": "reverted",
    "cherry-pick": "picked",
}


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How a merge, revert or cherry-pick is done."""

    strategy: Strategy = "manual"
    """What settles the conflicts that no driver is for."""
    drivers: tuple[Driver, ...] = ()
    """Strategies of some paths; the last that fits rules. They go before those of the tree's `.ds/attributes`."""
    fast_forward: FastForward = "auto"
    """auto: move the branch where it has nothing of its own. only: refuse otherwise. never: always make a commit."""
    squash: bool = False
    """Commit what was merged with the branch's own commit as the only parent; the source's history stays out."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to bring onto a branch.

    Attributes:
        kind: merge: all that `source` has. cherry-pick: what `source` changed. revert: the opposite of that.
        source: The commit.
        message: Of the new commit.
        author: Who does it.
        options: How.
        mainline: Against which parent (from 1) `source` is taken; needed where it has several, not for merges.
    """

    kind: JobKind
    source: CommitId
    message: str
    author: str
    options: MergeOptions = MergeOptions()
    mainline: int | None = None


def revert_job(
    repository: Repository, commit: CommitId, *, author: str, mainline: int | None, options: MergeOptions
) -> Job:
    """Return the job that undoes a commit, with git's message."""
    subject = repository.commit(commit).message.partition("\n")[0][:200]
    message = f'Revert "{subject}"\n\nThis reverts commit {commit}.'
    return Job("revert", commit, message, author, options, mainline)


class Resolves(Protocol):
    """Settles conflicts that were settled by hand before."""

    def settle(self, plan: MergePlan) -> MergePlan:
        """Return the plan without them."""
        ...


def plan_job(repository: Repository, job: Job, head: CommitId) -> MergePlan:
    """Return what a job would do on top of a commit, with its strategies applied; writes nothing.

    Raises:
        AttributesError: If `.ds/attributes` of `head` cannot be used.
        RevisionNotFoundError: If `mainline` names no parent, or is missing.
    """
    bases = MergeBases(repository.work)
    if job.kind == "merge":
        plan = bases.plan(head, job.source)
    else:
        commit = repository.commit(job.source)
        if len(commit.parents) < len(repository.commits.read_whole(job.source).parents):
            raise HistoryCutError(
                f"what {job.source[:12]} changed is not known: ds expire cut off what was before it; "
                "add or remove the files themselves: ds add, ds rm"
            )
        parent = _mainline(commit, job)
        base, wanted = (parent, job.source) if job.kind == "cherry-pick" else (job.source, parent)
        plan = bases.plan_over(Side.of(base), Side.of(head), Side.of(wanted))
    if not plan.conflicts.num_rows:
        return plan
    options = job.options
    drivers = attributes_of(repository, head) + options.drivers
    return settled(plan, Strategies(options.strategy, drivers), taken=_Taken(repository, head, job.source))


def run_job(repository: Repository, branch: str, job: Job, *, resolved: Resolves | None = None) -> MergeResult:
    """Do a job, again if the branch moved meanwhile.

    Raises:
        MergeConflictError: With the plan; the branch was not moved.
        NothingToCommitError: If a revert, cherry-pick or squash changes nothing.
        NotFastForwardError: With `fast_forward="only"`.
        LostRaceError: If others kept moving the branch.
    """
    committer = Committer(repository.work, branch, _draft(repository, job))
    attempt = 0
    while True:
        head = repository.refs.branch(branch)
        at = head.commit if head else None
        if (landed := committer.landed(at)) is not None:
            return MergeResult("fast-forward" if landed == job.source else _result(job), landed)
        done = _try(repository, committer, head, job, resolved)
        if done is not None:
            return done
        committer.wait(attempt)
        attempt += 1


def attributes_of(repository: Repository, commit: CommitId) -> tuple[Driver, ...]:
    """Return the drivers that a version's `.ds/attributes` names; none if it has no such file.

    Raises:
        AttributesError: If it cannot be used.
    """
    entry = repository.tree_of(commit).get(ATTRIBUTES_PATH)
    if entry is None:
        return ()
    try:
        data = read_stored(repository, entry, max_bytes=ATTRIBUTES_BYTES)
    except ValueError as error:
        raise AttributesError(ATTRIBUTES_PATH, reason=str(error)) from error
    return parse_attributes(data)


def _try(
    repository: Repository, committer: Committer, head: RefState | None, job: Job, resolved: Resolves | None
) -> MergeResult | None:
    at, options = (head.commit if head else None), job.options
    if job.kind == "merge":
        if at is not None and is_ancestor(repository.commits, job.source, at):
            return MergeResult("up-to-date", at)
        ahead = at is None or is_ancestor(repository.commits, at, job.source)
        if at is None or (ahead and options.fast_forward != "never" and not options.squash):
            _check_fast_forward(repository, committer.branch, at, job)
            moved = committer.try_move(head, job.source)
            return MergeResult("fast-forward", moved) if moved else None
        if options.fast_forward == "only" and not ahead:
            hint = "merge without --ff-only"
            raise NotFastForwardError(committer.branch, job.source[:12], hint=hint)
    if at is None:
        raise RevisionNotFoundError(committer.branch, detail="it has no commit to apply changes to")
    plan = plan_job(repository, job, at)
    if resolved is not None:
        plan = resolved.settle(plan)
    if plan.conflicts.num_rows:
        raise MergeConflictError(committer.branch, plan.conflicts, what=job.kind, plan=plan, head=at)
    diff = plan.diff()
    if diff is None:
        diff = repository.diff_changes(at, plan.changes)
    made = committer.try_commit(head, at, diff, arrival=plan.arrival)
    return MergeResult(_result(job), made) if made else None


def _check_fast_forward(repository: Repository, branch: str, at: CommitId | None, job: Job) -> None:
    """Ask the hooks; there is no new commit to keep their answers in."""

    def changes() -> Diff:
        return diff_commits(repository.work, at, job.source)

    repository.work.check(Proposal("pre-merge", branch, at, job.author, job.message, changes))


def _result(job: Job) -> Literal["merged", "squashed", "reverted", "picked"]:
    return "squashed" if job.options.squash else _RESULTS[job.kind]


def _draft(repository: Repository, job: Job) -> Draft:
    merges = job.kind == "merge" and not job.options.squash
    action = f"{job.kind}: {job.source[:12]}"
    parents = (job.source,) if merges else ()
    if job.kind != "cherry-pick":
        event: HookEvent = "pre-merge" if job.kind == "merge" else "pre-commit"
        return Draft(job.message, job.author, action, parents_extra=parents, allow_empty=merges, event=event)
    picked = repository.commit(job.source)
    return Draft(
        job.message or picked.message,
        picked.author,
        action,
        meta=picked.meta,
        lineage=picked.lineage,
        committer=job.author,
        authored_at=picked.authored_at,
    )


def _mainline(commit: Commit, job: Job) -> CommitId | None:
    """Return the parent that a commit's changes are taken against; None for a first commit."""
    parents, number = commit.parents, job.mainline
    if number is None and len(parents) <= 1:
        return parents[0] if parents else None
    if number is None or not 1 <= number <= len(parents):
        raise MainlineError(job.source, parents=len(parents), mainline=number)
    return parents[number - 1]


class _Taken:
    """Says which paths our tree or theirs has, or could not have beside what it has."""

    def __init__(self, repository: Repository, *commits: CommitId) -> None:
        self._trees = [repository.tree_of(commit) for commit in commits]

    def __call__(self, paths: pa.Array[Any]) -> Mask:
        ordered = paths.sort()
        ours, theirs = (
            is_in(paths, tree.get_many(ordered).column("path")) | clashing_with(tree, paths) for tree in self._trees
        )
        return ours | theirs
