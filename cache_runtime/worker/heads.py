"""Plain requests as their bytes arrive, without a parser's state: what is anything but plain is aiohttp's to read.

Both are narrower than HTTP: whoever reads the same bytes as HTTP comes to the same end of the request.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINES = rb"((?:[A-Za-z-]+: ?[!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
_HIT = re.compile(rb"GET (/v1/objects/[0-9a-f]{32}\?[\w%&=.~+*:@/-]+) HTTP/1\.1\r\n" + _LINES)
_BATCH = re.compile(rb"POST /v1/batch HTTP/1\.1\r\n" + _LINES)
_PLAIN = re.compile(rb"(?:GET|HEAD|POST|DELETE) /[\w%&=.~+*:@/?-]* HTTP/1\.1\r\n" + _LINES)
_HARMLESS = frozenset({b"host", b"user-agent", b"accept", b"accept-encoding"})
_OF_A_HIT = frozenset({b"range", b"authorization", b"forebay-request"})
_OF_A_BATCH = frozenset({b"content-type", b"content-length", b"authorization", b"forebay-request"})
_LENGTH = re.compile(rb"\d{1,15}")
_MOVES_THE_END = frozenset({b"transfer-encoding", b"upgrade", b"expect", b"trailer", b"te"})


class Head(NamedTuple):
    """A GET of an object; None: the header is not there."""

    target: str
    range: str | None
    authorization: str | None
    request_id: str | None


def read_head(data: bytes, *, max_bytes: int) -> Head | None:
    """Return what a request asks for, if it is all of `data`, short, and has no header that is unknown or there twice.

    Args:
        data: As it came.
        max_bytes: Of all of it.
    """
    match = _HIT.fullmatch(data) if len(data) <= max_bytes else None
    if match is None:
        return None
    fields = _read_lines(match[2], _OF_A_HIT)
    if fields is None:
        return None
    get = fields.get
    return Head(match[1].decode("ascii"), get(b"range"), get(b"authorization"), get(b"forebay-request"))


class BatchHead(NamedTuple):
    """A POST of a batch, and where its body begins; None: the header is not there."""

    body_start: int
    authorization: str | None
    request_id: str | None


def read_batch_head(data: bytes, *, max_bytes: int) -> BatchHead | None:
    """Do `read_head` for a batch, with all of its body.

    Args:
        data: As it came.
        max_bytes: Of the head.
    """
    start = data.find(b"\r\n\r\n", 0, max_bytes) + 4
    match = _BATCH.fullmatch(data, 0, start) if start >= 4 else None
    fields = None if match is None else _read_lines(match[1], _OF_A_BATCH)
    if fields is None or fields.get(b"content-type") != "application/json":
        return None
    if fields.get(b"content-length") != str(len(data) - start):
        return None
    return BatchHead(start, fields.get(b"authorization"), fields.get(b"forebay-request"))


def _read_lines(lines: bytes, known: frozenset[bytes]) -> dict[bytes, str] | None:
    """Return the known ones of a header; None if one is unknown or there twice."""
    fields: dict[bytes, str] = {}
    seen = set()
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in seen:
            return None
        seen.add(name)
        if name in known:
            fields[name] = value.strip().decode("ascii")
        elif name not in _HARMLESS and not (name == b"connection" and value.strip().lower() == b"keep-alive"):
            return None
    return fields if b"host" in seen else None


class Framing:
    """Where requests end in what a connection brought.

    Attributes:
        is_clean: So far it consists of whole plain requests: the next byte begins one. Once it cannot be told, it stays
            False for as long as the connection lives.
    """

    __slots__ = ("_left", "is_clean")

    def __init__(self) -> None:
        self.is_clean = True
        self._left = 0

    def note(self, data: bytes) -> None:
        """Take note of the next bytes."""
        if not data or self._left < 0:
            return
        self._left = (self._left or _find_length(data)) - len(data)
        self.is_clean = self._left == 0


def _find_length(data: bytes) -> int:
    """Return the length of the request that begins here, with its body; -1 if that cannot be told."""
    end = data.find(b"\r\n\r\n") + 4
    match = _PLAIN.fullmatch(data, 0, end) if end >= 4 else None
    if match is None:
        return -1
    names = [line.partition(b":")[0].lower() for line in match[1].split(b"\r\n")[:-1]]
    if not _MOVES_THE_END.isdisjoint(names) or names.count(b"content-length") > 1:
        return -1
    if b"content-length" not in names:
        return end
    value = match[1].split(b"\r\n")[names.index(b"content-length")].partition(b":")[2].strip()
    return end + int(value) if _LENGTH.fullmatch(value) else -1
