"""What the status and the headers of an answer say: no sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from sources.errors import SourceAuthError, SourceConfigError, SourceError, SourceNotFoundError, SourceUnavailableError
from sources.locations import ObjectStat, Version

if TYPE_CHECKING:
    from collections.abc import Mapping

_GONE = (404, 410)
_REFUSED = (401, 403, 407)
_THROTTLED = (429, 503, 509)
_PASSING = (408, 425, 500, 502, 504, 520, 521, 522, 523, 524)
_LARGEST = (1 << 63) - 1  # what a listing can hold
_NO_ETAG = ('""', 'W/""')  # some write these for every file: they name nothing
# Mirrors label what is stored compressed with Content-Encoding: then the name says so, and the bytes are the file's.
_COMPRESSED_NAME = re.compile(r"\.(?:t?gz|Z|br|bz2|xz|zst)$")
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")


@dataclass(frozen=True)
class Answer:
    """The part of an answer that tells which bytes it carries.

    Attributes:
        status: HTTP status.
        start: Offset in the object of the body's first byte; -1 if the server does not say, or sends several ranges.
        size: Of the whole object, bytes; None if the server does not say.
        etag: As the server writes it, "" for none.
        mtime_ns: Of `Last-Modified`, which counts whole seconds.
    """

    status: int
    start: int
    size: int | None
    etag: str
    mtime_ns: int | None

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str]) -> Answer:
        """Read status and headers (their names in any case)."""
        start, size = 0, _number(headers.get("Content-Length", ""))
        if status in (206, 416):
            found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
            parts = headers.get("Content-Type", "").lower().startswith("multipart/")
            start = int(found["first"]) if found and found["first"] and not parts else -1
            size = _number(found["total"]) if found else None
        etag = headers.get("ETag", "").strip()
        mtime_ns = _nanoseconds(headers.get("Last-Modified"))
        return cls(status, start, size, "" if etag in _NO_ETAG else etag, mtime_ns)

    @property
    def version(self) -> Version | None:
        """The version that the body belongs to; None if the server tells too little."""
        if self.etag:
            return Version(f"etag:{self.etag}")
        if self.mtime_ns is not None and self.size is not None:
            return Version(f"stat:{self.mtime_ns}:{self.size}")
        return None

    def stat(self, key: str, uri: str) -> ObjectStat:
        """Tell size and version of the object.

        Raises:
            SourceConfigError: If the server tells too little of it.
        """
        if self.version is None or self.size is None:
            raise SourceConfigError(
                f"{uri}: the server does not tell its size and an etag or Last-Modified; it cannot be pinned"
            )
        return ObjectStat(key, self.size, self.version, self.mtime_ns)


def check_plain(headers: Mapping[str, str], uri: str) -> None:
    """Check that the body is the file as it is.

    Raises:
        SourceConfigError: If the server compressed it on the way, although it was asked not to.
    """
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity") and not _COMPRESSED_NAME.search(uri):
        raise SourceConfigError(
            f"{uri}: the server compresses it on the way, so neither bytes nor size are the file's; "
            "have it heed Accept-Encoding: identity"
        )


def failure(status: int, headers: Mapping[str, str], uri: str, what: str) -> SourceError:
    """Return the error of ours that an answer other than success is; `what` was asked for (object, directory)."""
    if status in _GONE:
        return SourceNotFoundError(uri, what)
    if status in _REFUSED:
        why = "or shows no index page" if what == "directory" else "check the options user, password and headers"
        return SourceAuthError(f"{uri}: the server refuses to show it ({status}); {why}")
    wait = retry_after(headers.get("Retry-After"), datetime.now(UTC))
    if status in _THROTTLED:
        text = f"{uri}: the server asks for fewer requests ({status}); try again later"
        return SourceUnavailableError(text, throttled=True, retry_after=wait)
    if status in _PASSING:
        return SourceUnavailableError(f"{uri}: the server failed ({status}); try again later", retry_after=wait)
    return SourceUnavailableError(f"{uri}: the server answered {status}", retryable=False)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, None if it says nothing that can be read."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    time = _time(value)
    return max(0.0, (time - now).total_seconds()) if time else None


def _nanoseconds(value: str | None) -> int | None:
    time = _time(value) if value else None
    return int(time.timestamp()) * 1_000_000_000 if time else None


def _time(value: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the second: a zone beyond all bounds
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 20 and int(text) <= _LARGEST else None
