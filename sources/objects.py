"""What every store behind obstore shares: S3, Google Cloud Storage, Azure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.compute as pc

from sources.errors import (
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
    SwapLostError,
)
from sources.forking import keep_in_children
from sources.locations import ObjectStat, StoreId, Version
from sources.object_clients import is_forked
from sources.object_failures import FAILURES, Failure, UnnameableKeyError, classify, source_error
from sources.stores import LISTING_SCHEMA, stats_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sized

    from obstore import GetOptions, PutMode
    from obstore.store import ObjectStore as Client
    from typing_extensions import Buffer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNNAMEABLE = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
_PAGE = 1000  # what the servers give at most in one answer
WHOLE_BYTES = 1 << 20  # a body up to here is taken whole, without a copy; a larger one is streamed into its buffer
CHUNK_BYTES = 1 << 20  # smaller ones cost twice the CPU with four threads in fresh memory
_PART_BYTES = 5 << 20  # of a multipart upload; S3 takes no smaller ones
_PARTS_AT_ONCE = 4  # so that a slow line gets each through before the time-out: 0.7 MB/s is enough
_MOST_PARTS = 9000  # S3 allows 10000


class Body(Protocol):
    """The answer to a GET; its body is taken once."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the headers say about the object: `e_tag`, `version`, and more that reads do not look at."""
        ...

    def fill(self, target: memoryview) -> Iterator[int]:
        """Put it where it belongs, and tell how many bytes came, each time that some did."""
        ...

    def bytes(self) -> Sized:
        """Take it whole."""
        ...


class _ClientBody:
    """See `Body`; obstore's."""

    def __init__(self, result: obstore.GetResult) -> None:
        self._result = result

    @property
    def meta(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self._result.meta)

    def fill(self, target: memoryview) -> Iterator[int]:
        return copied(cast("Iterator[bytes]", self._result.stream(CHUNK_BYTES)), target)

    def bytes(self) -> Sized:
        return cast("Sized", self._result.bytes())


def copied(chunks: Iterable[bytes], target: memoryview) -> Iterator[int]:
    """Copy chunks into a buffer, and yield how long each is."""
    received = 0
    for chunk in chunks:
        size = len(chunk)
        target[received : received + size] = chunk
        received += size
        yield size


class ObjectStore:
    """A bucket behind an obstore client. The version of an object is its etag, unless a subclass says otherwise.

    Each call is one request (a multipart `put` and a page with empty objects: a few), sent once: nothing is repeated.
    Safe in threads. In a forked child every call raises SourceConfigError, unless a subclass has another way.
    Subclasses build the client in `__init__`, add `open` and `__reduce__`, and override the methods that their store
    does another way: `_token`, `_tokens` (versions), `_pinned` (how a read names one), `_mode` (how a swap does).

    Args:
        store_id: `scheme://bucket`.
        client: With `client_options()` and `once()`.
        next_step: What to check when the credentials are refused: "check ...".
    """

    remote: ClassVar[bool] = True

    def __init__(self, store_id: StoreId, client: Client, *, next_step: str) -> None:
        self.id = store_id
        self._client = client
        self._next_step = next_step
        keep_in_children(self)

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        """See `ListPages.pages`; one batch per answer of the server."""
        self._check_not_forked()
        if "//" in f"/{prefix}":  # obstore takes it for one slash
            raise UnnameableKeyError(self._uri(prefix))
        if after and not is_nameable(after):
            raise UnnameableKeyError(self._uri(after))
        last, directory = after, prefix[: prefix.rfind("/") + 1]
        try:
            stream = obstore.list(
                self._client, directory or None, offset=after or None, chunk_size=_PAGE, return_arrow=True
            )
            while (chunk := next(stream, None)) is not None:
                page = self._listing(pa.record_batch(chunk), prefix, after=last)
                if page.num_rows:
                    yield page
                    last = page.column("key")[-1].as_py()
                self._check_not_forked()  # meanwhile: the rest would be waited for forever
        except self._failures as error:
            failure = self._failure(prefix, error)
        else:
            return
        raise failure

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ListObjects.list`."""
        for page in self.pages(prefix):
            yield from stats_of(page)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        self._check(key)
        try:
            meta = self._head(key)
        except self._failures as error:
            failure = self._failure(key, error)
        else:
            return ObjectStat(key, meta["size"], self._token(key, meta), nanoseconds(meta["last_modified"]))
        raise failure

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        if length > WHOLE_BYTES:
            buffer = np.empty(length, np.uint8).data  # not a bytearray, which is filled with zeros first
            self.read_into(key, start=start, buffer=buffer, version=version)
            return buffer
        if not length:
            return b""
        try:
            result = self._get(key, start, length, version)
            body = result.bytes()
        except self._failures as error:
            failure: SourceError = self._read_failure(key, error, version)
        else:
            if len(body) == length:
                return cast("Buffer", body)
            failure = self._short(key, start, length, len(body))
        raise failure

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        target, received = buffer.cast("B"), 0
        if not target.nbytes:
            return
        try:
            for size in self._get(key, start, target.nbytes, version).fill(target):
                received += size
        except self._failures as error:
            failure: SourceError = self._read_failure(key, error, version, received)
        else:
            if received == target.nbytes:
                return
            failure = self._short(key, start, target.nbytes, received)
        raise failure

    def put(self, key: str, data: Buffer) -> None:
        """See `WriteObject.put`; large bodies go as multipart uploads."""
        self._check(key)
        body = memoryview(data).cast("B")
        try:
            self._write(key, body)
        except self._failures as error:
            failure = self._failure(key, error)
        else:
            return
        raise failure

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        self._check(key)
        try:
            self._remove(key)
        except self._failures as error:
            failure = self._failure(key, error)
        else:
            return
        if not _is_object_missing(failure):
            raise failure

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """See `SwapObject.fetch`."""
        self._check(key)
        try:
            result = self._open(key, {})
            body = bytes(cast("Buffer", result.bytes()))
        except self._failures as error:
            failure = self._failure(key, error)
        else:
            return body, self._swappable(key, result.meta)
        raise failure

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """One conditional request, never repeated. See `SwapObject.swap`."""
        self._check(key)
        if expect is not None and not _is_sendable(expect):
            raise SwapLostError(self._uri(key), expected=expect)
        mode: PutMode = "create" if expect is None else self._mode(expect)
        try:
            written = self._swap(key, data, mode)
        except self._failures as error:
            failure = self._failure(key, error)
            lost = (
                isinstance(failure, SwapLostError) or self._classified(error).status == 409
            )  # another write is under way
            if lost or (expect is not None and _is_object_missing(failure)):  # AWS: 404 to If-Match on a missing key
                failure = SwapLostError(self._uri(key), expected=expect)
        else:
            return self._swappable(key, written)
        raise failure

    # --- the requests: what a store that is not behind obstore sends another way

    _failures: ClassVar[tuple[type[Exception], ...]] = FAILURES

    def _head(self, key: str) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", obstore.head(self._client, key))

    def _open(self, key: str, options: GetOptions) -> Body:
        return _ClientBody(obstore.get(self._client, key, options=options))

    def _drop(self, answer: Body) -> None:
        """Let go of an answer whose body is not wanted; obstore's goes with its last reference."""

    def _write(self, key: str, body: memoryview) -> None:
        part = max(_PART_BYTES, -(-body.nbytes // _MOST_PARTS))
        obstore.put(self._client, key, obstore.Bytes(body), chunk_size=part, max_concurrency=_PARTS_AT_ONCE)

    def _swap(self, key: str, data: bytes, mode: PutMode) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", obstore.put(self._client, key, data, mode=mode, use_multipart=False))

    def _remove(self, key: str) -> None:
        obstore.delete(self._client, key)

    def _classified(self, error: Exception) -> Failure:
        return classify(error)

    # --- what stores behind obstore may do another way

    def _token(self, key: str, meta: Mapping[str, object]) -> Version:
        """Return the version in the metadata of a stat, a read or a write."""
        if not meta["e_tag"]:
            raise SourceConfigError(f"{self._uri(key)}: the store gives no etag, so the object cannot be pinned")
        return Version(f"etag:{meta['e_tag']}")

    def _tokens(self, page: pa.RecordBatch) -> pa.Array[pa.StringScalar]:
        """Return the versions of a page of obstore's listing."""
        etags = page.column("e_tag")
        if etags.null_count:
            raise SourceConfigError(f"{self.id}: the store lists no etags, so its objects cannot be pinned")
        joined = pc.binary_join_element_wise(pa.scalar("etag:"), etags, pa.scalar(""))  # type: ignore[call-overload]
        return cast("pa.Array[pa.StringScalar]", joined)

    def _pinned(self, version: Version) -> GetOptions:
        """Return how a read says that it wants only this version."""
        return {"if_match": version[5:]} if version.startswith("etag:") else {}

    def _mode(self, expect: Version) -> PutMode:
        """Return how a write says that it replaces only this version."""
        return {"e_tag": expect.removeprefix("etag:")}

    def _without_markers(self, page: pa.RecordBatch, prefix: str, *, after: str) -> pa.RecordBatch:
        """Drop the empty objects that stand for directories: obstore lists "photos/" without its slash.

        Args:
            page: Of `LISTING_SCHEMA`.
            prefix: What was listed.
            after: The last key before the page.
        """
        return keep_empty(page, {key for key in empty_keys(page) if self._exists(key)})

    def _served(self, key: str, version: Version, meta: Mapping[str, object]) -> Version:
        """Return which version was served, in the kind of token that `version` is."""
        return self._token(key, meta)

    def _swappable(self, key: str, meta: Mapping[str, object]) -> Version:
        """Return the version that `swap` compares."""
        return self._token(key, meta)

    def _check(self, key: str) -> None:
        """Refuse a key that obstore would silently take for another one, and a process that has not its threads."""
        self._check_not_forked()
        if not is_nameable(key):
            raise UnnameableKeyError(self._uri(key))

    def _check_not_forked(self) -> None:
        if is_forked():
            raise SourceConfigError(f"{self.id}: a forked process cannot use this store; start it with spawn")

    # --- the rest

    def _get(self, key: str, start: int, length: int, version: Version | None) -> Body:
        """Send one ranged request; what it returns is of `version`, even from a server that ignores conditions."""
        self._check(key)
        result = self._open(key, self._ranged(key, start, length, version))
        try:
            self._check_served(key, version, result.meta)
        except SourceError:
            self._drop(result)
            raise
        return result

    def _ranged(self, key: str, start: int, length: int, version: Version | None) -> GetOptions:
        """Return what a read asks for."""
        if version is not None and not _is_sendable(version):
            raise SourceChangedError(self._uri(key), expected=version, found=self._found(key))
        options: GetOptions = {} if version is None else self._pinned(version)
        options["range"] = (start, start + length)
        return options

    def _check_served(self, key: str, version: Version | None, meta: Mapping[str, Any]) -> None:
        """Refuse an answer that is of another version than was asked for."""
        if version is not None and not version.startswith("oid:"):
            found = self._served(key, version, meta)
            if found != version:
                raise SourceChangedError(self._uri(key), expected=version, found=found)

    def _read_failure(self, key: str, error: Exception, version: Version | None, received: int = 0) -> SourceError:
        """Translate what a read ended in: a condition that does not hold is a change at the source."""
        failure = self._failure(key, error, received)
        if version is None:
            return failure
        if isinstance(failure, SwapLostError):
            return SourceChangedError(self._uri(key), expected=version, found=self._found(key))
        if _is_object_missing(failure):
            return SourceChangedError(self._uri(key), expected=version, found="gone")
        return failure

    def _found(self, key: str) -> str:
        try:
            return self.stat(key).version
        except SourceNotFoundError:
            return "gone"

    def _exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except SourceNotFoundError:
            return False
        return True

    def _listing(self, page: pa.RecordBatch, prefix: str, *, after: str) -> pa.RecordBatch:
        """Turn a page of obstore's into one of ours: column by column, in the server's order."""
        mtimes = pc.multiply(page.column("last_modified").cast(pa.int64()), 1000)
        sizes = page.column("size").cast(pa.int64())
        listed = pa.record_batch([page.column("path"), sizes, self._tokens(page), mtimes], schema=LISTING_SCHEMA)
        if not prefix.endswith("/"):  # a prefix may end inside a name, obstore's may not
            listed = listed.filter(pc.starts_with(listed.column("key"), prefix))
        return (
            self._without_markers(listed, prefix, after=after)
            if pc.any(pc.equal(sizes, pa.scalar(0))).as_py()
            else listed
        )

    def _failure(self, key: str, error: Exception, received: int = 0) -> SourceError:
        """Translate an error; raise the result outside of the `except` block, for it is not to chain the original."""
        if isinstance(error, SourceError):  # ours are ValueError and OSError too
            return error
        return self._explained(self._classified(error), key, received)

    def _explained(self, failure: Failure, key: str, received: int = 0) -> SourceError:
        return source_error(failure, uri=self._uri(key), store_id=self.id, next_step=self._next_step, received=received)

    def _short(self, key: str, start: int, length: int, received: int) -> SourceUnavailableError:
        text = f"{self._uri(key)}: asked for {length} bytes at {start}, got {received}: the object is shorter"
        return SourceUnavailableError(text, received=received, retryable=False)

    def _uri(self, key: str) -> str:
        return f"{self.id}/{key}"


def is_nameable(key: str) -> bool:
    """Say whether obstore names this very key: it refuses some and silently takes others for another key."""
    return _UNNAMEABLE.search(key) is None


def is_listable(prefix: str) -> bool:
    """Say whether obstore lists just what starts with `prefix`: a directory that it can name, or everything."""
    return not prefix or (prefix.endswith("/") and is_nameable(prefix[:-1]))


def empty_keys(page: pa.RecordBatch) -> set[str]:
    """Return the keys of the empty objects of a listing."""
    return set(cast("list[str]", page.filter(pc.equal(page.column("size"), pa.scalar(0))).column("key").to_pylist()))


def keep_empty(page: pa.RecordBatch, real: set[str]) -> pa.RecordBatch:
    """Drop the empty objects that are not in `real`; of those in it, keep one row each."""
    left, rows = set(real), []
    for key, size in zip(page.column("key").to_pylist(), page.column("size").to_pylist(), strict=True):
        rows.append(bool(size) or key in left)
        if not size:
            left.discard(key)
    return page.filter(pa.array(rows, pa.bool_()))


def _is_sendable(version: Version) -> bool:
    """Say whether a header can carry a version. No object has another one, and obstore ends in a `BaseException`."""
    return version.isascii() and version.isprintable()


def _is_object_missing(failure: SourceError) -> bool:
    return isinstance(failure, SourceNotFoundError) and failure.what == "object"


def nanoseconds(time: datetime) -> int:
    """Return a time as nanoseconds since 1970; the stores tell microseconds at best."""
    return (time - _EPOCH) // _MICROSECOND * 1000
