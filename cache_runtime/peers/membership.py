"""Where the list of workers comes from: fixed, a file, a DNS name. Each keeps the last good one through failures."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from cache_runtime.errors import MembershipError
from cache_runtime.peers.placement import Member, Members

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)
_FIRST_SECONDS = 5.0


class Membership(Protocol):
    """Tells who the workers are. Pickles, and works in children of a fork."""

    def members(self) -> Members:
        """Return the workers as they are known now; cheap, never raises, the same object while nothing changed."""
        ...


class StaticMembers:
    """Workers that do not change while this process runs."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._members = Members(checked(member) for member in members)

    def members(self) -> Members:
        """See `Membership`."""
        return self._members


class FileMembers:
    """Workers named by a file, one a line: name, URL, and a weight (default 1); `#` begins a comment.

    It is read again when it was replaced or changed. Replace it by a rename. A file that is missing, malformed or
    without members leaves those known before in use, because half a file must not scatter the blocks of a cluster.

    Args:
        path: The file.
        refresh_seconds: How often to look, on use.

    Raises:
        MembershipError: If the file cannot be used now, at the start.
    """

    def __init__(self, path: str | os.PathLike[str], *, refresh_seconds: float = 2.0) -> None:
        self._path = os.fspath(path)
        self._refresh_seconds = refresh_seconds
        self._look_at = time.monotonic() + refresh_seconds
        self._seen = self._identify()
        self._members = self._read()

    def members(self) -> Members:
        """See `Membership`."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + self._refresh_seconds
            seen = self._identify()
            if seen != self._seen:
                self._seen = seen
                self._reread()
        return self._members

    def _reread(self) -> None:
        try:
            found = self._read()
        except MembershipError as error:
            _log.warning("keeping the %d workers known before: %s", len(self._members), error)
            return
        if found != self._members:
            _log.info("workers changed file=%s before=%d now=%d", self._path, len(self._members), len(found))
            self._members = found

    def _identify(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> Members:
        try:
            with open(self._path, encoding="utf-8") as file:
                return parse_members(file.read(), self._path)
        except (OSError, UnicodeDecodeError) as error:
            raise MembershipError(f"{self._path}: {error}") from error


class DnsMembers:
    """Workers behind a DNS name with one address each, as of a headless service; a member's name is its address.

    So a worker that comes back with another address is another member, and asks the old owner of each of its blocks
    once. Where workers have lasting names, a file or a static list with those names keeps placement still.

    Args:
        host: The name.
        port: Of each worker.
        scheme: "http" or "https".
        refresh_seconds: How old an answer may be. The look-up runs in a thread of its own; the first one is waited for,
            5 seconds at most.
    """

    _look_at: float
    _failed: bool

    def __init__(self, host: str, port: int, *, scheme: str = "http", refresh_seconds: float = 5.0) -> None:
        self._host, self._port, self._scheme = host, port, scheme
        self._refresh_seconds = refresh_seconds
        self._members = Members()
        self._forget_looking()

    def members(self) -> Members:
        """See `Membership`."""
        if os.getpid() != self._pid:
            self._forget_looking()
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            self._look_at = time.monotonic() + self._refresh_seconds
            done = self._done = threading.Event()
            threading.Thread(target=self._look, args=(done,), name="forebay-members", daemon=True).start()
        if not self._members and not self._failed:
            self._done.wait(_FIRST_SECONDS)
        return self._members

    def __getstate__(self) -> tuple[object, ...]:
        return self._host, self._port, self._scheme, self._refresh_seconds, self._members

    def __setstate__(self, state: tuple[str, int, str, float, Members]) -> None:
        self._host, self._port, self._scheme, self._refresh_seconds, self._members = state
        self._forget_looking()

    def _forget_looking(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # held while a look-up runs
        self._done = threading.Event()
        self._failed = False
        self._look_at = 0.0

    def _look(self, done: threading.Event) -> None:
        try:
            self._resolve()
        finally:
            done.set()
            self._lock.release()

    def _resolve(self) -> None:
        try:
            rows = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
            if not self._failed:
                _log.warning("keeping the workers known before host=%s reason=%s", self._host, error)
            self._failed = True
            return
        self._failed = False
        hosts = {str(row[4][0]) for row in rows}
        netlocs = [f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}" for host in hosts]
        found = Members(Member(netloc, f"{self._scheme}://{netloc}") for netloc in netlocs)
        if found != self._members:
            _log.info("workers changed host=%s before=%d now=%d", self._host, len(self._members), len(found))
            self._members = found


def parse_members(text: str, path: str) -> Members:
    """Read the text of a members file.

    Raises:
        MembershipError: If it is malformed or names none; it says where.
    """
    found: list[Member] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            name, url, *rest = words
            (weight,) = rest or ["1"]
            found.append(checked(Member(name, url, float(weight))))
        except (ValueError, MembershipError) as error:
            raise MembershipError(f"{path}, line {number}: expected `name url [weight]` ({error})") from error
    if not found:
        raise MembershipError(f"{path}: names no worker")
    return Members(found)


def checked(member: Member) -> Member:
    """Return the member if it can be one.

    Raises:
        MembershipError: If it has no name, or its URL is not `http[s]://host[:port]`.
    """
    try:
        parts = urlsplit(member.url)
        good = bool(member.name) and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        # the URL is not repeated: it may hold a password
        raise MembershipError(f"member {member.name!r}: its URL must be http://host:port or https://host:port")
    return member
