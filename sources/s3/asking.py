"""The bytes of a ranged GET to one bucket over plain HTTP, signed."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import quote, urlsplit

from sources import object_clients
from sources.s3.signing import signed_headers

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Credential

    from sources.s3.credentials import ChainKeys, FixedKeys
    from sources.s3.options import S3Options

_UNRESERVED = "-_.~"


class _Stamp(NamedTuple):
    """What all requests of a second have in common: botocore's chain takes a lock to look keys up."""

    second: int
    now: datetime
    keys: S3Credential


class Asker:
    """Writes GETs; thread-safe.

    Args:
        options: Of the bucket.
        keys: What signs; None: nothing does.
    """

    def __init__(self, options: S3Options, keys: FixedKeys | ChainKeys | None) -> None:
        parts = urlsplit(options.bucket_endpoint or "")
        bucket = "" if options.is_virtual else f"/{quote(options.bucket, safe=_UNRESERVED)}"
        self._top = f"{quote(parts.path, safe='/%' + _UNRESERVED)}{bucket}/"
        self._region = options.region
        self._keys = keys
        self._stamp: _Stamp | None = None
        self._headers = {"host": parts.netloc}
        if options.requester_pays:
            self._headers["x-amz-request-payer"] = "requester"

    def request(self, key: str, options: GetOptions) -> bytes:
        """Write a request.

        Args:
            key: Of the object.
            options: `range` as start and end, and `if_match` or `version`.

        Raises:
            ValueError: If a header cannot carry what it is to say.
            SourceError: If there are no keys.
        """
        start, end = cast("tuple[int, int]", options["range"])
        headers = {**self._headers, "range": f"bytes={start}-{end - 1}"}
        if etag := options.get("if_match"):
            headers["if-match"] = etag
        version = options.get("version")
        query = f"versionId={quote(version, safe=_UNRESERVED)}" if version else ""
        path = self._top + quote(key, safe="/" + _UNRESERVED)
        if self._keys is not None:
            stamp = self._stamped(self._keys)
            headers = signed_headers(
                headers, path=path, query=query, region=self._region, keys=stamp.keys, now=stamp.now
            )
        headers["user-agent"] = object_clients.user_agent()
        if not "".join(headers.values()).isprintable():
            raise ValueError("a header has a control character")
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"GET {path}{'?' if query else ''}{query} HTTP/1.1\r\n{lines}\r\n".encode("ascii")

    def _stamped(self, keys: FixedKeys | ChainKeys) -> _Stamp:
        stamp, second = self._stamp, int(time.time())
        if stamp is None or stamp.second != second:
            stamp = self._stamp = _Stamp(second, datetime.fromtimestamp(second, UTC), keys())
        return stamp
