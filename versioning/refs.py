"""Branches and tags: the only things in a repository that change, and only by compare-and-swap."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sources import SourceNotFoundError, SourceUnavailableError, SwapLostError
from versioning.commits import CommitId, check_commit_id, format_time
from versioning.errors import CorruptRepositoryError, ProtectedBranchError, RefExistsError
from versioning.names import check_ref_name, decode_ref, encode_ref
from versioning.reflogs import RefLogs, RefUpdate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime

    from sources import RepositoryStore, Version

_CONCURRENCY = 16  # requests in flight; an object store answers each in 20-60 ms


@dataclass(frozen=True, slots=True)
class RefState:
    """What a ref holds.

    Attributes:
        commit: The commit; None for a branch that was deleted (its sequence goes on, so that its log stays whole).
        transaction: Random, new for each change; tells whose change took effect when a response was lost.
        sequence: How often the ref was changed, from 1.
        updated_at: UTC, RFC 3339 with milliseconds.
        version: What the next change must expect.
        protected: Whether the branch only moves forward; see `Refs.move_branch`.
    """

    commit: CommitId | None
    transaction: str
    sequence: int
    updated_at: str
    version: Version
    protected: bool = False


class Refs:
    """Reads and moves the refs of a repository.

    Attributes:
        logs: How its branches moved.
        clock: Tells the time that moves are recorded with.
        guard: Called before a ref is to name a commit, with that and those it names now; it may refuse. See
            `SweepGuard.check`.
    """

    def __init__(self, store: RepositoryStore, prefix: str, clock: Callable[[], datetime]) -> None:
        self.logs = RefLogs(store, prefix)
        self.clock = clock
        self.guard: Callable[[CommitId, Collection[CommitId]], None] | None = None
        self._store = store
        self._prefix = prefix

    def branch(self, name: str) -> RefState | None:
        """Return a branch's state (also of a deleted one), or None if there never was one.

        Raises:
            CorruptRepositoryError: If the ref's content is damaged.
        """
        return self._fetch(self._head_key(name))

    def tag(self, name: str) -> CommitId | None:
        """Return what a tag names, or None."""
        found = self._fetch(self._tag_key(name))
        return found.commit if found else None

    def branch_states(self) -> dict[str, RefState]:
        """Return the state of every branch that names a commit, sorted by name."""
        return {name: state for name, state in self._states("refs/heads/").items() if state.commit}

    def branches(self) -> dict[str, CommitId]:
        """Return every branch with its commit, sorted by name."""
        return self._list("refs/heads/")

    def tags(self) -> dict[str, CommitId]:
        """Return every tag with its commit, sorted by name."""
        return self._list("refs/tags/")

    def move_branch(
        self,
        name: str,
        *,
        expect: RefState | None,
        to: CommitId | None,
        author: str,
        action: str,
        forced: bool = False,
        protected: bool | None = None,
    ) -> RefState:
        """Let a branch name another commit (None: delete it), if it is still in the state `expect`.

        A lost response is resolved by reading back. The branch's log is written afterwards.

        Args:
            name: The branch.
            expect: What was read; None: there is no such branch.
            to: The commit.
            author: For the log.
            action: For the log.
            forced: Whether commits may be left behind: `to` is no descendant of where the branch is.
            protected: Protect the branch from now on, or no longer; by default that stays as it is.

        Raises:
            InvalidNameError: If a new branch cannot have this name.
            ProtectedBranchError: If it is protected, and the move is forced or a deletion; nothing was changed.
            SwapLostError: If it is in another state; nothing was changed.
            SourceUnavailableError: If the store cannot be reached and the branch was not moved when it was last seen.
        """
        check_ref_name(name, what="branch")
        was_protected = expect is not None and expect.protected
        if was_protected and (forced or to is None):
            raise ProtectedBranchError(name, action=action)
        keep = was_protected if protected is None else protected
        state = self._swap(self._head_key(name), expect=expect, to=to, protected=keep)
        before = expect.commit if expect else None
        update = RefUpdate(state.sequence, before, to, author, action, state.updated_at, state.transaction)
        self.logs.append(name, update)
        return state

    def create_tag(self, name: str, at: CommitId) -> None:
        """Create a tag; it can never be moved.

        Raises:
            RefExistsError: If there is one.
        """
        check_ref_name(name, what="tag")
        try:
            self._swap(self._tag_key(name), expect=None, to=at)
        except SwapLostError as error:
            raise RefExistsError(name, what="tag") from error

    def create_branch(self, name: str, at: CommitId, *, author: str) -> None:
        """Create a branch.

        Raises:
            RefExistsError: If there is one.
        """
        check_ref_name(name, what="branch")
        found = self.branch(name)
        if found and found.commit:
            raise RefExistsError(name, what="branch")
        try:
            self.move_branch(name, expect=found, to=at, author=author, action="branch: created")
        except SwapLostError as error:
            raise RefExistsError(name, what="branch") from error

    def pin(self, run: str) -> CommitId | None:
        """Return what a run is pinned to, or None."""
        found = self._fetch(self._pin_key(run))
        return found.commit if found else None

    def pins(self) -> dict[str, CommitId]:
        """Return every pinned run with its commit, sorted by name."""
        return self._list("refs/pins/")

    def create_pin(self, run: str, at: CommitId) -> None:
        """Note which commit a run uses; it can never be moved. Doing it again changes nothing.

        Raises:
            RefExistsError: If the run is pinned to another commit.
        """
        check_ref_name(run, what="run")
        try:
            self._swap(self._pin_key(run), expect=None, to=at)
        except SwapLostError as error:
            if self.pin(run) != at:
                raise RefExistsError(run, what="pin") from error

    def delete_pin(self, run: str) -> CommitId | None:
        """Forget a pin; return what it was, None if there was none."""
        check_ref_name(run, what="run")
        found = self.pin(run)
        if found is not None:
            self._store.delete(self._pin_key(run))
        return found

    def log(self, name: str) -> Iterator[RefUpdate]:
        """Yield a branch's log, newest first."""
        return self.logs.entries(name)

    def _swap(self, key: str, *, expect: RefState | None, to: CommitId | None, protected: bool = False) -> RefState:
        if to is not None and self.guard is not None:
            self.guard(to, (expect.commit,) if expect and expect.commit else ())
        content: dict[str, Any] = {
            "commit": to,
            "sequence": expect.sequence + 1 if expect else 1,
            "transaction": os.urandom(16).hex(),
            "updated_at": format_time(self.clock()),
        }
        if protected:
            content["protected"] = True
        data = json.dumps(content, sort_keys=True).encode() + b"\n"
        try:
            version = self._store.swap(key, data, expect=expect.version if expect else None)
        except (SourceUnavailableError, SwapLostError):
            # The answer to a swap that took effect may be lost, and a store's own retry then finds our content
            # and says that somebody was first: only what the ref holds now tells.
            found = self._fetch(key)
            if found is None or found.transaction != content["transaction"]:
                raise
            return found
        return _state_of(content, version)

    def _fetch(self, key: str) -> RefState | None:
        try:
            data, version = self._store.fetch(key)
        except SourceNotFoundError:
            return None
        return decode_state(data, version, key=key)

    def _list(self, folder: str) -> dict[str, CommitId]:
        return {name: state.commit for name, state in self._states(folder).items() if state.commit}

    def _states(self, folder: str) -> dict[str, RefState]:
        prefix = self._prefix + folder
        try:
            keys = sorted(stat.key for stat in self._store.list(prefix))
        except SourceNotFoundError:  # a directory store has no refs yet
            return {}
        if len(keys) <= 1:
            states = [self._fetch(key) for key in keys]
        else:
            with ThreadPoolExecutor(min(_CONCURRENCY, len(keys)), "forebay-refs") as pool:
                states = list(pool.map(self._fetch, keys))
        found = zip(keys, states, strict=True)
        return {decode_ref(key.removeprefix(prefix)): state for key, state in found if state}

    def _head_key(self, name: str) -> str:
        return f"{self._prefix}refs/heads/{encode_ref(name)}"

    def _tag_key(self, name: str) -> str:
        return f"{self._prefix}refs/tags/{encode_ref(name)}"

    def _pin_key(self, run: str) -> str:
        return f"{self._prefix}refs/pins/{encode_ref(run)}"


def decode_state(data: bytes, version: Version, *, key: str) -> RefState:
    """Read a ref's content.

    Raises:
        CorruptRepositoryError: If it is no ref; `key` names it in the message.
    """
    try:
        return _state_of(json.loads(data), version)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptRepositoryError(key, reason=f"it is no ref ({error!r})") from error


def _state_of(content: Any, version: Version) -> RefState:
    commit = None if content["commit"] is None else check_commit_id(content["commit"])
    if type(content["sequence"]) is not int or content["sequence"] < 1:
        raise ValueError("its sequence is no positive number")
    protected = content.get("protected", False)
    if type(protected) is not bool:
        raise TypeError("protected is neither true nor false")
    transaction, updated_at = str(content["transaction"]), str(content["updated_at"])
    return RefState(commit, transaction, content["sequence"], updated_at, version, protected)
