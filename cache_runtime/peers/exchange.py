"""One request to a worker and its answer, bounded in time."""

from __future__ import annotations

import http.client
import select
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cache_runtime.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.peers.connections import Connections
    from cache_runtime.peers.placement import Member

_ERROR_BYTES = 64 << 10


class Exchange:
    """A request that was sent, and its answer. Leaving the `with` block early closes the connection.

    Attributes:
        status: HTTP status, once `begin` has returned.
        length: Bytes of the body, None if it was not told.
        is_ready: Whether the worker has all of the body: set it, and one that stops or trickles is given up early.
    """

    def __init__(
        self,
        pool: Connections,
        member: Member,
        connection: http.client.HTTPConnection,
        *,
        was_idle: bool,
        idle_seconds: float | None,
    ) -> None:
        self.member = member
        self.status = 0
        self.length: int | None = None
        self.is_ready = False
        self._was_idle = was_idle
        self._pool = pool
        self._connection = connection
        self._sock = connection.sock  # the connection forgets it when the worker says that it closes
        self._response: http.client.HTTPResponse | None = None
        self._idle_seconds = idle_seconds or pool.timeouts.idle_seconds
        self._deadline = time.monotonic() + pool.timeouts.total_seconds
        self._left = 0
        self._began = 0.0

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        response, self._response = self._response, None
        if response is not None and self._left == 0 and not response.will_close and self.length is not None:
            response.close()  # of the answer only
            self._pool.keep(self.member, self._connection)
        else:
            if response is not None:
                response.close()
            self._connection.close()

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait until the answer begins."""
        return int(self._sock.fileno())

    def begin(self) -> None:
        """Wait for the status and the headers.

        Raises:
            PeerError: If none came in time, or the connection broke.
        """
        try:
            with translated(self.member):
                self._sock.settimeout(self._patience())
                self._response = response = self._connection.getresponse()
        except PeerError as error:
            error.is_stale = self._was_idle and not isinstance(error.__cause__, TimeoutError)
            raise
        self.status, self.length = response.status, response.length
        self._left = self.length or 0
        self._began = time.monotonic()

    def header(self, name: str) -> str | None:
        """Return a header of the answer."""
        return None if self._response is None else self._response.getheader(name)

    def read_into(self, buffer: memoryview) -> int:
        """Read the next bytes of the body, as many as are there; 0 at its end.

        Raises:
            PeerError: If the connection broke before the end, no byte came in time, or too few of those that are ready.
        """
        want = min(len(buffer), self._left)
        if want == 0:
            return 0
        assert self._response is not None
        try:
            with translated(self.member):
                self._sock.settimeout(self._patience())
                # the response's own `readinto` comes back only when the buffer is full: no deadline could be kept
                count = int(self._response.fp.readinto1(buffer[:want]))
        except PeerError as error:
            error.is_slow = self.is_ready and isinstance(error.__cause__, TimeoutError)
            raise
        if count == 0:
            raise PeerError(self.member.name, f"the answer broke off {self._left} bytes before its end")
        self._left -= count
        if self.is_ready and self._left:
            self._check_pace()
        return count

    def read_rest(self, limit: int) -> bytearray:
        """Read the rest of a body of at most `limit` bytes; what came before a break is kept with the error's cause.

        Raises:
            PeerError: As `read_into`, or if it is longer.
        """
        if self.length is None or self.length > limit:
            raise PeerError(self.member.name, f"an answer of {self.length} bytes, at most {limit} were expected")
        body = bytearray(self._left)
        view, start = memoryview(body), 0
        while start < len(body):
            start += self.read_into(view[start:])
        return body

    def read_error(self) -> bytes:
        """Read the body of an error; nothing of one that is unusually long."""
        if self.length is None or self.length > _ERROR_BYTES:
            return b""
        return bytes(self.read_rest(_ERROR_BYTES))

    def _patience(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"not complete after {self._pool.timeouts.total_seconds:g} s")
        ready = self.is_ready and self._response is not None
        return min(left, self._idle_seconds, self._pool.timeouts.silent_seconds if ready else left)

    def _check_pace(self) -> None:
        timeouts, seconds = self._pool.timeouts, time.monotonic() - self._began
        got = (self.length or 0) - self._left
        if seconds > timeouts.silent_seconds and got < seconds * timeouts.least_bytes_per_second:
            error = PeerError(self.member.name, f"sent no more than {got} bytes of {self.length} in {seconds:.1f} s")
            error.is_slow = True
            raise error


def wait_for_any(exchanges: list[Exchange], seconds: float) -> list[Exchange]:
    """Return those whose answer begins, or whose connection broke; none of them after so many seconds."""
    poll = select.poll()
    by_fd = {exchange.fileno(): exchange for exchange in exchanges}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(max(0.0, seconds) * 1000)]


@contextmanager
def translated(member: Member) -> Iterator[None]:
    """Make one error of all that a connection and its other end can do wrong."""
    try:
        yield
    except PeerError:
        raise
    except TimeoutError as error:
        raise PeerError(member.name, "no answer in time") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: a header or URL that cannot be one; its text may quote the token
        reason = type(error).__name__ if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise PeerError(member.name, reason[:300]) from (None if isinstance(error, ValueError) else error)
