"""Long bodies over plain HTTP, from the socket into the caller's memory: copied once, by the kernel.

obstore's are copied three times on their way: out of the socket, into a `bytes`, into the caller's memory, the last two
times under Python's lock. This takes half of the processor time, and the lock only once a MiB. What is encrypted stays
with obstore: TLS comes in records of 16 KiB, each of which would take the lock.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np

from sources import object_clients
from sources.object_failures import Failure, Kind, answered
from sources.s3.asking import Asker
from sources.s3.heads import HEAD_END, MOST_HEAD_BYTES, Head, is_lasting, parse_head

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore import GetOptions

    from sources.s3.credentials import ChainKeys, FixedKeys
    from sources.s3.options import S3Options

_CHUNK_BYTES = 1 << 20
MOST_ERROR_BYTES = 64 << 10
_IDLE_CONNECTIONS = 64  # `Limits.concurrency`


def fits(options: S3Options) -> bool:
    """Say whether a bucket can be read so: without TLS, and without a proxy of the environment in between."""
    parts = urlsplit(options.bucket_endpoint or "")
    proxies = getproxies()
    is_proxied = bool(proxies.get("http") or proxies.get("all")) and not proxy_bypass(parts.hostname or "")
    return parts.scheme == "http" and not is_proxied


class AnswerError(OSError):
    """An answer that is not the body that was asked for.

    Attributes:
        failure: What it says.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def classify(error: Exception) -> Failure | None:
    """Take the facts out of an error of `SocketReader` or `SocketBody`; None if it is not theirs."""
    if isinstance(error, AnswerError):
        return error.failure
    kind = next((kind for kinds, kind in _KINDS if isinstance(error, kinds)), None)
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        kind = Kind.UNREACHED
    return None if kind is None else Failure(kind)


_KINDS: tuple[tuple[tuple[type[OSError], ...], Kind], ...] = (
    ((ConnectionRefusedError,), Kind.REFUSED),
    ((socket.gaierror,), Kind.UNRESOLVED),
    ((TimeoutError, BlockingIOError), Kind.TIMED_OUT),
    ((ConnectionError,), Kind.BROKEN_OFF),
)


class SocketReader:
    """Sends GETs to one bucket, over connections of its own that it keeps. Safe in threads, of no use after a fork.

    Args:
        options: Where the bucket is; they fit.
        keys: What signs; None: nothing does.
    """

    def __init__(self, options: S3Options, keys: FixedKeys | ChainKeys | None) -> None:
        parts = urlsplit(options.bucket_endpoint or "")
        self.address = (parts.hostname or "", parts.port or 80)
        self.asker = Asker(options, keys)
        self.is_unfit = False
        self._idle: deque[socket.socket] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def open(self, key: str, options: GetOptions) -> SocketBody | None:
        """Ask for a range; None: it has to be asked for in another way.

        Args:
            key: Of the object.
            options: `range` as start and end, and `if_match` or `version`.

        Raises:
            AnswerError: If the server refuses, or sends other bytes.
            OSError: If there is no answer.
            ValueError: If the keys cannot be sent.
            SourceError: If there are no keys.
        """
        if self.is_unfit:
            return None
        request = self.asker.request(key, options)
        start, end = cast("tuple[int, int]", options["range"])
        while True:
            connection, is_used = self._connection()
            try:
                return self._ask(connection, request, start, end)
            except ConnectionError:
                connection.close()
                if not is_used:  # else it ended while nobody looked
                    raise
            except BaseException:
                connection.close()
                raise

    def _ask(self, connection: socket.socket, request: bytes, start: int, end: int) -> SocketBody | None:
        connection.sendall(request)
        head, ahead = _read_head(connection)
        if head is None or head.length is None or not head.is_plain:
            self.is_unfit = self.is_unfit or is_lasting(head)
            connection.close()
            return None
        if head.is_within(start, end):
            return SocketBody(connection, head, ahead, self)
        if 200 <= head.status < 300:
            raise AnswerError(Failure(Kind.NO_RANGES))
        body = ahead
        while len(body) < min(head.length, MOST_ERROR_BYTES) and (piece := connection.recv(MOST_ERROR_BYTES)):
            body += piece
        raise AnswerError(answered(head.status, body.decode(errors="replace"), head.retry_after))

    def _connection(self) -> tuple[socket.socket, bool]:
        """Return a connection, and whether it was used before."""
        if (kept := self.take_kept()) is not None:
            return kept, True
        connection = socket.create_connection(self.address, object_clients.CONNECT_SECONDS)
        _let_wait(connection)
        return connection, False

    def take_kept(self) -> socket.socket | None:
        """Return a connection that was used before and is still there, if there is one."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if not _has_ended(connection):
                return connection
            connection.close()
        return None

    def keep(self, connection: socket.socket) -> None:
        """Keep a connection for the next request, if there are not enough."""
        if len(self._idle) < _IDLE_CONNECTIONS:
            _let_wait(connection)
            self._idle.append(connection)
        else:
            connection.close()


class SocketBody:
    """The answer to a ranged GET; see `Body`.

    Args:
        connection: Where it comes from.
        head: Of the answer.
        ahead: Of its body, what came with the head.
        reader: Gets the connection back after the last byte.

    Attributes:
        meta: Of the object.
    """

    def __init__(self, connection: socket.socket, head: Head, ahead: bytes, reader: SocketReader) -> None:
        self.meta: Mapping[str, Any] = head.meta
        self._connection = connection
        self._ahead = ahead
        self._length = head.length or 0
        self._keeps = head.keeps and len(ahead) <= self._length
        self._reader = reader

    def fill(self, target: memoryview) -> Iterator[int]:
        """See `Body.fill`."""
        until = time.monotonic() + object_clients.REQUEST_SECONDS
        received = min(len(self._ahead), self._length)
        try:
            target[:received] = self._ahead[:received]
            yield received
            while received < self._length:
                chunk = target[received : min(received + _CHUNK_BYTES, self._length)]
                size = self._connection.recv_into(chunk, 0, socket.MSG_WAITALL)
                if not size:
                    raise ConnectionResetError
                received += size
                yield size
                if time.monotonic() > until:
                    raise TimeoutError
        except BaseException:
            self.close()
            raise
        if self._keeps:
            self._reader.keep(self._connection)
        else:
            self.close()

    def bytes(self) -> memoryview:
        """See `Body.bytes`."""
        buffer = np.empty(self._length, np.uint8).data
        for _ in self.fill(buffer):
            pass
        return buffer

    def close(self) -> None:
        """Let go of a body that is not wanted."""
        self._connection.close()


def _read_head(connection: socket.socket) -> tuple[Head | None, bytes]:
    """Read up to the end of a head; return it (None if it is none) and what came after it.

    Raises:
        ConnectionError: If the connection ends before.
    """
    got = b""
    while (end := got.find(HEAD_END)) < 0:
        if len(got) > MOST_HEAD_BYTES:
            return None, b""
        piece = connection.recv(MOST_HEAD_BYTES)
        if not piece:
            raise ConnectionResetError
        got += piece
    return parse_head(got[:end]), got[end + len(HEAD_END) :]


def _let_wait(connection: socket.socket) -> None:
    """Set the kernel's time-outs: with one of Python's a call would not wait until a chunk is full."""
    seconds = struct.pack("ll", object_clients.IDLE_SECONDS, 0)
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)


def _has_ended(connection: socket.socket) -> bool:
    """Say whether an idle connection has anything to tell: that is its end, or nothing that was asked for."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _close_all(idle: deque[socket.socket]) -> None:
    while idle:
        idle.pop().close()
