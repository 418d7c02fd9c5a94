"""Merges, reverts and cherry-picks of the current branch, and the conflicts that they stop at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import versioning
from ds.errors import UsageError
from versioning import (
    ChangeSet,
    Job,
    MergeConflictError,
    MergeFile,
    MergeOptions,
    MergePlan,
    MergeResult,
    MergeState,
    MergeStateError,
    NothingToCommitError,
    plan_job,
    run_job,
)
from versioning.committing import changes_of
from versioning.conflicts import under_way
from versioning.integrating import revert_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ds.dataset import Dataset
    from versioning import CommitId
    from versioning.conflicts import How
    from versioning.integrating import JobKind


def merge_file(dataset: Dataset) -> MergeFile:
    """Return where the state of the current branch's merge is kept: beside its stage."""
    return MergeFile(dataset.stage().path.with_suffix(".merge"))


def make_job(
    dataset: Dataset,
    kind: JobKind,
    revision: str,
    *,
    options: MergeOptions,
    message: str | None = None,
    author: str | None = None,
    mainline: int | None = None,
) -> Job:
    """Return what is to be brought onto the current branch."""
    source, who = dataset.resolve(revision), author or dataset.author
    if kind == "revert" and message is None:
        return revert_job(dataset.repository, source, author=who, mainline=mainline, options=options)
    default = f"Merge {revision} into {dataset.branch}" if kind == "merge" else ""
    return Job(kind, source, message or default, who, options, mainline)


def plan(dataset: Dataset, job: Job) -> MergePlan | None:
    """Return what a job would do now; None if nothing is left to do, or the branch has no commit yet."""
    head = dataset.repository.head(dataset.branch)
    return plan_job(dataset.repository, job, head) if head is not None else None


def start(dataset: Dataset, job: Job) -> MergeResult:
    """Do a job on the current branch. If it stops at conflicts, they are kept until they are settled.

    Raises:
        MergeConflictError: The branch was not moved; go on by `resolve` and `proceed`, or `abort`.
        MergeStateError: If another one is under way.
    """
    file = merge_file(dataset)
    if (found := file.read()) is not None:
        raise MergeStateError(under_way(found))
    dataset.require_room(lambda: _arriving(dataset, job))
    try:
        result = run_job(dataset.repository, dataset.branch, job)
    except MergeConflictError as error:
        if error.plan is not None and error.head is not None:
            file.begin(MergeState.of(dataset.branch, error.head, job, error.plan))
        raise
    dataset.follow()
    return result


def proceed(dataset: Dataset) -> MergeResult:
    """Finish what is under way, with what was settled. If the branch moved, it is planned anew.

    Raises:
        MergeConflictError: If conflicts are left, or came with the branch's new commits.
        MergeStateError: If nothing is under way.
        NothingToCommitError: If what was settled changes nothing; it is over then.
    """
    file = merge_file(dataset)
    state = _state(file)
    if dataset.branch_name != state.branch:  # a working copy has one merge, whatever it shows meanwhile
        raise MergeStateError(f"the {state.job.kind} goes into {state.branch}; go back first: ds switch {state.branch}")
    dataset.require_room(lambda: _arriving(dataset, state.job, state))
    try:
        result = run_job(dataset.repository, state.branch, state.job, resolved=state)
    except NothingToCommitError:
        file.clear()
        raise
    except MergeConflictError as error:
        head = error.head
        if head is not None and head != state.head:
            anew = plan_job(dataset.repository, state.job, head)
            file.update(lambda old: old.moved(head, anew))
        raise
    file.clear()
    dataset.follow()
    return result


def abort(dataset: Dataset) -> MergeState:
    """Forget what is under way and return what it was; the branch was never touched."""
    file = merge_file(dataset)
    state = _state(file)
    file.clear()
    return state


def resolve(
    dataset: Dataset, paths: Sequence[str], how: How, *, everything: bool = False, file: Path | None = None
) -> MergeState:
    """Settle conflicts.

    Args:
        dataset: Whose merge is under way.
        paths: Conflicts, or directories with some below them.
        how: How.
        everything: All that are not settled yet, instead of `paths`.
        file: With "file", the local file that one path gets.

    Raises:
        PathNotFoundError: If nothing there is in conflict.
        UnreadableFileError: If the file cannot be read.
    """
    kept = merge_file(dataset)
    state = _state(kept)
    entries = None
    paths = [dataset.path(path) for path in paths]
    if file is not None:
        (path,) = paths
        if path not in state.conflicts.column("path").to_pylist():
            raise UsageError(f"{path} is not in conflict; see: ds conflicts")
        entries = versioning.add_files(dataset.repository, [(path, file)]).upserts

    def settled(now: MergeState) -> MergeState:
        wanted = [str(path) for path in now.left.column("path").to_pylist()] if everything else paths
        return now.resolved(wanted, how, files=entries)

    return kept.update(settled)


def reset_branch(dataset: Dataset, commit: CommitId) -> CommitId | None:
    """Move the current branch to a commit, leave behind what has to be, and return where it was.

    Raises:
        LocalChangesError: If files of a working copy were changed that this would overwrite; nothing was moved.
        ProtectedBranchError: If the branch only moves forward.
    """
    repository = dataset.repository
    dataset.require_room(lambda: changes_of(repository.diff(dataset.head(), commit)))
    before = repository.move_branch(dataset.branch, commit, author=dataset.author, force=True)
    dataset.follow()
    return before


def _arriving(dataset: Dataset, job: Job, resolved: MergeState | None = None) -> ChangeSet:
    """Return what a working copy is going to get by a job, and by what others committed since."""
    repository, head = dataset.repository, dataset.repository.head(dataset.branch)
    if head is None:
        return changes_of(repository.diff(None, job.source))
    planned = plan_job(repository, job, head)
    if resolved is not None:
        planned = resolved.settle(planned)
    if planned.conflicts.num_rows:
        return ChangeSet.of()  # it stops there, and no file is touched
    at = dataset.head()
    others = changes_of(repository.diff(at, head)) if at != head else ChangeSet.of()
    return others.merged_with(planned.changes)


def _state(file: MergeFile) -> MergeState:
    state = file.read()
    if state is None:
        raise MergeStateError("no merge is under way; begin one with: ds merge REVISION")
    return state
