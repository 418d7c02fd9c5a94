"""Directories: local disks and mounted NFS."""

from __future__ import annotations

import logging
import os
import stat as modes
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from blake3 import blake3

from sources.direct import write_direct
from sources.errors import (
    SourceChangedError,
    SourceConfigError,
    SourceNotFoundError,
    SourceUnavailableError,
    SwapLostError,
)
from sources.filewrites import TEMPORARY, NewFile, drop_unfinished, make_directory, replace_file, translated, write_all
from sources.locations import ObjectStat, StoreId, Version
from sources.locking import locked_file
from sources.stores import DirectoryPage, batch_of_rows, stats_of
from sources.uris import split_uri

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator, Mapping

    from typing_extensions import Buffer

_log = logging.getLogger(__name__)

STORE_ID = StoreId("file://")
_LOCK_SECONDS = 30  # a swap takes milliseconds
_LEFT_OUT = (
    "%d symbolic links in %s lead to directories, out of it or nowhere and are not listed; the first is %s; "
    "give what they lead to a mount of its own"
)


class FileStore:
    """Files below one root directory; keys are absolute paths without the first slash.

    The version of a file is its mtime, size, inode and ctime: what a write cannot leave as it was, even one that sets
    the mtime back. So a chmod counts as a change, too, and so does a copy of the tree. Whatever a key says, nothing
    outside the root is read or written, symbolic links included.

    Args:
        root: The directory; it must exist for listing and is created by the first write.
    """

    remote: ClassVar[bool] = False

    def __init__(self, root: Path | str) -> None:
        self._root = os.path.realpath(root)
        self._warned = False
        self._above: tuple[str | None, str] = None, ""
        self.id = STORE_ID

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> FileStore:
        """Open `file:///absolute/path` (no options)."""
        if options:
            raise SourceConfigError(f"{uri}: a file:// source takes no options, found: {', '.join(sorted(options))}")
        return cls("/" + split_uri(uri).key)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Walk the directory; keys come byte-sorted. See `ListObjects.list`."""
        from sources.listing import scan  # most who open a directory list nothing

        for batch in scan(self, prefix, concurrency=1):
            yield from stats_of(batch)

    def scan_directory(self, directory: str) -> DirectoryPage:
        """See `ListDirectories.scan_directory`.

        Symbolic links to files below the root are listed, all others are left out with a warning.
        """
        top = self._directory_inside(directory)
        files: builtins.list[tuple[str, int, str, int]] = []
        directories: builtins.list[str] = []
        left_out: builtins.list[str] = []
        with translated(directory, "directory"), os.scandir(top) as entries:
            for entry in entries:
                name = entry.name
                key = directory + name  # as was asked for: `top` is where symbolic links on the way lead to
                if entry.is_dir(follow_symlinks=False):
                    directories.append(key + "/")
                elif self._is_file(entry) and not name.startswith(TEMPORARY):
                    try:  # not `suppress`: this line runs a hundred thousand times per second
                        found = entry.stat()
                    except FileNotFoundError:  # deleted while we look: not in the listing
                        continue
                    files.append((key, found.st_size, _stat_version(found), found.st_mtime_ns))
                elif entry.is_symlink():
                    left_out.append(entry.path)
        if left_out:
            self._warn(directory, left_out)
        files.sort()  # by key: code points are in the order of their UTF-8
        directories.sort()
        return DirectoryPage(batch_of_rows(files), directories)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        with translated(key):
            found = os.stat(self._inside(key))
        if not modes.S_ISREG(found.st_mode):
            raise SourceNotFoundError(f"file:///{key}", "file")
        return _stat_of(key, found)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        """Read a range; the file is compared with the version before and after. See `ReadRange.read`."""
        with self._pinned(key, version) as fd:
            data = _pread_all(fd, start, length)
        if len(data) != length:
            raise _short(key, start, length, len(data))
        return data

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        done = 0
        with self._pinned(key, version) as fd:
            while done < len(buffer) and (got := os.preadv(fd, [buffer[done:]], start + done)):
                done += got
        if done != len(buffer):
            raise _short(key, start, len(buffer), done)

    def read_files(self, files: Iterable[tuple[str, Version, memoryview]]) -> None:
        """See `ReadFiles.read_files`. Of neighbours in one directory it is found once."""
        directories: dict[str, str] = {}
        for key, version, buffer in files:
            directory, _, name = key.rpartition("/")
            if directory not in directories:
                directories[directory] = self._directory_inside(directory)
            if not _read_plain(f"{directories[directory]}/{name}", version, buffer):
                self.read_into(key, start=0, buffer=buffer, version=version)

    def put(self, key: str, data: Buffer) -> None:
        """Write a temporary file, fsync, rename, fsync the directory. See `WriteObject.put`."""
        path = self._inside(key)
        with translated(key):
            make_directory(os.path.dirname(path))
            replace_file(path, data)

    def begin(self, directory: str, *, uncached: bool = False) -> NewFile:
        """See `BeginObject.begin`."""
        path = self._inside(directory)
        with translated(directory, "directory"):
            make_directory(path)
            return NewFile(path, self._inside, write=write_direct if uncached else write_all)

    def drop_unfinished(self, prefix: str, *, before_ns: int) -> int:
        """See `DropUnfinished.drop_unfinished`."""
        with translated(prefix, "directory"):
            return drop_unfinished(self._inside(prefix), before_ns)

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        with translated(key), suppress(FileNotFoundError):
            os.unlink(self._inside(key))

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """Read a file whole; the version is the hash of its bytes. See `SwapObject.fetch`."""
        with translated(key):
            data = Path(self._inside(key)).read_bytes()
        return data, _content_version(data)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """Compare and replace under a lock that the kernel frees with its process. See `SwapObject.swap`."""
        path = self._inside(key)
        with translated(key):
            make_directory(os.path.dirname(path))
            with locked_file(os.path.join(os.path.dirname(path), f"{TEMPORARY}lock"), seconds=_LOCK_SECONDS):
                try:
                    found: Version | None = _content_version(Path(path).read_bytes())
                except FileNotFoundError:
                    found = None
                if found != expect:
                    raise SwapLostError(f"file:///{key}", expected=expect)
                replace_file(path, data)
        return _content_version(data)

    @contextmanager
    def _pinned(self, key: str, version: Version | None) -> Iterator[int]:
        """Open a file that is at `version` now, and still is when the caller is done with it."""
        uri = f"file:///{key}"
        try:
            with translated(key):
                fd = os.open(self._inside(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
        except SourceNotFoundError:
            if version is None:
                raise
            raise SourceChangedError(uri, expected=version, found="gone") from None
        try:
            with translated(key):
                _check_version(uri, fd, version)
                yield fd
                _check_version(uri, fd, version)
        finally:
            os.close(fd)

    def _inside(self, key: str) -> str:
        path = os.path.realpath("/" + key)
        if path != self._root and not path.startswith(self._root.rstrip("/") + "/"):
            raise SourceConfigError(f"file:///{key} lies outside of the source file://{self._root}")
        return path

    def _directory_inside(self, directory: str) -> str:
        """Do what `_inside` does with one look at the disk for a sibling of the directory that was asked for before."""
        above, _, name = directory.rstrip("/").rpartition("/")
        known, place = self._above
        if known == above and name not in ("", ".", ".."):
            path = f"{place}/{name}"
            with suppress(OSError):
                if modes.S_ISDIR(os.lstat(path).st_mode):
                    return path
        path = self._inside(directory)
        if os.path.basename(path) == name and os.path.dirname(path) not in ("/", os.path.dirname(self._root)):
            self._above = above, os.path.dirname(path)
        return path

    def _warn(self, directory: str, left_out: builtins.list[str]) -> None:
        level = logging.DEBUG if self._warned else logging.WARNING  # a tree of links would warn for each directory
        _log.log(level, _LEFT_OUT, len(left_out), f"file:///{directory}", left_out[0])
        self._warned = True

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return entry.is_file(follow_symlinks=False)
        target = os.path.realpath(entry.path)
        return os.path.isfile(target) and target.startswith(self._root.rstrip("/") + "/")


def _stat_of(key: str, found: os.stat_result) -> ObjectStat:
    return ObjectStat(key, found.st_size, _stat_version(found), found.st_mtime_ns)


def _stat_version(found: os.stat_result) -> Version:
    return Version(f"stat:{found.st_mtime_ns}:{found.st_size}:{found.st_ino}:{found.st_ctime_ns}")


_PLAIN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


def _read_plain(path: str, version: Version, buffer: memoryview) -> bool:
    """Read a file that is no link, whole; False: look at it more closely, also for what is wrong with it.

    One look, after the read: at the version that was pinned then, nobody has written it since it was pinned.
    """
    try:
        fd = os.open(path, _PLAIN)
    except OSError:
        return False
    try:
        got = os.preadv(fd, (buffer,), 0)
        found = os.fstat(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return got == len(buffer) == found.st_size and version == _stat_version(found)


def _content_version(data: bytes) -> Version:
    return Version(f"oid:{blake3(data).hexdigest()}")


def _check_version(uri: str, fd: int, version: Version | None) -> None:
    if version is None or version.startswith("oid:"):
        return
    found = _stat_version(os.fstat(fd))
    if found != version:
        raise SourceChangedError(uri, expected=version, found=found)


def _pread_all(fd: int, start: int, length: int) -> bytes:
    data = os.pread(fd, length, start)
    if len(data) == length or not data:
        return data
    parts = [data]  # a read on NFS or over 2 GiB may return less than asked
    got = len(data)
    while got < length and (data := os.pread(fd, length - got, start + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def _short(key: str, start: int, length: int, got: int) -> SourceUnavailableError:
    text = f"file:///{key}: asked for {length} bytes at {start}, the file ended after {got}"
    return SourceUnavailableError(text, received=got, retryable=False)
