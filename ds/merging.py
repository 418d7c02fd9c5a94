"""Merges, reverts and cherry-picks of the current branch, and the conflicts that they stop at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ds.errors import UsageError
from versioning import (
    Job,
    MergeConflictError,
    MergeFile,
    MergeOptions,
    MergePlan,
    MergeResult,
    MergeState,
    MergeStateError,
    NothingToCommitError,
    add_files,
    plan_job,
    run_job,
)
from versioning.conflicts import under_way
from versioning.integrating import revert_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ds.dataset import Dataset
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
    head = dataset.head()
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
    if file is not None:
        (path,) = paths
        if path not in state.conflicts.column("path").to_pylist():
            raise UsageError(f"{path} is not in conflict; see: ds conflicts")
        entries = add_files(dataset.repository, [(path, file)]).upserts

    def settled(now: MergeState) -> MergeState:
        wanted = [str(path) for path in now.left.column("path").to_pylist()] if everything else paths
        return now.resolved(wanted, how, files=entries)

    return kept.update(settled)


def _state(file: MergeFile) -> MergeState:
    state = file.read()
    if state is None:
        raise MergeStateError("no merge is under way; begin one with: ds merge REVISION")
    return state
