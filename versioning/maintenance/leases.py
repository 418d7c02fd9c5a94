"""Leases: what a writer that takes longer than the grace period holds, so that its objects are not collected."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sources import SourceError, SourceNotFoundError, SwapLostError
from versioning.errors import CorruptRepositoryError
from versioning.maintenance.documents import decode_document, swap_document
from versioning.maintenance.listing import list_keys
from versioning.maintenance.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sources import RepositoryStore, Version

_FOLDER = "leases/"
_logger = logging.getLogger(__name__)

LEASE_SECONDS = 900.0
"""A lease that was not renewed for so long has lapsed."""
_RELEASE_SECONDS = 10.0  # then nobody waits for a store that hangs: it lapses
_FIRST_SECONDS = 60.0  # what ends before needs no lease: nothing so young is ever collected


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease, as it stands in the store.

    Attributes:
        id: Random, 32 hex digits.
        owner: Who holds it and for what, free text.
        started_ns: Nothing written since then is collected; by the store's clock, nanoseconds since 1970.
        lapses_ns: When it lapses unless it is renewed, by the store's clock.
    """

    id: str
    owner: str
    started_ns: int
    lapses_ns: int


class LeaseHolder:
    """Holds one lease: `renew` creates it and keeps it alive, `release` gives it back. Not for several threads.

    Args:
        store: Holds the repository.
        prefix: The repository's.
        owner: Who holds it and for what.
        seconds: It lapses when it is not renewed for so long.
    """

    def __init__(self, store: RepositoryStore, prefix: str, owner: str, *, seconds: float = LEASE_SECONDS) -> None:
        self.id = secrets.token_hex(16)
        self._store = store
        self._key = f"{prefix}{_FOLDER}{self.id}.json"
        self._owner = owner
        self._seconds = seconds
        self._begun = Stopwatch()
        self._version: Version | None = None
        self._started_ns: int | None = None

    def renew(self) -> None:
        """Create the lease, or let it live on for its whole time; one that lapsed and was taken away is made again."""
        content = {"owner": self._owner, "seconds": self._seconds, "started_ns": self._started_ns}
        try:
            self._version = swap_document(self._store, self._key, content, expect=self._version)
        except SwapLostError:
            self._version = swap_document(self._store, self._key, content, expect=None)
        if self._started_ns is None:
            waited = int(self._begun.seconds() * 1e9)
            self._started_ns = (self._store.stat(self._key).mtime_ns or 0) - waited
            self.renew()

    def release(self) -> None:
        """Give it back."""
        if self._version is not None:
            self._store.delete(self._key)


@contextmanager
def leased(store: RepositoryStore, prefix: str, owner: str) -> Iterator[None]:
    """Hold a lease while the block runs, if it runs longer than a minute; short ones cost no request.

    The lease is renewed by a thread. If that fails until it lapses, only the grace period protects what is written.
    """
    holder, done = LeaseHolder(store, prefix, owner), threading.Event()
    thread = threading.Thread(target=_keep, args=(holder, done), name="forebay-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_RELEASE_SECONDS)


def _keep(holder: LeaseHolder, done: threading.Event) -> None:
    wait = _FIRST_SECONDS
    while not done.wait(wait):
        wait = LEASE_SECONDS / 4
        try:
            holder.renew()
        except SourceError as error:
            _logger.warning("lease %s is not renewed: %s", holder.id, error)
    try:
        holder.release()
    except SourceError as error:
        _logger.warning("lease %s stays until it lapses: %s", holder.id, error)


def read_leases(store: RepositoryStore, prefix: str) -> list[Lease]:
    """Return all leases that are there, lapsed ones too.

    Raises:
        CorruptRepositoryError: If one is damaged.
    """
    found = []
    for stat in list_keys(store, prefix + _FOLDER):
        try:
            data, _ = store.fetch(stat.key)
        except SourceNotFoundError:  # given back meanwhile
            continue
        content = decode_document(data, stat.key)
        written = stat.mtime_ns or 0
        try:
            started = content["started_ns"]
            lapses = written + int(float(content["seconds"]) * 1e9)
            name = stat.key.rpartition("/")[2].removesuffix(".json")
            found.append(Lease(name, str(content["owner"]), written if started is None else int(started), lapses))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptRepositoryError(stat.key, reason=f"it is no lease ({error!r})") from error
    return found


def delete_lapsed(store: RepositoryStore, prefix: str, leases: list[Lease], *, now_ns: int, grace_ns: int) -> None:
    """Delete the leases that lapsed longer ago than the grace period."""
    for lease in leases:
        if lease.lapses_ns < now_ns - grace_ns:
            store.delete(f"{prefix}{_FOLDER}{lease.id}.json")
