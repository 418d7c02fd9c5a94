"""NFS in user space."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from sources.errors import (
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.listing import scan
from sources.locations import ObjectStat, StoreId, Version, join_uri
from sources.nfs.failures import StaleError, translated
from sources.nfs.mounting import engine_module, mount
from sources.nfs.options import NfsOptions, parse_options
from sources.stores import DirectoryPage, batch_of, stats_of
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeVar

    from typing_extensions import Buffer

    from sources.nfs.engines import Attributes, Engine
    from sources.nfs.mounting import Mounted

    T = TypeVar("T")

_log = logging.getLogger(__name__)
_TEMPORARY = ".forebay-tmp-"
_UNREADABLE = "\ufffd"  # what nfs-rs makes of bytes that are no UTF-8
_LEFT_OUT = (
    "%d entries of %s are symbolic links, special files or names that are no UTF-8, and are not listed; "
    "the first is %r; give what links lead to a mount of its own"
)


class NfsStore:
    """Files below one directory of a server; keys are absolute paths on the server without the first slash.

    The version of a file is its mtime, size, fileid and ctime, which the server keeps: what a write cannot leave as it
    was. If a read finds the pinned version after the data, then the data is of it, too: a file's ctime goes on with
    every write and never back, and a file in another's place has another fileid. libnfs finds it in the same answers as
    the data, for the very file that was read; nfs-rs tells only what the name has afterwards, and would not notice a
    file that makes room for another during the read and comes back, where a rename leaves the ctime alone. libnfs may
    find the pinned file where its directory was until three seconds ago, moved elsewhere since. Neither
    notices a write within one tick of the server's clock (some milliseconds on Linux) of the pinned mtime.

    Symbolic links are neither listed nor followed, whatever a key says; special files and names that are no UTF-8 are
    not listed. Other exports below the directory are not entered.

    Safe in threads, in spawned processes and in forks: a process connects at its first call.

    Args:
        store_id: `nfs://server[:port]`.
        root: The directory, an absolute path; nothing outside of it is read or written.
        options: See `NfsOptions`.
    """

    remote = True

    def __init__(self, store_id: StoreId, root: str, options: NfsOptions) -> None:
        self.id = store_id
        self._root = root.rstrip("/")
        self._options = options
        self._warned = False
        self._mounts: dict[int, Mounted] = {}  # by process: a forked child must not even drop its parent's

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> NfsStore:
        """Open `nfs://server[:port]/exported/path`; options as in `NfsOptions`.

        Raises:
            SourceConfigError: If no engine is installed, no server is named, or an option is wrong.
        """
        store_id, key = split_uri(uri)[1:]
        parsed = parse_options(uri, store_id.removeprefix("nfs://"), options)
        engine_module(parsed.engine, uri)
        return cls(store_id, "/" + key.rstrip("/"), parsed)

    def __reduce__(self) -> tuple[object, ...]:
        return NfsStore, (self.id, self._root, self._options)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Walk the directory; keys come byte-sorted. See `ListObjects.list`."""
        for batch in scan(self, prefix, concurrency=1):
            yield from stats_of(batch)

    def scan_directory(self, directory: str) -> DirectoryPage:
        """See `ListDirectories.scan_directory`; some thousand entries to a request, with their attributes."""
        files: list[ObjectStat] = []
        directories: list[str] = []
        left_out: list[str] = []
        for name, found in self._call(directory, lambda engine, path: [*engine.scan(path)], what="directory"):
            if _UNREADABLE in name:
                left_out.append(name)
            elif found.kind == "directory":
                directories.append(f"{directory}{name}/")
            elif found.kind != "file":
                left_out.append(name)
            elif not name.startswith(_TEMPORARY):
                files.append(_stat_of(directory + name, found))
        if left_out:
            self._warn(directory, left_out)
        files.sort(key=lambda stat: stat.key.encode())
        return DirectoryPage(batch_of(files), sorted(directories, key=str.encode))

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        found = self._call(key, lambda engine, path: engine.attributes(path))
        if found.kind != "file":
            raise SourceNotFoundError(self._uri(key), "file")
        return _stat_of(key, found)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """Read a range; the file is compared with the version afterwards. See `ReadRange.read`."""
        data = bytearray(length)
        self.read_into(key, start=start, buffer=memoryview(data), version=version)
        return data

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        target = buffer.cast("B")
        pinned = None if version is None or version.startswith("oid:") else version
        try:
            got, seen = self._call(key, lambda engine, path: engine.read_into(path, start, target, pinned))
        except SourceNotFoundError:
            if version is None:
                raise
            raise SourceChangedError(self._uri(key), expected=version, found="gone") from None
        for found in seen if pinned is not None else ():
            if found.version != pinned:
                raise SourceChangedError(self._uri(key), expected=str(pinned), found=found.version)
        if got != len(target):
            raise SourceUnavailableError(
                f"{self._uri(key)}: asked for {len(target)} bytes at {start}, the file ended at {start + got}",
                received=got,
                retryable=False,
            )

    def put(self, key: str, data: Buffer) -> None:
        """Write a temporary file to the server's disk and rename it over the key. See `WriteObject.put`."""
        body = memoryview(data).cast("B")
        temporary = f"{key[: key.rfind('/') + 1]}{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            try:
                self._call(temporary, lambda engine, path: engine.write(path, body))
            except SourceNotFoundError:
                self.make_directories(key[: key.rfind("/") + 1])
                self._call(temporary, lambda engine, path: engine.write(path, body))
            self._call(key, lambda engine, path: engine.rename(self._relative(temporary), path))
        except SourceError:
            with suppress(SourceError):
                self.delete(temporary)
            raise

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        with suppress(SourceNotFoundError):
            self._call(key, lambda engine, path: engine.remove(path))

    def make_directories(self, directory: str) -> None:
        """Make a directory and those above it that are missing."""
        self._call(directory, lambda engine, path: engine.make_directories(path), what="directory")

    def remove_directory(self, directory: str) -> None:
        """Remove an empty directory."""
        self._call(directory, lambda engine, path: engine.remove_directory(path), what="directory")

    def is_directory(self, directory: str) -> bool:
        """Say whether a directory is there."""
        with suppress(SourceNotFoundError):
            return self._call(directory, lambda engine, path: engine.attributes(path)).kind == "directory"
        return False

    def _call(self, key: str, act: Callable[[Engine, str], T], *, what: str = "object") -> T:
        uri = self._uri(key)
        self._check_inside(key)
        try:
            with translated(uri, what):
                return act(self._mounted().engine, self._relative(key))
        except StaleError as error:
            self._mounts.pop(os.getpid(), None)  # it may be the export's handle that is stale
            raise SourceUnavailableError(f"{uri}: replaced or deleted while it was looked at; try again") from error

    def _check_inside(self, key: str) -> None:
        path = "/" + key.rstrip("/")
        if path != self._root and not path.startswith(f"{self._root}/"):
            raise SourceConfigError(f"{self._uri(key)} lies outside of the source {self.id}{self._root}")
        if not {"", ".", ".."}.isdisjoint(path[1:].split("/")) and path != "/":
            raise SourceConfigError(
                f"{self._uri(key)}: NFS cannot name a key with an empty, '.' or '..' part; rename it"
            )

    def _relative(self, key: str) -> str:
        return ("/" + key)[len(self._mounted().path) :].strip("/")

    def _mounted(self) -> Mounted:
        pid = os.getpid()
        found = self._mounts.get(pid)
        if found is None:
            found = self._mounts.setdefault(pid, mount(self._options, self._root, f"{self.id}{self._root}"))
        return found

    def _warn(self, directory: str, left_out: Sequence[str]) -> None:
        level = logging.DEBUG if self._warned else logging.WARNING  # a tree of links would warn for each directory
        _log.log(level, _LEFT_OUT, len(left_out), self._uri(directory), left_out[0])
        self._warned = True

    def _uri(self, key: str) -> str:
        return join_uri(self.id, key)


def _stat_of(key: str, found: Attributes) -> ObjectStat:
    return ObjectStat(key, found.size, found.version, found.mtime_ns)
