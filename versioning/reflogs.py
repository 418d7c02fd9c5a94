"""How each branch moved: one small object for each move, written after it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sources import SourceError, SourceNotFoundError
from versioning.commits import CommitId, check_commit_id
from versioning.errors import CorruptRepositoryError
from versioning.names import encode_ref

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources import RepositoryStore

_logger = logging.getLogger(__name__)


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


class RefLogs:
    """Reads and writes the logs of a repository's branches. An entry may be missing: its writer crashed."""

    def __init__(self, store: RepositoryStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def append(self, name: str, update: RefUpdate) -> None:
        """Write an entry. The branch has moved and must be reported as moved: a failure is a warning."""
        data = json.dumps(asdict(update), sort_keys=True, ensure_ascii=False).encode() + b"\n"
        try:
            self._store.swap(self._key(name, update.sequence), data, expect=None)
        except SourceError as error:
            _logger.warning("the log of branch %s lacks entry %d: %s", name, update.sequence, error)

    def sequences(self, name: str) -> list[int]:
        """Return the numbers of the entries that there are, ascending; one listing, no reads."""
        prefix = f"{self._prefix}logs/heads/{encode_ref(name)}/"
        try:
            names = [stat.key.removeprefix(prefix) for stat in self._store.list(prefix)]
        except SourceNotFoundError:  # a directory store has no log of it yet
            return []
        return sorted(int(each) for each in names if each.isascii() and each.isdigit())

    def entry(self, name: str, sequence: int) -> RefUpdate | None:
        """Return an entry, None if there is none.

        Raises:
            CorruptRepositoryError: If it is damaged.
        """
        key = self._key(name, sequence)
        try:
            data = self._store.fetch(key)[0]
        except SourceNotFoundError:
            return None
        return decode_update(data, key=key)

    def entries(self, name: str) -> Iterator[RefUpdate]:
        """Yield the entries, newest first."""
        for sequence in reversed(self.sequences(name)):
            found = self.entry(name, sequence)
            if found is not None:
                yield found

    def after(self, name: str, sequence: int) -> CommitId | None:
        """Return what the branch named after move number `sequence`; None if the log does not know.

        Two reads at most: if its own entry is missing, the next one says where it started from.
        """
        own = self.entry(name, sequence)
        if own is not None:
            return own.after
        later = self.entry(name, sequence + 1)
        return later.before if later is not None else None

    def at_moment(self, name: str, moment: str) -> CommitId | None:
        """Return what the branch named at a time in the log's form; None if the log knows of nothing.

        O(log n) reads after one listing; entries are taken to be in order of time.
        """
        numbers = self.sequences(name)
        low, high = 0, len(numbers)
        found: RefUpdate | None = None
        while low < high:
            middle = (low + high) // 2
            update = self.entry(name, numbers[middle])
            if update is not None and update.updated_at <= moment:
                found, low = update, middle + 1
            else:
                high = middle
        return found.after if found is not None else None

    def _key(self, name: str, sequence: int) -> str:
        return f"{self._prefix}logs/heads/{encode_ref(name)}/{sequence:020d}"


def decode_update(data: bytes, *, key: str) -> RefUpdate:
    """Read an entry of a log.

    Raises:
        CorruptRepositoryError: If it is none; `key` names it in the message.
    """
    try:
        found = RefUpdate(**json.loads(data))
        for identity in (found.before, found.after):
            if identity is not None:
                check_commit_id(identity)
        if not isinstance(found.updated_at, str):
            raise TypeError("its time is no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptRepositoryError(key, reason=f"it is no entry of a log ({error!r})") from error
    return found
