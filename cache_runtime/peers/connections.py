"""HTTP connections to workers: kept alive, bounded in time, for any number of threads, and left behind by a fork.

`http.client` rather than urllib3: 4 MiB bodies into a buffer of the caller's at 0.93 GiB/s and 1.6 ms of processor time
each, against 0.3 GiB/s and 8 ms (`readinto`) or 0.6 GiB/s and 2.2 ms (`read`); and an answer can be waited for on two
connections at once, which hedging needs.
"""

from __future__ import annotations

import http.client
import os
import select
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from weakref import WeakSet, finalize

from cache_runtime.errors import PeerError
from cache_runtime.peers.exchange import Exchange, translated
from cache_runtime.peers.security import PeerSecurity, TokenSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cache_runtime.peers.placement import Member

_IDLE_PER_MEMBER = 16
_MAX_IDLE_SECONDS = 60.0  # workers close idle connections after 75 s


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a worker, seconds."""

    connect_seconds: float = 2.0
    """For a connection: in one rack it takes a millisecond."""
    silent_seconds: float = 3.0
    """After it a worker that does not answer is asked whether it lives; a machine that does not even acknowledge is
    given up by the kernel."""
    probe_seconds: float = 2.0
    """For what a worker needs nothing but its own disk for: whether it lives, and whether it has something."""
    idle_seconds: float = 30.0
    """For the next byte from a worker that lives: filling a block from a slow origin, it sends none until it has it."""
    least_bytes_per_second: int = 1 << 20
    """Of an answer that its worker has, once it has lasted for `silent_seconds`: a slower one is asked of the next
    worker, and this one is left alone. Even a crowd that shares 10 Gbit/s gets more."""
    total_seconds: float = 120.0
    """For one request with its whole body."""


class Connections:
    """Opens, keeps and lends connections; one request at a time on each."""

    def __init__(self, security: PeerSecurity, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._security = security
        self._token = TokenSource(security)
        # files that cannot be read are told now, and not at each read
        self._context = security.tls_context() if security.ca_file or security.cert_file else None
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[http.client.HTTPConnection, float]]] = {}
        finalize(self, _close_all, self._idle)
        _pools.add(self)

    def request(
        self,
        member: Member,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        idle_seconds: float | None = None,
    ) -> Exchange:
        """Send a request and return without waiting for the answer; use it in a `with` block.

        Args:
            member: To whom.
            method: As sent.
            target: Path and query.
            headers: Sent beside the token.
            body: As sent.
            idle_seconds: How long to wait for each next byte; default: as configured.

        Raises:
            PeerError: If the worker cannot be reached.
        """
        sent = dict(headers or ())
        token = self._token.current()
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        while True:
            connection, reused = self._take(member)
            exchange = Exchange(self, member, connection, was_idle=reused, idle_seconds=idle_seconds)
            try:
                with translated(member), _in_one_piece(connection.sock, body):
                    connection.request(method, target, body=body or None, headers=sent)
            except PeerError:
                connection.close()
                if not reused:
                    raise  # else the worker closed it while it was idle
            except BaseException:  # Ctrl-C too: half of a request may be on it
                connection.close()
                raise
            else:
                return exchange

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            _close_all(self._idle)

    def forget_parent(self) -> None:
        """Leave all connections to the parent of a fork: closing a copy of a socket tells its other end nothing."""
        self._lock = threading.Lock()
        _close_all(self._idle)

    def _take(self, member: Member) -> tuple[http.client.HTTPConnection, bool]:
        now = time.monotonic()
        with self._lock:
            kept = self._idle.get(member.url, [])
            while kept:
                connection, since = kept.pop()
                # one that can be read has been closed by the worker, or holds what nobody asked for
                if now - since < _MAX_IDLE_SECONDS and not _is_readable(connection, 0):
                    return connection, True
                connection.close()
        return self._open(member), False

    def keep(self, member: Member, connection: http.client.HTTPConnection) -> None:
        """Take back a connection whose answer was read to its end."""
        with self._lock:
            kept = self._idle.setdefault(member.url, [])
            if len(kept) < _IDLE_PER_MEMBER:
                kept.append((connection, time.monotonic()))
                return
        connection.close()

    def _open(self, member: Member) -> http.client.HTTPConnection:
        parts = urlsplit(member.url)
        assert parts.hostname is not None
        seconds = self.timeouts.connect_seconds
        with translated(member):
            connection: http.client.HTTPConnection
            if parts.scheme == "https":
                if self._context is None:
                    self._context = self._security.tls_context()
                connection = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=seconds, context=self._context
                )
            else:
                connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
            connection.connect()
            _prepare_socket(connection.sock, self.timeouts)
            return connection


def _is_readable(connection: http.client.HTTPConnection, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection.sock.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@contextmanager
def _in_one_piece(sock: socket.socket, body: bytes) -> Iterator[None]:
    """Hold a request's header back until its body is there: a worker answers a batch that is all there at once."""
    if not body:
        yield
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    yield
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def _prepare_socket(sock: socket.socket, timeouts: Timeouts) -> None:
    """Have the kernel notice a machine that is gone while an answer is waited for."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(1, int(timeouts.silent_seconds)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeouts.silent_seconds * 1000))


def _close_all(idle: dict[str, list[tuple[http.client.HTTPConnection, float]]]) -> None:
    for kept in list(idle.values()):
        for connection, _ in kept:
            connection.close()
    idle.clear()


_pools: WeakSet[Connections] = WeakSet()


def _after_fork_in_child() -> None:
    for pool in _pools:
        pool.forget_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
