"""Branches: created, moved, renamed, protected, deleted; and a handle for working on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources import SwapLostError
from versioning.ancestry import is_ancestor
from versioning.errors import LostRaceError, NotFastForwardError, RefExistsError, RevisionNotFoundError
from versioning.histories import HistoryQuery, history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from versioning.commits import Commit, CommitId
    from versioning.reflogs import RefUpdate
    from versioning.refs import RefState
    from versioning.repository import Repository
    from versioning.transactions import Transaction
    from versioning.trees import Tree


class Branch:
    """A branch of a repository, by name; it need not exist yet. Made by `Repository.branch`.

    Attributes:
        repository: Where.
        name: Its name.
    """

    def __init__(self, repository: Repository, name: str) -> None:
        self.repository = repository
        self.name = name

    @property
    def head(self) -> CommitId | None:
        """What it names now, read anew each time; None if there is no such branch."""
        return self.repository.head(self.name)

    @property
    def is_protected(self) -> bool:
        """Whether it only moves forward."""
        state = self.repository.refs.branch(self.name)
        return state is not None and state.protected

    def tree(self) -> Tree:
        """Return the paths of its head.

        Raises:
            RevisionNotFoundError: If there is no such branch.
        """
        return self.repository.tree_of(_existing(self.repository, self.name)[1])

    def log(self, *paths: str, limit: int | None = None) -> Iterator[tuple[CommitId, Commit]]:
        """Yield its commits, newest first; with paths only those that changed one of them, or a file below."""
        query = HistoryQuery((_existing(self.repository, self.name)[1],), paths=paths, limit=limit)
        return history(self.repository.work, query)

    def reflog(self) -> Iterator[RefUpdate]:
        """Yield how it moved, newest first."""
        return self.repository.branch_log(self.name)

    def transaction(self, *, message: str, author: str) -> Transaction:
        """Begin changes that become one commit; see `Repository.transaction`."""
        return self.repository.transaction(self.name, message=message, author=author)


def delete_branch(repository: Repository, name: str, *, author: str) -> None:
    """See `Repository.delete_branch`."""
    state, _ = _existing(repository, name)
    try:
        repository.refs.move_branch(name, expect=state, to=None, author=author, action="branch: deleted")
    except SwapLostError as error:
        raise LostRaceError(name, detail="somebody committed to it while it was deleted") from error


def move_branch(
    repository: Repository, name: str, to: CommitId, *, author: str, force: bool, action: str
) -> CommitId | None:
    """See `Repository.move_branch`."""
    repository.commits.read(to)
    state = repository.refs.branch(name)
    at = state.commit if state else None
    if at == to:
        return at
    forced = at is not None and not is_ancestor(repository.commits, at, to)
    if forced and not force:
        raise NotFastForwardError(name, to[:12], hint="merge instead, or leave them behind with --force")
    try:
        repository.refs.move_branch(name, expect=state, to=to, author=author, action=action, forced=forced)
    except SwapLostError as error:
        raise LostRaceError(name, detail="somebody committed to it at this moment") from error
    return at


def rename_branch(repository: Repository, old: str, new: str, *, author: str) -> None:
    """See `Repository.rename_branch`."""
    state, at = _existing(repository, old)
    found = repository.refs.branch(new)
    if found is not None and found.commit is not None:
        raise RefExistsError(new, what="branch")
    if state.protected:  # before the new one is made
        _delete(repository, old, state, author=author, action=f"branch: renamed to {new}")
    action = f"branch: renamed from {old}"
    try:
        made = repository.refs.move_branch(new, expect=found, to=at, author=author, action=action)
    except SwapLostError as error:
        raise RefExistsError(new, what="branch") from error
    try:
        _delete(repository, old, state, author=author, action=f"branch: renamed to {new}")
    except LostRaceError:
        _delete(repository, new, made, author=author, action=f"branch: {old} moved, so it was not renamed")
        raise


def protect_branch(repository: Repository, name: str, *, protected: bool, author: str) -> bool:
    """See `Repository.protect_branch`."""
    state, at = _existing(repository, name)
    if state.protected == protected:
        return False
    action = "branch: protected" if protected else "branch: no longer protected"
    try:
        repository.refs.move_branch(name, expect=state, to=at, author=author, action=action, protected=protected)
    except SwapLostError as error:
        raise LostRaceError(name, detail="somebody committed to it at this moment") from error
    return True


def _existing(repository: Repository, name: str) -> tuple[RefState, CommitId]:
    state = repository.refs.branch(name)
    if state is None or state.commit is None:
        raise RevisionNotFoundError(name, detail="no such branch")
    return state, state.commit


def _delete(repository: Repository, name: str, state: RefState, *, author: str, action: str) -> None:
    try:
        repository.refs.move_branch(name, expect=state, to=None, author=author, action=action)
    except SwapLostError as error:
        raise LostRaceError(name, detail="somebody committed to it at this moment") from error
