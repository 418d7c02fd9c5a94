"""Any protocol that fsspec knows."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import fsspec

from sources.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.locations import ObjectStat, StoreId, Version, join_uri
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ETAGS = ("ETag", "etag", "e_tag")
_TIMES = ("mtime", "LastModified", "last_modified", "created", "modified")


class FsspecStore:
    """A store behind an fsspec filesystem: list, stat, read and write, but no compare-and-swap.

    The version is the etag where the filesystem tells one, else modification time and size. fsspec has no conditional
    read, so a pinned read is checked by a stat before and after it: two requests more than a native store.

    Args:
        filesystem: The fsspec filesystem, options and credentials inside.
        store_id: Scheme and authority; the same as for the native store of the scheme.
    """

    def __init__(self, filesystem: Any, store_id: StoreId) -> None:
        self._filesystem = filesystem
        self.id = store_id

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> FsspecStore:
        """Open `[fsspec+]protocol://...` with the filesystem's own options."""
        parts = split_uri(uri)
        protocol = parts.scheme.removeprefix("fsspec+")
        try:
            filesystem = fsspec.filesystem(protocol, **options)
        except (ImportError, TypeError, ValueError) as error:
            raise SourceConfigError(f"{uri}: cannot open a {protocol} filesystem: {error}") from error
        return cls(filesystem, parts.store)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ListObjects.list`; the filesystem builds the listing of a directory whole."""
        top = prefix[: prefix.rfind("/") + 1]
        with self._translated(prefix):
            found = self._filesystem.find(self._path(top), detail=True)
            if not found and not self._filesystem.exists(self._path("")):
                raise SourceNotFoundError(self.id, "bucket")
        for path, info in found.items():
            key = self._key(path)
            if key.startswith(prefix):
                yield self._stat(key, info)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        with self._translated(key):
            self._filesystem.invalidate_cache(self._path(key))
            info = self._filesystem.info(self._path(key))
        if info["type"] != "file":
            raise SourceNotFoundError(join_uri(self.id, key))
        return self._stat(key, info)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        """See `ReadRange.read`."""
        if not length:
            return b""
        self._check(key, version)
        with self._translated(key):
            data = bytes(self._filesystem.cat_file(self._path(key), start=start, end=start + length))
        self._check(key, version)
        if len(data) != length:
            uri = join_uri(self.id, key)
            raise SourceUnavailableError(f"{uri}: asked for {length} bytes at {start}, got {len(data)}")
        return data

    def put(self, key: str, data: Any) -> None:
        """See `WriteObject.put`; as atomic as the filesystem's `pipe_file`."""
        with self._translated(key):
            self._filesystem.pipe_file(self._path(key), bytes(data))

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        try:
            with self._translated(key):
                self._filesystem.rm_file(self._path(key))
        except SourceNotFoundError:
            return

    def _path(self, key: str) -> str:
        return str(self._filesystem._strip_protocol(f"{self.id}/{key}"))

    def _key(self, path: str) -> str:
        return path.removeprefix(self._path("").rstrip("/")).lstrip("/")

    def _stat(self, key: str, info: Mapping[str, Any]) -> ObjectStat:
        etag = next((info[name] for name in _ETAGS if info.get(name)), None)
        time = next((info[name] for name in _TIMES if info.get(name)), None)
        mtime_ns = _nanoseconds(time)
        if etag and info.get("size") is not None:
            return ObjectStat(key, info["size"], Version(f"etag:{etag}"), mtime_ns)
        if mtime_ns is None or info.get("size") is None:
            raise SourceConfigError(
                f"{join_uri(self.id, key)}: the store does not tell its size and an etag or time; it cannot be pinned"
            )
        return ObjectStat(key, info["size"], Version(f"stat:{mtime_ns}:{info['size']}"), mtime_ns)

    def _check(self, key: str, version: Version | None) -> None:
        if version is None or version.startswith("oid:"):
            return
        try:
            found = str(self.stat(key).version)
        except SourceNotFoundError:
            found = "gone"
        if found != version:
            raise SourceChangedError(join_uri(self.id, key), expected=version, found=found)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        uri = join_uri(self.id, key)
        try:
            yield
        except SourceError:
            raise
        except FileNotFoundError as error:
            raise SourceNotFoundError(uri) from error
        except PermissionError as error:
            raise SourceAuthError(f"{uri}: the store refuses these credentials") from error
        except Exception as error:  # a filesystem may be anybody's, and so are its errors
            raise SourceUnavailableError(f"{uri}: {type(error).__name__}; try again later") from error


def _nanoseconds(time: Any) -> int | None:
    if isinstance(time, datetime):
        return int(time.timestamp() * 1_000_000) * 1000
    if isinstance(time, int | float):
        return int(time * 1_000_000) * 1000
    return None
