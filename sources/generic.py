"""Any protocol that fsspec knows."""

from __future__ import annotations

import copy
import logging
import os
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import fsspec
import pyarrow as pa

from sources.errors import (
    SourceChangedError,
    SourceConfigError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.generic_failures import source_error
from sources.generic_identity import version_of
from sources.locations import ObjectStat, StoreId, Version, join_uri
from sources.stores import LISTING_SCHEMA, DirectoryPage
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from typing_extensions import Buffer

_CONNECT_SECONDS = 5
_REQUEST_SECONDS = 60
_ONCE: dict[str, dict[str, Any]] = {  # options that stop a library from repeating requests, or let it give up
    "s3": {
        "config_kwargs": {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _REQUEST_SECONDS,
        }
    },
    "sftp": {"timeout": _CONNECT_SECONDS, "banner_timeout": _CONNECT_SECONDS, "auth_timeout": _REQUEST_SECONDS},
}
_TALKATIVE = {"s3": "botocore", "webhdfs": "urllib3"}  # at level DEBUG these show tokens
_ALIASES = {"s3a": "s3", "ssh": "sftp"}
_ONE_AT_A_TIME = ("ftp", "tar", "libarchive")  # one connection, or one place in one file, for all threads
_LABELLED = ("zip", "tar", "libarchive", "github", "git", "gist")  # what is opened is in the options; the URI names it
_ELSEWHERE = frozenset((".", ".."))
_Rows = list[ObjectStat]  # inside of the class `list` is the method
_Names = list[str]
_Column = list[Any]
_Infos = list[dict[str, Any]]
_Entries: TypeAlias = "Iterator[tuple[bytes, ObjectStat | str]]"


class FsspecStore:
    """A store behind an fsspec filesystem: list, stat, read and write, but no compare-and-swap.

    A version is what `version_of` finds in the filesystem's `info`. fsspec has no conditional read, so a pinned read is
    checked by a stat before and after it: two requests more than a native store, and an object that is replaced and put
    back in between is not seen. The filesystem is made at the first call, one for each process (a forked child makes
    its own), not shared with others and without its cache of listings.

    Args:
        protocol: fsspec's name of it.
        options: The filesystem's own, credentials inside.
        store_id: Scheme and authority; the same as for the native store of the scheme.
    """

    remote: ClassVar[bool] = True

    def __init__(self, protocol: str, options: Mapping[str, object], store_id: StoreId) -> None:
        self.id = store_id
        self._protocol = _ALIASES.get(protocol, protocol)
        self._options = dict(options)
        self._filesystems: dict[int, Any] = {}  # by process: dropping the parent's in a child would close what it uses
        self._locks: dict[int, AbstractContextManager[object]] = {}  # by process too: a fork may copy a held one

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> FsspecStore:
        """Open `[fsspec+]protocol://...` with the filesystem's own options; a wrong one is told at the first call."""
        parts = split_uri(uri)
        protocol = parts.scheme.removeprefix("fsspec+")
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise SourceConfigError(f"{uri}: cannot open a {protocol} filesystem: {error}") from error
        return cls(protocol, options, parts.store)

    def __reduce__(self) -> tuple[object, ...]:
        return FsspecStore, (self._protocol, self._options, self.id)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Walk the directories; keys come byte-sorted. See `ListObjects.list`."""
        top = prefix[: prefix.rfind("/") + 1]
        stack = [self._walk(top)]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif isinstance(entry[1], ObjectStat):
                if entry[1].key.startswith(prefix):
                    yield entry[1]
            elif entry[1].startswith(prefix) or prefix.startswith(entry[1]):
                stack.append(self._walk(entry[1]))

    def scan_directory(self, directory: str) -> DirectoryPage:
        """See `ListDirectories.scan_directory`."""
        stats, directories = self._scan(directory)
        columns: dict[str, _Column] = {
            name: [getattr(stat, name) for stat in stats] for name in ("key", "size", "version", "mtime_ns")
        }
        return DirectoryPage(pa.RecordBatch.from_pydict(columns, schema=LISTING_SCHEMA), directories)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        with self._translated(key):
            info = self._info(key)
        if info["type"] != "file":
            raise SourceNotFoundError(join_uri(self.id, key))
        return self._stat(key, info)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        if not length:
            return b""
        self._check(key, version)
        with self._translated(key):
            data = self._filesystem().cat_file(self._path(key), start=start, end=start + length)
        self._check(key, version)
        if len(data) != length:
            text = f"{join_uri(self.id, key)}: asked for {length} bytes at {start}, got {len(data)}"
            raise SourceUnavailableError(text, received=0, retryable=not self._ends_before(key, start + length))
        return bytes(data) if not isinstance(data, bytes) else data

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`; fsspec has no such read, so this copies."""
        target = buffer.cast("B")
        target[:] = memoryview(self.read(key, start=start, length=target.nbytes, version=version)).cast("B")

    def put(self, key: str, data: Buffer) -> None:
        """See `WriteObject.put`; as atomic as the filesystem's `pipe_file`."""
        with self._translated(key):
            self._filesystem().pipe_file(self._path(key), bytes(data))

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        try:
            with self._translated(key):
                self._filesystem().rm_file(self._path(key))
        except SourceNotFoundError:
            return

    def _walk(self, directory: str) -> _Entries:
        stats, directories = self._scan(directory)
        rows: _Column = [(stat.key.encode(), stat) for stat in stats]
        rows += [(below.encode(), below) for below in directories]
        return iter(sorted(rows, key=lambda row: row[0]))

    def _scan(self, directory: str) -> tuple[_Rows, _Names]:
        """Return the files and the directories of a directory, each in byte order of key."""
        try:
            with self._translated(directory):
                infos: _Infos = self._filesystem().ls(self._path(directory), detail=True)
        except SourceNotFoundError:
            raise SourceNotFoundError(join_uri(self.id, directory), "directory") from None
        stats: _Rows = []
        directories: _Names = []
        root = self._path("").rstrip("/")
        for info in infos:
            key = info["name"].removeprefix(root).strip("/")
            if key.rpartition("/")[2] in _ELSEWHERE:  # some servers list them
                continue
            if key == directory.rstrip("/"):
                if info["type"] == "file" and not info["name"].endswith("/"):  # and not the marker of a directory
                    raise SourceNotFoundError(join_uri(self.id, directory), "directory")
            elif key.rpartition("/")[0] != directory.rstrip("/"):
                raise SourceConfigError(
                    f"{join_uri(self.id, directory)}: this {self._protocol} filesystem lists {key!r} there, "
                    "which does not lie there; it cannot be listed"
                )
            elif info["type"] == "directory":
                directories.append(f"{key}/")
            elif (stat := self._listed(key, info)) is not None:
                stats.append(stat)
        stats.sort(key=lambda stat: stat.key.encode())
        return stats, sorted(set(directories), key=str.encode)

    def _listed(self, key: str, info: Mapping[str, Any]) -> ObjectStat | None:
        """Turn an entry of a listing into one of ours, asking again where the listing tells less than a stat."""
        if info["type"] == "file" and version_of(info, self._protocol)[0] is not None:
            return self._stat(key, info)
        try:
            return self.stat(key)
        except SourceNotFoundError:  # a link to a directory or nowhere, or deleted while we list
            return None

    def _info(self, key: str) -> Mapping[str, Any]:
        filesystem, path = self._filesystem(), self._path(key)
        found: Mapping[str, Any] = filesystem.info(path)
        return found

    def _stat(self, key: str, info: Mapping[str, Any]) -> ObjectStat:
        version, mtime_ns = version_of(info, self._protocol)
        if version is None:
            raise SourceConfigError(
                f"{join_uri(self.id, key)}: the store does not tell its size and an etag or time; it cannot be pinned"
            )
        return ObjectStat(key, int(info["size"]), version, mtime_ns)

    def _check(self, key: str, version: Version | None) -> None:
        if version is None or version.startswith("oid:"):
            return
        try:
            found = str(self.stat(key).version)
        except SourceNotFoundError:
            found = "gone"
        if found != version:
            raise SourceChangedError(join_uri(self.id, key), expected=version, found=found)

    def _ends_before(self, key: str, end: int) -> bool:
        return self.stat(key).size < end

    def _filesystem(self) -> Any:
        found = self._filesystems.get(os.getpid())
        if found is None:
            # two threads may both make one: the second is kept, the first one forgotten
            found = self._filesystems[os.getpid()] = self._made()
        return found

    def _locked(self) -> AbstractContextManager[object]:
        if self._protocol not in _ONE_AT_A_TIME:
            return nullcontext()
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def _made(self) -> Any:
        self._quiet()
        try:
            kind = fsspec.get_filesystem_class(self._protocol)
            place = {} if self._protocol in _LABELLED else kind._get_kwargs_from_urls(f"{self.id}/")  # host and port
            told = {name: value for name, value in place.items() if value is not None}
            options = {**copy.deepcopy(_ONCE.get(self._protocol, {})), **told, **self._options}  # botocore writes to it
            filesystem = kind(**options, skip_instance_cache=True)
        except (ImportError, TypeError, ValueError, KeyError) as error:
            # the texts of these name an option, but may also quote its value
            raise SourceConfigError(
                f"{self.id}: cannot open a {self._protocol} filesystem with the options "
                f"{', '.join(sorted(self._options)) or '(none)'}: {type(error).__name__}; "
                "see the documentation of the filesystem for what it takes and needs installed"
            ) from None
        if hasattr(filesystem, "dircache"):  # not by option: sftp, for one, passes those it does not know on
            filesystem.dircache.use_listings_cache = False
        if isinstance(getattr(filesystem, "retries", None), int):  # s3fs, gcsfs
            filesystem.retries = 1
        return filesystem

    def _quiet(self) -> None:
        """Keep a log that shows tokens off, unless it was asked for by name."""
        name = _TALKATIVE.get(self._protocol)
        if name and logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.INFO)

    def _path(self, key: str) -> str:
        # Some filesystems resolve "..": a key of somebody's commit would lead out of what the source covers.
        if not _ELSEWHERE.isdisjoint(key.split("/")) or "\0" in key:
            raise SourceConfigError(f"{join_uri(self.id, key)!a}: a key has no part '.' or '..' and no NUL")
        path = key if self._protocol in _LABELLED else f"{self.id}/{key}"
        return str(self._filesystem()._strip_protocol(path))

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            with self._locked():
                yield
        except Exception as error:  # noqa: BLE001  a filesystem may be anybody's, and so are its errors
            raise source_error(error, join_uri(self.id, key)) from None
