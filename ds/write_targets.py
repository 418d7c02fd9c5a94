"""Which branch a write goes to, and what this process committed to it."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds.errors import ReadOnlyRevisionError
from versioning import InvalidNameError, check_ref_name

if TYPE_CHECKING:
    from ds.dataset import Dataset
    from versioning import CommitId

_STEPS = re.compile(r"[~^].*")


@dataclass(frozen=True)
class WriteTarget:
    """A branch that is written to.

    Attributes:
        dataset: The dataset.
        branch: The branch; one that is not there yet begins with the first commit of the repository.
        base: What it named when the write was begun: what others commit after that is not overwritten unseen.
        author: Who commits.
    """

    dataset: Dataset
    branch: str
    base: CommitId | None
    author: str


def find_target(dataset: Dataset, revision: str | None, *, author: str) -> WriteTarget:
    """Find the branch that a revision names.

    Raises:
        ReadOnlyRevisionError: If it names a tag or a commit.
        RevisionNotFoundError: If it names nothing, in a repository that has branches.
    """
    repository = dataset.repository
    name = branch_named(dataset, revision)
    if revision in (None, "HEAD", name, f"refs/heads/{name}") and _can_be_branch(name):
        base = repository.head(name)
        if base is not None or revision in (None, "HEAD"):
            return WriteTarget(dataset, name, base, author)
    written = revision or name
    if written.removeprefix("refs/tags/") in repository.tags():
        raise ReadOnlyRevisionError(dataset.name, written, what="tag")
    if repository.branches():
        dataset.resolve(revision)
        raise ReadOnlyRevisionError(dataset.name, written, what="commit")
    if written.startswith("refs/") and name == written:
        dataset.resolve(revision)  # says that there is none
    check_ref_name(name, what="branch")
    return WriteTarget(dataset, name, None, author)


def branch_named(dataset: Dataset, revision: str | None) -> str:
    """Return the branch whose moves can change what a revision means, if it names one at all."""
    name = _STEPS.sub("", revision or "HEAD").removeprefix("refs/heads/")
    return dataset.branch if name == "HEAD" else name


def _can_be_branch(name: str) -> bool:
    try:
        check_ref_name(name, what="branch")
    except InvalidNameError:
        return False
    return True


_committed: Counter[tuple[str, str]] = Counter()
_committed_lock = threading.Lock()


def note_commit(target: WriteTarget) -> None:
    """Remember that this process moved a branch, so that its filesystems look at it again."""
    with _committed_lock:
        _committed[target.dataset.repository.spec.id, target.branch] += 1


def commits_noted(dataset: Dataset, revision: str | None) -> int:
    """Return a number that is larger after each commit of this process to the branch that a revision names."""
    return _committed[dataset.repository.spec.id, branch_named(dataset, revision)]
