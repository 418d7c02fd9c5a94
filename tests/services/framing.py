"""Where HTTP/1.1 messages begin and end in a stream of bytes: no sockets, no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

_NO_BODY = ("204", "304")


@dataclass(frozen=True)
class Head:
    """First line and headers of a message.

    Attributes:
        line: `GET /x HTTP/1.1` or `HTTP/1.1 200 OK`.
        headers: By name in lower case; of a repeated one the last.
    """

    line: str
    headers: dict[str, str]

    @property
    def method(self) -> str:
        """Of a request."""
        return self.line.partition(" ")[0]

    @property
    def target(self) -> str:
        """Path and query of a request, as sent."""
        return self.line.split(" ")[1]


class Piece(NamedTuple):
    """Bytes of a message as they came.

    Attributes:
        data: The bytes.
        head: Set where the bytes are a message's whole head.
        is_body: Whether they are of its body (chunk sizes included).
        ends: Whether the message ends with them.
    """

    data: bytes
    head: Head | None
    is_body: bool
    ends: bool


class Framing:
    """Cut one direction of a connection into pieces.

    Args:
        methods: Of the requests whose responses these are, in order; None for requests.
    """

    def __init__(self, methods: deque[str] | None) -> None:
        self._methods = methods
        self._buffer = b""
        self._left: int | None = 0  # bytes of body to come; None: until the connection ends
        self._chunked = False
        self._in_body = False

    @classmethod
    def of_requests(cls) -> Framing:
        """Frame what a client sends."""
        return cls(None)

    @classmethod
    def of_responses(cls, methods: deque[str]) -> Framing:
        """Frame what a server sends; `methods` is consumed as responses begin."""
        return cls(methods)

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield the pieces that are complete with `data`."""
        self._buffer += data
        while self._buffer:
            piece = self._body() if self._in_body else self._head()
            if piece is None:
                return
            yield piece

    def _head(self) -> Piece | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        raw, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
        line, *rows = raw[:-4].decode("latin-1").split("\r\n")
        pairs = (row.partition(":") for row in rows)
        head = Head(line, {name.strip().lower(): value.strip() for name, _, value in pairs})
        self._expect_body(head)
        return Piece(raw, head, is_body=False, ends=not self._in_body)

    def _expect_body(self, head: Head) -> None:
        self._chunked = "chunked" in head.headers.get("transfer-encoding", "")
        length = head.headers.get("content-length")
        self._left = int(length) if length is not None else 0
        if self._methods is not None:
            status = head.line.split(" ")[1]
            interim = status.startswith("1") and status != "101"
            method = "" if interim or not self._methods else self._methods.popleft()
            if interim or method == "HEAD" or status in _NO_BODY:
                self._chunked, self._left = False, 0
            elif length is None:
                self._left = None
        self._in_body = self._chunked or self._left != 0

    def _body(self) -> Piece | None:
        if self._chunked:
            return self._chunk()
        size = len(self._buffer) if self._left is None else min(self._left, len(self._buffer))
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        if self._left is not None:
            self._left -= size
            self._in_body = self._left > 0
        return Piece(data, None, is_body=True, ends=not self._in_body)

    def _chunk(self) -> Piece | None:
        """Return one whole chunk with its size line; trailers are not expected."""
        line = self._buffer.find(b"\r\n")
        if line < 0:
            return None
        size = int(self._buffer[:line].partition(b";")[0], 16)
        end = line + 2 + size + 2
        if len(self._buffer) < end:
            return None
        data, self._buffer = self._buffer[:end], self._buffer[end:]
        self._in_body = size > 0
        return Piece(data, None, is_body=True, ends=not self._in_body)
