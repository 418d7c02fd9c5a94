"""Heads of HTTP answers, as far as reads of objects need them. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_HEAD_BYTES = 64 << 10
HEAD_END = b"\r\n\r\n"
_MOST_DIGITS = 18
_STATUS = re.compile(r"(HTTP/1\.[01]) (\d{3})(?: |$)", re.ASCII)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/", re.ASCII)


class Head(NamedTuple):
    """The head of an answer; names of fields are in lower case."""

    protocol: str
    status: int
    fields: Mapping[str, str]

    @property
    def length(self) -> int | None:
        """Bytes of the body, None if it does not say so, or sends it in another form."""
        said = self.fields.get("content-length", "")
        is_plain = "transfer-encoding" not in self.fields and self.fields.get("content-encoding") in (None, "identity")
        return int(said) if is_plain and said.isdecimal() and len(said) <= _MOST_DIGITS else None

    @property
    def is_plain(self) -> bool:
        """Whether it is an answer with a body of a length, and not one that sends the client on or lets it wait."""
        return self.length is not None and not 300 <= self.status < 400 and self.status >= 200

    @property
    def retry_after(self) -> float | None:
        """Seconds, if it says so."""
        said = self.fields.get("retry-after", "")
        # or a date, which nobody sends
        return float(said) if said.isdecimal() and len(said) <= _MOST_DIGITS else None

    @property
    def keeps(self) -> bool:
        """Whether another request may follow."""
        wishes = self.fields.get("connection", "").lower().split(",")
        return self.protocol == "HTTP/1.1" and "close" not in map(str.strip, wishes)

    @property
    def meta(self) -> dict[str, str | None]:
        """What it says about the object, under obstore's names."""
        return {"e_tag": self.fields.get("etag"), "version": self.fields.get("x-amz-version-id")}

    def is_within(self, start: int, end: int) -> bool:
        """Say whether these are the bytes from `start` on, none of them behind `end`."""
        found = _RANGE.match(self.fields.get("content-range", ""))
        if self.status != 206 or found is None:
            return False
        first, stop = int(found[1]), int(found[2]) + 1
        return first == start and stop <= end and stop - first == self.length


def is_lasting(head: Head | None) -> bool:
    """Say whether a server whose answer is not plain will answer others so; proxies word their errors themselves."""
    return head is None or head.status < 400


def parse_head(data: bytes) -> Head | None:
    """Read a head without its last, empty line; None: it is none, or says two things about its length."""
    first, *lines = data.decode("latin-1").split("\r\n")
    found = _STATUS.match(first)
    if found is None:
        return None
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if name == "content-length" and fields.get(name, value) != value:
            return None
        fields[name] = value
    return Head(found[1], int(found[2]), fields)
