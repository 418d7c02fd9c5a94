"""Commits that operations make: they say what made them, and from what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from versioning import ChangeSet, NothingToCommitError
from versioning.columns import single

if TYPE_CHECKING:
    from dataset_controller.operations import Operation
    from ds.dataset import Dataset
    from versioning import CommitId, Diff, Repository

_META = "forebay.operation"


def mark_of(operation: Operation) -> dict[str, Any]:
    """Return what the meta of a commit says of the operation that made it."""
    from dataset_controller.operator.planning.runs import digest_of

    mark = {"kind": operation.kind, "name": operation.metadata.name, "spec": digest_of(operation)}
    return {_META: mark}


def is_made_by(repository: Repository, commit: CommitId | None, operation: Operation, inputs: list[str]) -> bool:
    """Say whether a commit is what this operation, as it is specified, made of these inputs."""
    if commit is None:
        return False
    found = repository.commit(commit)
    return found.meta.get(_META) == mark_of(operation)[_META] and found.lineage.get("inputs") == inputs


def input_uri(dataset: Dataset, commit: CommitId) -> str:
    """Return how lineage names a version; see `ds commit --input`."""
    return f"ds://{dataset.name}@{commit}"


def changes_of_diff(diff: Diff) -> ChangeSet:
    """Return the change set that leads from the old side of a diff to its new one."""
    gone = diff.only("D").table.column("path")
    return ChangeSet.of_table(diff.new_entries, single(gone))


def publish(
    dataset: Dataset,
    branch: str,
    changes: ChangeSet,
    *,
    operation: Operation,
    base: CommitId | None,
    inputs: list[str],
    message: str,
) -> CommitId:
    """Commit what an operation made, and return the commit; that of the branch where it has all of it already."""
    repository = dataset.repository
    try:
        return repository.commit_changes(
            branch,
            changes,
            message=message,
            author=dataset.author,
            base=base,
            meta=mark_of(operation),
            lineage={"inputs": inputs} if inputs else {},
        )
    except NothingToCommitError:
        return repository.resolve(branch)
