"""Many short bodies over plain HTTP, side by side in one thread: a loop over connections, each with one request.

A thread for each request costs more than the request: whoever waits for an answer has to get Python's lock back from
all the others. Here one system call sends a request, and mostly one takes its answer in; nobody else is woken.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sources import object_clients
from sources.object_failures import Failure, Kind, UnnameableKeyError, answered
from sources.s3.addresses import Places
from sources.s3.heads import HEAD_END, MOST_HEAD_BYTES, Head, is_lasting, parse_head
from sources.s3.sockets import MOST_ERROR_BYTES, AnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sources.errors import SourceError
    from sources.s3.sockets import SocketReader
    from sources.stores import Wanted, Wants

_SCRATCH_BYTES = 64 << 10
_TICK_SECONDS = 0.25
_NOW = socket.MSG_DONTWAIT  # kept connections are those of `SocketReader`, whose calls wait


class Bucket(Protocol):
    """What requests say and answers mean."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What the other methods raise, and what sockets do."""
        ...

    def request(self, wanted: Wanted) -> bytes:
        """Write the request; raises one of `failures`."""
        ...

    def check(self, wanted: Wanted, meta: Mapping[str, str | None]) -> None:
        """Refuse another version than the one that is wanted.

        Raises:
            SourceError: If it is.
        """
        ...

    def explain(self, wanted: Wanted, error: Exception) -> SourceError:
        """Say what one of `failures` means for a read."""
        ...

    def short(self, wanted: Wanted, received: int) -> SourceError:
        """Say that an object is shorter than was asked for."""
        ...


class _UnfitError(Exception):
    """An answer in a form that is not read here."""


class _Line:
    """A connection, and the request that it is busy with."""

    def __init__(self, sock: socket.socket, *, used: bool, place: int = 0) -> None:
        self.sock = sock
        self.used = used
        self.connecting = not used
        self.place = place  # of the server's addresses
        self.waits_for_room = False

    def begin(self, wanted: Wanted, request: bytes) -> None:
        self.wanted = wanted
        self.request = request
        self.out = memoryview(request)
        self.got = b""  # of a head that is not complete
        self.head: Head | None = None
        self.body = memoryview(b"")
        self.received = 0
        self.keeps = False
        self.begun = self.heard = time.monotonic()

    @property
    def is_silent(self) -> bool:
        return self.head is None and not self.got

    def is_late(self, now: float) -> bool:
        idle = object_clients.CONNECT_SECONDS if self.connecting else object_clients.IDLE_SECONDS
        return now - self.heard > idle or now - self.begun > object_clients.REQUEST_SECONDS


class Together:
    """One run of the loop, for one thread.

    Args:
        reader: Keeps the connections between runs.
        bucket: Writes requests, judges answers.
        wants: What to read.
    """

    def __init__(self, reader: SocketReader, bucket: Bucket, wants: Wants) -> None:
        self._reader = reader
        self._bucket = bucket
        self._wants = wants
        self._poll = select.epoll()
        self._busy: dict[int, _Line] = {}
        self._free: dict[int, _Line] = {}
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._places = Places(reader.address)

    def run(self, at_once: int) -> None:
        """Read until nothing is wanted, it is over, or the server turns out to answer in another way."""
        looked_at = time.monotonic()
        try:
            while True:
                self._begin(at_once)
                pause = None if self._reader.is_unfit else self._wants.pause_seconds()
                if self._wants.is_over or not (self._busy or pause is not None):
                    return
                is_full = pause is None or len(self._busy) >= at_once
                self._hear(_TICK_SECONDS if is_full else min(pause or 0.0, _TICK_SECONDS))
                if time.monotonic() - looked_at > _TICK_SECONDS:
                    self._hear(0)  # what came while this thread was busy is not late
                    self._give_up_late()
                    looked_at = time.monotonic()
        finally:
            self._end()

    def _begin(self, at_once: int) -> None:
        """Ask for as much as may be asked for."""
        while len(self._busy) < at_once and not self._reader.is_unfit:
            wanted = self._wants.next(may_wait=not self._busy)
            if wanted is None:
                return
            try:
                request = self._bucket.request(wanted)
            except UnnameableKeyError:  # botocore can
                self._wants.leave(wanted)
            except self._bucket.failures as error:
                self._wants.fail(wanted, self._bucket.explain(wanted, error))
            else:
                self._ask(wanted, request, self._kept_line())

    def _kept_line(self) -> _Line | None:
        while self._free:
            line = self._free.popitem()[1]
            if not _has_more(line.sock):
                return line
            line.sock.close()
        sock = self._reader.take_kept()
        if sock is None:
            return None
        self._poll.register(sock, select.EPOLLIN)
        return _Line(sock, used=True)

    def _ask(self, wanted: Wanted, request: bytes, line: _Line | None, *, place: int | None = None) -> None:
        """Send a request over a line, or over a new one: to this of the server's addresses, or one that works."""
        try:
            line = line or self._connect(self._places.working if place is None else place)
        except self._bucket.failures as error:
            self._wants.fail(wanted, self._bucket.explain(wanted, error))
            return
        line.begin(wanted, request)
        self._busy[line.sock.fileno()] = line
        if not line.connecting:
            self._guard(line, self._send)

    def _connect(self, place: int) -> _Line:
        """Begin to connect to a place, or to the next one that does not fail at once; how that ends is heard later.

        Raises:
            OSError: If all fail at once.
        """
        found = self._places.found()
        code = errno.EADDRNOTAVAIL
        for number in range(place if place < len(found) else 0, len(found)):
            family, address = found[number]
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                code = sock.connect_ex(address)
                if code in (0, errno.EINPROGRESS):
                    self._poll.register(sock, select.EPOLLOUT)
                    return _Line(sock, used=False, place=number)
            except BaseException:
                sock.close()
                raise
            sock.close()
        self._places.forget()
        raise OSError(code, os.strerror(code))

    # --- what is heard

    def _hear(self, seconds: float) -> None:
        for fd, _ in self._poll.poll(seconds):
            line = self._busy.get(fd)
            if line is None:
                if (free := self._free.pop(fd, None)) is not None:  # its end, or nothing that was asked for
                    free.sock.close()
            elif line.connecting:
                self._guard(line, self._check_connected)
            else:
                if line.out:
                    self._guard(line, self._send)
                self._guard(line, self._receive)

    def _guard(self, line: _Line, step: Callable[[_Line], bool]) -> None:
        """Take a step with a line, and hand on what it ends."""
        if line.sock.fileno() not in self._busy:  # the step before ended it
            return
        try:
            is_complete = step(line)
        except BlockingIOError:  # nothing to take, or no room
            return
        except _UnfitError:
            self._reader.is_unfit = self._reader.is_unfit or is_lasting(line.head)
            self._close(line)
            self._wants.leave(line.wanted)
        except self._bucket.failures as error:
            self._break_off(line, error)
        else:
            if is_complete:
                self._complete(line)

    def _check_connected(self, line: _Line) -> bool:
        if code := line.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        line.connecting = False
        self._places.working = line.place
        line.heard = time.monotonic()
        self._poll.modify(line.sock, select.EPOLLIN)
        return self._send(line)

    def _send(self, line: _Line) -> bool:
        try:
            line.out = line.out[line.sock.send(line.out, _NOW) :]
        finally:
            if line.waits_for_room != bool(line.out):
                line.waits_for_room = bool(line.out)
                self._poll.modify(line.sock, select.EPOLLIN | (select.EPOLLOUT if line.out else 0))
        return False

    def _receive(self, line: _Line) -> bool:
        """Take in what came, and say whether it is all."""
        is_body = line.head is not None
        size = line.sock.recv_into(line.body[line.received :] if is_body else self._scratch, 0, _NOW)
        if not size:
            raise ConnectionResetError
        line.heard = time.monotonic()
        if not is_body:
            return self._take_head(line, size)
        line.received += size
        return line.received == len(line.body)

    def _take_head(self, line: _Line, size: int) -> bool:
        data: bytes | bytearray = self._scratch
        if line.got:
            data = line.got + data[:size]
            size = len(data)
        end = data.find(HEAD_END, 0, size)
        if end >= 0:
            line.head = parse_head(bytes(data[:end]))
            return self._begin_body(line, memoryview(data)[end + len(HEAD_END) : size])
        if size > MOST_HEAD_BYTES:
            raise _UnfitError
        line.got = bytes(data[:size])
        return False

    def _begin_body(self, line: _Line, ahead: memoryview) -> bool:
        head, wanted = line.head, line.wanted
        if head is None or head.length is None or not head.is_plain:
            if head is not None and (head.status >= 500 or head.status == 429):  # of a proxy, say; that is enough
                raise AnswerError(answered(head.status, "", head.retry_after))
            raise _UnfitError
        length = head.length
        if head.is_within(wanted.start, wanted.start + wanted.length):
            self._bucket.check(wanted, head.meta)
        elif head.status < 300:
            raise AnswerError(Failure(Kind.NO_RANGES))
        else:
            length = min(length, MOST_ERROR_BYTES)
        line.keeps = head.keeps and length == head.length and len(ahead) <= length and not line.out
        if len(ahead) >= length:
            line.body = memoryview(bytes(ahead[:length]))
            return True
        line.body, line.received = np.empty(length, np.uint8).data, len(ahead)
        line.body[: len(ahead)] = ahead
        return False

    # --- ends

    def _complete(self, line: _Line) -> None:
        wanted, head, body = line.wanted, line.head, line.body
        assert head is not None
        if line.keeps:
            line.used = True
            fd = line.sock.fileno()
            self._free[fd] = self._busy.pop(fd)
        else:
            self._close(line)
        if head.status >= 300:
            failure = answered(head.status, bytes(body).decode(errors="replace"), head.retry_after)
            self._wants.fail(wanted, self._bucket.explain(wanted, AnswerError(failure)))
        elif len(body) < wanted.length:
            self._wants.fail(wanted, self._bucket.short(wanted, len(body)))
        else:
            self._wants.bring(wanted, body)

    def _break_off(self, line: _Line, error: Exception) -> None:
        self._close(line)
        if line.connecting:
            if self._places.has_after(line.place):
                self._ask(line.wanted, line.request, None, place=line.place + 1)
                return
            self._places.forget()
        elif line.used and line.is_silent and isinstance(error, ConnectionError):  # it ended while nobody looked
            self._ask(line.wanted, line.request, None)
            return
        self._wants.fail(line.wanted, self._bucket.explain(line.wanted, error))

    def _give_up_late(self) -> None:
        now = time.monotonic()
        for line in [line for line in self._busy.values() if line.is_late(now)]:
            self._break_off(line, TimeoutError())

    def _close(self, line: _Line) -> None:
        self._busy.pop(line.sock.fileno(), None)
        line.sock.close()

    def _end(self) -> None:
        self._poll.close()
        for line in self._busy.values():
            line.sock.close()
        for line in self._free.values():
            self._reader.keep(line.sock)
        self._busy.clear()
        self._free.clear()


def _has_more(sock: socket.socket) -> bool:
    """Say whether something follows the last answer: its end, or bytes that the next one must not begin with."""
    try:
        sock.recv(1, socket.MSG_PEEK | _NOW)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
