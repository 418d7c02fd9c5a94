"""Branches and tags: the only things in a repository that change, and only by compare-and-swap."""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sources import SourceError, SourceNotFoundError, SourceUnavailableError, SwapLostError
from versioning.commits import CommitId, check_commit_id, format_time
from versioning.errors import CorruptRepositoryError, RefExistsError
from versioning.names import check_ref_name, decode_ref, encode_ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sources import RepositoryStore, Version

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefState:
    """What a ref holds.

    Attributes:
        commit: The commit; None for a branch that was deleted (its sequence goes on, so that its log stays whole).
        transaction: Random, new for each change; tells whose change took effect when a response was lost.
        sequence: How often the ref was changed, from 1.
        updated_at: UTC, RFC 3339 with milliseconds.
        version: What the next change must expect.
    """

    commit: CommitId | None
    transaction: str
    sequence: int
    updated_at: str
    version: Version


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One entry of a branch's log; `before` and `after` are None where there is no commit."""

    sequence: int
    before: CommitId | None
    after: CommitId | None
    author: str
    action: str
    updated_at: str
    transaction: str


class Refs:
    """Reads and moves the refs of a repository."""

    def __init__(self, store: RepositoryStore, prefix: str, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock

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

    def branches(self) -> dict[str, CommitId]:
        """Return every branch with its commit, sorted by name."""
        return self._list("refs/heads/")

    def tags(self) -> dict[str, CommitId]:
        """Return every tag with its commit, sorted by name."""
        return self._list("refs/tags/")

    def move_branch(
        self, name: str, *, expect: RefState | None, to: CommitId | None, author: str, action: str
    ) -> RefState:
        """Let a branch name another commit (None: delete it), if it is still in the state `expect`.

        A lost response is resolved by reading back. The branch's log is written afterwards.

        Raises:
            InvalidNameError: If a new branch cannot have this name.
            SwapLostError: If it is in another state; nothing was changed.
            SourceUnavailableError: If the store cannot be reached and the branch was not moved when it was last seen.
        """
        check_ref_name(name, what="branch")
        state = self._swap(self._head_key(name), expect=expect, to=to)
        before = expect.commit if expect else None
        update = RefUpdate(state.sequence, before, to, author, action, state.updated_at, state.transaction)
        self._log(name, update)
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

    def log(self, name: str) -> Iterator[RefUpdate]:
        """Yield a branch's log, newest first."""
        prefix = self._log_prefix(name)
        try:
            keys = sorted((stat.key for stat in self._store.list(prefix)), reverse=True)
        except SourceNotFoundError:  # a directory store has no log of it yet
            keys = []
        for key in keys:
            yield _decode(self._store.fetch(key)[0], key, _decode_update)

    def _swap(self, key: str, *, expect: RefState | None, to: CommitId | None) -> RefState:
        content = {
            "commit": to,
            "sequence": expect.sequence + 1 if expect else 1,
            "transaction": secrets.token_hex(16),
            "updated_at": format_time(self._clock()),
        }
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

    def _log(self, name: str, update: RefUpdate) -> None:
        key = f"{self._log_prefix(name)}{update.sequence:020d}"
        data = json.dumps(asdict(update), sort_keys=True, ensure_ascii=False).encode() + b"\n"
        try:
            self._store.swap(key, data, expect=None)
        except SourceError as error:
            # The branch has moved and must be reported as moved; what is lost is one line of its log.
            _logger.warning("the log of branch %s lacks entry %d: %s", name, update.sequence, error)

    def _fetch(self, key: str) -> RefState | None:
        try:
            data, version = self._store.fetch(key)
        except SourceNotFoundError:
            return None
        return _decode(data, key, lambda content: _state_of(content, version))

    def _list(self, folder: str) -> dict[str, CommitId]:
        prefix = self._prefix + folder
        try:
            keys = sorted(stat.key for stat in self._store.list(prefix))
        except SourceNotFoundError:  # a directory store has no refs yet
            return {}
        states = {decode_ref(key.removeprefix(prefix)): self._fetch(key) for key in keys}
        return {name: state.commit for name, state in states.items() if state and state.commit}

    def _head_key(self, name: str) -> str:
        return f"{self._prefix}refs/heads/{encode_ref(name)}"

    def _tag_key(self, name: str) -> str:
        return f"{self._prefix}refs/tags/{encode_ref(name)}"

    def _log_prefix(self, name: str) -> str:
        return f"{self._prefix}logs/heads/{encode_ref(name)}/"


def _state_of(content: Any, version: Version) -> RefState:
    commit = None if content["commit"] is None else check_commit_id(content["commit"])
    if type(content["sequence"]) is not int or content["sequence"] < 1:
        raise ValueError("its sequence is no positive number")
    return RefState(commit, str(content["transaction"]), content["sequence"], str(content["updated_at"]), version)


def _decode_update(content: Any) -> RefUpdate:
    return RefUpdate(**content)


def _decode(data: bytes, key: str, read: Callable[[Any], _T]) -> _T:
    try:
        return read(json.loads(data))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptRepositoryError(key, reason=f"it is no ref ({error!r})") from error
