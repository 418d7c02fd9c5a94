"""One S3 bucket through botocore: slower, and with no threads of its own, so that it works in a forked child.

Also for what obstore cannot do: keys like `a//b`, listings with true keys, listings of versions.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, cast

import botocore.config
import botocore.exceptions
import botocore.session
import pyarrow as pa
import pyarrow.compute as pc
from botocore import UNSIGNED

from sources.locations import StoreId
from sources.object_clients import CONNECT_SECONDS, IDLE_SECONDS, user_agent
from sources.object_failures import Failure, Kind
from sources.objects import CHUNK_BYTES, copied, nanoseconds
from sources.s3.credentials import ChainKeys, next_step, provider, quiet_botocore
from sources.s3.versions import VersionedBucket
from sources.stores import LISTING_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sized

    from obstore import GetOptions, PutMode

    from sources.objects import Body
    from sources.s3.credentials import FixedKeys
    from sources.s3.options import S3Options

_CONNECTIONS = 64  # `Limits.concurrency`
_NO_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""Variables of a botocore session that finds no profiles: `read_options` has taken from them what counts."""
_MISSING_KEYS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.TokenRetrievalError,
    botocore.exceptions.UnauthorizedSSOTokenError,
)
_KINDS: tuple[tuple[tuple[type[Exception], ...], Kind], ...] = (
    (_MISSING_KEYS, Kind.UNSIGNED),
    ((botocore.exceptions.SSLError,), Kind.UNTRUSTED),
    ((botocore.exceptions.ConnectTimeoutError, botocore.exceptions.ReadTimeoutError), Kind.TIMED_OUT),
    (
        (botocore.exceptions.ConnectionError,),
        Kind.UNREACHED,
    ),  # with EndpointConnectionError, SSLError, ProxyConnectionError
    ((botocore.exceptions.BotoCoreError, OSError), Kind.BROKEN_OFF),
)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/")
_RequestFields = dict[str, Any]


class PlainBucket(VersionedBucket):
    """See `ObjectStore`; every kind of key, in any process. One client, made on first use.

    Args:
        options: Where the bucket is.
    """

    _failures: ClassVar[tuple[type[Exception], ...]] = (
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
        OSError,
    )

    def __init__(self, options: S3Options) -> None:
        self.id = StoreId(f"s3://{options.bucket}")
        self._next_step = next_step(options)
        self._options = options
        self._version_aware = options.version_aware
        self._asked: _RequestFields = {"Bucket": options.bucket}
        if options.requester_pays:
            self._asked["RequestPayer"] = "requester"
        self._keys = provider(self.id, options)
        self._making = threading.Lock()
        self._made: Any = None

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        """See `ListPages.pages`."""
        for raw in self.raw_pages(prefix, after=after):
            page = raw.filter(pc.invert(pc.ends_with(raw.column("key"), "/")))
            if page.num_rows:
                yield page

    def raw_pages(self, prefix: str, *, after: str) -> Iterator[pa.RecordBatch]:
        """List with the markers of directories, whose keys end in a slash; versions, if they count."""
        pages = self._version_pages(prefix, after) if self._version_aware else self._key_pages(prefix, after)
        try:
            for answer in pages:
                yield self._page(answer)
        except self._failures as error:
            failure = self._failure(prefix, error)
        else:
            return
        raise failure

    def _key_pages(self, prefix: str, after: str) -> Iterator[list[_RequestFields]]:
        where: _RequestFields = {"StartAfter": after} if after else {}
        while True:
            answer = self._s3.list_objects_v2(**self._asked, Prefix=prefix, **where)
            yield answer.get("Contents", [])
            if not answer.get("IsTruncated"):
                return
            where = {"ContinuationToken": answer["NextContinuationToken"]}

    def _version_pages(self, prefix: str, after: str) -> Iterator[list[_RequestFields]]:
        where: _RequestFields = {"KeyMarker": after} if after else {}
        while True:
            answer = self._s3.list_object_versions(**self._asked, Prefix=prefix, **where)
            yield [row for row in answer.get("Versions", []) if row["IsLatest"] and row["Key"] != after]
            if not answer.get("IsTruncated"):
                return
            where = {"KeyMarker": answer["NextKeyMarker"]}
            if answer.get("NextVersionIdMarker"):
                where["VersionIdMarker"] = answer["NextVersionIdMarker"]

    def _page(self, rows: list[_RequestFields]) -> pa.RecordBatch:
        columns = [
            [row["Key"] for row in rows],
            [row["Size"] for row in rows],
            [self._token(row["Key"], {"e_tag": row.get("ETag"), "version": row.get("VersionId")}) for row in rows],
            [nanoseconds(row["LastModified"]) for row in rows],
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, LISTING_SCHEMA, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=LISTING_SCHEMA)

    # --- the requests

    @property
    def _s3(self) -> Any:
        if isinstance(self._keys, ChainKeys):
            self._keys()  # what fails in the chain looks to botocore like any other failure
        with self._making:
            if self._made is None:
                self._made = _client(self._options, self._keys)
                weakref.finalize(self, self._made.close)
            return self._made

    def _head(self, key: str) -> Mapping[str, Any]:
        return _meta(self._s3.head_object(**self._asked, Key=key))

    def _open(self, key: str, options: GetOptions) -> _Answer:
        fields: _RequestFields = {}
        start, end = cast("tuple[int, int]", options.get("range", (0, 0)))
        if "range" in options:
            fields["Range"] = f"bytes={start}-{end - 1}"
        if options.get("if_match"):
            fields["IfMatch"] = options["if_match"]
        if options.get("version"):
            fields["VersionId"] = options["version"]
        answer = _Answer(self._s3.get_object(**self._asked, Key=key, **fields))
        if "range" in options and not answer.is_within(start, end):
            answer.close()
            raise _OtherRangeError
        return answer

    def _drop(self, answer: Body) -> None:
        cast("_Answer", answer).close()

    def _write(self, key: str, body: memoryview) -> None:
        self._s3.put_object(**self._asked, Key=key, Body=bytes(body))

    def _swap(self, key: str, data: bytes, mode: PutMode) -> Mapping[str, Any]:
        fields = {"IfMatch": mode["e_tag"]} if isinstance(mode, dict) else {"IfNoneMatch": "*"}
        return _meta(self._s3.put_object(**self._asked, Key=key, Body=data, **fields))

    def _remove(self, key: str) -> None:
        self._s3.delete_object(**self._asked, Key=key)

    def _classified(self, error: Exception) -> Failure:
        if isinstance(error, _OtherRangeError):
            return Failure(Kind.NO_RANGES)
        if isinstance(error, botocore.exceptions.ClientError):
            return _answered(error.response)
        if isinstance(error, botocore.exceptions.EndpointConnectionError) and "refused" in str(error):
            return Failure(Kind.REFUSED)
        return Failure(next((kind for kinds, kind in _KINDS if isinstance(error, kinds)), Kind.UNKNOWN))

    def _check(self, key: str) -> None:
        """Every key can be named, in every process."""


class _OtherRangeError(OSError):
    """The server sent other bytes than it was asked for."""


class _Answer:
    """What `Body` asks for, from botocore's answer."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._body = answer["Body"]
        self.meta = _meta(answer)
        self._range = _CONTENT_RANGE.match(answer.get("ContentRange", ""))

    def is_within(self, start: int, end: int) -> bool:
        """Say whether these are the bytes from `start` on, none of them behind `end`."""
        return self._range is not None and int(self._range[1]) == start and int(self._range[2]) < end

    def fill(self, target: memoryview) -> Iterator[int]:
        try:
            yield from copied(self._body.iter_chunks(CHUNK_BYTES), target)
        finally:
            self.close()

    def bytes(self) -> Sized:
        try:
            return cast("bytes", self._body.read())
        finally:
            self.close()

    def close(self) -> None:
        self._body.close()


def _meta(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "e_tag": answer.get("ETag"),
        "version": answer.get("VersionId"),
        "size": answer.get("ContentLength"),
        "last_modified": answer.get("LastModified"),
    }


def _answered(response: Mapping[str, Any]) -> Failure:
    told = response.get("ResponseMetadata", {})
    code = str(response.get("Error", {}).get("Code", ""))
    retry_after = str(told.get("HTTPHeaders", {}).get("retry-after", ""))
    return Failure(
        Kind.ANSWERED,
        int(told.get("HTTPStatusCode", 0)),
        "" if code.isdecimal() else code,  # for want of a body, botocore repeats the status
        float(retry_after) if retry_after.isdecimal() else None,  # or a date, which nobody sends
    )


def _client(options: S3Options, chain: FixedKeys | ChainKeys | None) -> Any:
    quiet_botocore()
    keys = options.keys
    fixed = (
        {}
        if keys is None
        else {
            "aws_access_key_id": keys.key,
            "aws_secret_access_key": keys.secret,
            "aws_session_token": keys.token,
        }
    )
    config = botocore.config.Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=IDLE_SECONDS,
        retries={"total_max_attempts": 1},
        user_agent=user_agent(),
        max_pool_connections=_CONNECTIONS,
        signature_version=UNSIGNED if options.anon else None,
        s3={"addressing_style": "virtual" if options.is_virtual else "path"},
        request_checksum_calculation="when_required",  # not every server knows the newer ones
        response_checksum_validation="when_required",
    )
    session = chain.session if isinstance(chain, ChainKeys) else botocore.session.Session(_NO_FILES)
    return session.create_client(
        "s3",
        region_name=options.region,
        endpoint_url=options.endpoint,
        verify=None if options.verify is True else options.verify,
        config=config,
        **fixed,
    )
