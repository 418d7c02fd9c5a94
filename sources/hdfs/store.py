"""HDFS through hdfs-native."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sources.errors import (
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from sources.forking import keep_in_children
from sources.hdfs.failures import translated
from sources.hdfs.forking import wait_for_inherited_connections
from sources.hdfs.options import HdfsOptions, parse_options
from sources.hdfs.watching import Call, Watch
from sources.listing import scan
from sources.locations import ObjectStat, StoreId, Version, join_uri
from sources.stores import DirectoryPage, batch_of, stats_of
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hdfs_native import Client, FileReader, FileStatus
    from typing_extensions import Buffer

T = TypeVar("T")

_TEMPORARY = ".forebay-tmp-"
_THREADS = 64
_WRITE_BYTES = 4 << 20  # between two signs of life


@dataclass(frozen=True)
class _Connection:
    """A client and the threads that call it; neither survives a fork."""

    client: Client
    watch: Watch


class HdfsStore:
    """One HDFS: a NameNode, or a nameservice with several. The version of a file is its mtime and size.

    What HDFS can and cannot promise: its blocks are immutable, and an opened file is a list of blocks, so what is read
    is one content of the file (an append only adds to it; a truncated one is refused or ends short). Which content it
    was is told by the length of the opened file and by the mtime and size of its name after the read: both are compared
    with the version. HDFS keeps mtimes in milliseconds, a rename keeps them, and a user may set them. So a file that
    was replaced by one of the same size in the same millisecond, or by one whose mtime was set back, is not noticed.

    Every wait ends: hdfs-native limits only how long it waits for a DataNode's data, neither for a NameNode nor when it
    writes. So calls run on threads of ours and are given up after `timeout_seconds` without progress. Such a thread is
    lost until the NameNode answers or its connection breaks; at most 64 are, then calls wait for one of them.

    Safe in threads, in spawned processes and in forks: a process makes its own client at its first call. In a child
    that was forked from a process that has read, that takes three seconds; see `sources.hdfs.forking`.

    Args:
        store_id: `hdfs://host:port` or `hdfs://nameservice`.
        options: See `HdfsOptions`.
    """

    remote = True

    def __init__(self, store_id: StoreId, options: HdfsOptions) -> None:
        self.id = store_id
        self._options = options
        self._connections: dict[int, _Connection] = {}  # by process: a forked child must not even drop its parent's
        keep_in_children(self)

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> HdfsStore:
        """Open `hdfs://namenode:port/path` or `hdfs://nameservice/path`; options as in `HdfsOptions`.

        Raises:
            SourceConfigError: If hdfs-native is not installed, no host is named, or an option is wrong.
        """
        store_id = split_uri(uri).store
        if store_id == "hdfs://":
            raise SourceConfigError(f"{uri}: the NameNode is missing; expected hdfs://host:port/path")
        try:
            import hdfs_native  # noqa: F401 - an optional extra
        except ImportError as error:
            raise SourceConfigError(f"{uri}: hdfs:// needs hdfs-native: pip install 'forebay[hdfs]'") from error
        return cls(store_id, parse_options(uri, options))

    def __reduce__(self) -> tuple[object, ...]:
        return HdfsStore, (self.id, self._options)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Walk the directory; keys come byte-sorted. See `ListObjects.list`."""
        for batch in scan(self, prefix, concurrency=1):
            yield from stats_of(batch)

    def scan_directory(self, directory: str) -> DirectoryPage:
        """See `ListDirectories.scan_directory`; one request per 1000 entries (`dfs.ls.limit` of the NameNode)."""
        path = "/" + directory.rstrip("/")

        def collect(call: Call[list[FileStatus]]) -> list[FileStatus]:
            found = []
            for status in self._client().list_status(path):
                with call.step():
                    found.append(status)
            return found

        found = self._call(directory, collect, what="directory")
        if len(found) == 1 and found[0].path == path and not found[0].isdir:
            raise SourceNotFoundError(self._uri(directory), "directory")
        files, directories = [], []
        for status in found:
            name = status.path.rpartition("/")[2]
            if status.isdir:
                directories.append(f"{directory}{name}/")
            elif not name.startswith(_TEMPORARY):
                files.append(_stat_of(directory + name, status))
        files.sort(key=lambda stat: stat.key.encode())
        return DirectoryPage(batch_of(files), sorted(directories, key=str.encode))

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        found = self._call(key, lambda _: self._client().get_file_info(_path(key)))
        if found.isdir:
            raise SourceNotFoundError(self._uri(key), "file")
        return _stat_of(key, found)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        """Read a range; the file is compared with the version when opened and after. See `ReadRange.read`."""

        def receive(call: Call[bytes], reader: FileReader) -> bytes:
            if length <= _WRITE_BYTES:
                return reader.read_range(start, length)
            parts = []
            for part in reader.read_range_stream(start, length):
                with call.step():
                    parts.append(part)
            return b"".join(parts)

        return self._pinned(key, version, range(start, start + length), receive)

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        target = buffer.cast("B")
        done = 0

        def receive(call: Call[None], reader: FileReader) -> None:
            nonlocal done
            for part in reader.read_range_stream(start, len(target)):
                with call.step():
                    target[done : done + len(part)] = part
                    done += len(part)

        try:
            self._pinned(key, version, range(start, start + len(target)), receive)
        except SourceUnavailableError as error:
            error.received = done  # the check after the rest of the read answers for these bytes, too
            raise

    def put(self, key: str, data: Buffer) -> None:
        """Write a temporary file and rename it over the key, which is atomic. See `WriteObject.put`.

        As durable as HDFS makes a closed file: all DataNodes of the pipeline have it, and `dfs.datanode.synconclose`
        decides whether it is on their disks.
        """
        from hdfs_native import WriteOptions

        body = memoryview(data).cast("B")
        path = _path(key)
        temporary = f"{path[: path.rfind('/')]}/{_TEMPORARY}{secrets.token_hex(8)}"

        def write(call: Call[None]) -> None:
            client = self._client()
            writer = client.create(temporary, WriteOptions(create_parent=True))
            for offset in range(0, len(body), _WRITE_BYTES):
                call.beat()
                writer.write(body[offset : offset + _WRITE_BYTES])
            writer.close()
            call.beat()  # a caller that has given up finds the old content
            client.rename(temporary, path, overwrite=True)

        try:
            self._call(key, write)
        except SourceError:
            with suppress(SourceError):
                self._call(key, lambda _: self._client().delete(temporary))
            raise

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        self._call(key, lambda _: self._client().delete(_path(key)))

    def _pinned(
        self, key: str, version: Version | None, wanted: range, receive: Callable[[Call[T], FileReader], T]
    ) -> T:
        """Read from a file that is at `version` when it is opened and after."""
        pinned = None if version is None or version.startswith("oid:") else version
        connection, path = self._connection(), _path(key)

        def act(call: Call[T]) -> T:
            reader = connection.client.read(path)
            call.beat()
            self._check_length(key, pinned, reader, wanted)
            if pinned is None:
                return receive(call, reader)
            status = connection.watch.beside(lambda _: connection.client.get_file_info(path))
            received = receive(call, reader)
            self._check(key, pinned, status())
            return received

        try:
            return self._call(key, act)
        except SourceNotFoundError:
            if version is None:
                raise
            raise SourceChangedError(self._uri(key), expected=version, found="gone") from None

    def _check_length(self, key: str, version: Version | None, reader: FileReader, wanted: range) -> None:
        if version is not None and version.rpartition(":")[2] != str(len(reader)):
            self._check(key, version, self._client().get_file_info(_path(key)))
        if wanted.stop > len(reader):  # hdfs-native would panic
            raise SourceUnavailableError(
                f"{self._uri(key)}: asked for {len(wanted)} bytes at {wanted.start}, the file ended at {len(reader)}",
                retryable=False,
            )

    def _check(self, key: str, version: str, status: FileStatus) -> None:
        found = _version_of(status)
        if found != version:
            raise SourceChangedError(self._uri(key), expected=version, found=found)

    def _call(self, key: str, function: Callable[[Call[T]], T], *, what: str = "object") -> T:
        with translated(self._uri(key), what):
            return self._connection().watch.call(function)

    def _client(self) -> Client:
        return self._connection().client

    def _connection(self) -> _Connection:
        pid = os.getpid()
        found = self._connections.get(pid)
        if found is None:
            found = self._connections.setdefault(pid, self._connect())
        return found

    def _connect(self) -> _Connection:
        from hdfs_native import Client

        wait_for_inherited_connections()
        options = self._options
        client = Client(
            self.id,
            options.properties,
            options.config_dir,
            kerberos_principal=options.kerberos_principal,
            kerberos_keytab=options.kerberos_keytab,
            kerberos_cache=options.kerberos_cache,
        )
        return _Connection(client, Watch(threads=_THREADS, seconds=options.timeout_seconds))

    def _uri(self, key: str) -> str:
        return join_uri(self.id, key)


def _path(key: str) -> str:
    return "/" + key


def _stat_of(key: str, status: FileStatus) -> ObjectStat:
    return ObjectStat(key, status.length, _version_of(status), status.modification_time * 1_000_000)


def _version_of(status: FileStatus) -> Version:
    return Version(f"stat:{status.modification_time * 1_000_000}:{status.length}")
