"""Directories: local disks and mounted NFS."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat as modes
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from blake3 import blake3

from sources.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
    SwapLostError,
)
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
_TEMPORARY = ".forebay-tmp-"
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
        with _translated(directory, "directory"), os.scandir(top) as entries:
            for entry in entries:
                name = entry.name
                key = directory + name  # as was asked for: `top` is where symbolic links on the way lead to
                if entry.is_dir(follow_symlinks=False):
                    directories.append(key + "/")
                elif self._is_file(entry) and not name.startswith(_TEMPORARY):
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
        with _translated(key):
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
                directories[directory] = self._inside(directory)
            if not _read_plain(f"{directories[directory]}/{name}", version, buffer):
                self.read_into(key, start=0, buffer=buffer, version=version)

    def put(self, key: str, data: Buffer) -> None:
        """Write a temporary file, fsync, rename, fsync the directory. See `WriteObject.put`."""
        path = self._inside(key)
        with _translated(key):
            _make_directory(os.path.dirname(path))
            _replace(path, data)

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        with _translated(key), suppress(FileNotFoundError):
            os.unlink(self._inside(key))

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """Read a file whole; the version is the hash of its bytes. See `SwapObject.fetch`."""
        with _translated(key):
            data = Path(self._inside(key)).read_bytes()
        return data, _content_version(data)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """Compare and replace under a lock that the kernel frees with its process. See `SwapObject.swap`."""
        path = self._inside(key)
        with _translated(key):
            _make_directory(os.path.dirname(path))
            with locked_file(os.path.join(os.path.dirname(path), f"{_TEMPORARY}lock"), seconds=_LOCK_SECONDS):
                try:
                    found: Version | None = _content_version(Path(path).read_bytes())
                except FileNotFoundError:
                    found = None
                if found != expect:
                    raise SwapLostError(f"file:///{key}", expected=expect)
                _replace(path, data)
        return _content_version(data)

    @contextmanager
    def _pinned(self, key: str, version: Version | None) -> Iterator[int]:
        """Open a file that is at `version` now, and still is when the caller is done with it."""
        uri = f"file:///{key}"
        try:
            with _translated(key):
                fd = os.open(self._inside(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait
        except SourceNotFoundError:
            if version is None:
                raise
            raise SourceChangedError(uri, expected=version, found="gone") from None
        try:
            with _translated(key):
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


def _read_plain(path: str, version: Version, buffer: memoryview) -> bool:
    """Read a file that is no link, whole; False: look at it more closely, also for what is wrong with it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        before = os.fstat(fd)
        if version != _stat_version(before) or before.st_size != len(buffer):
            return False
        got = os.preadv(fd, [buffer], 0)
        after = os.fstat(fd)
        return (
            got == len(buffer)
            and after.st_mtime_ns == before.st_mtime_ns
            and after.st_ctime_ns == before.st_ctime_ns
            and after.st_size == before.st_size
        )
    except OSError:
        return False
    finally:
        os.close(fd)


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


def _replace(path: str, data: Buffer) -> None:
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f"{_TEMPORARY}{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def _make_directory(path: str) -> None:
    """Make a directory and those above it, durably: a synced file is lost with the name of its directory."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_directory(parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    _sync_directory(parent)


def _sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _short(key: str, start: int, length: int, got: int) -> SourceUnavailableError:
    text = f"file:///{key}: asked for {length} bytes at {start}, the file ended after {got}"
    return SourceUnavailableError(text, received=got, retryable=False)


@contextmanager
def _translated(key: str, what: str = "object") -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    uri = f"file:///{key}"
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceNotFoundError(uri, what) from error
    except PermissionError as error:
        raise SourceAuthError(
            f"{uri}: permission denied; check the owner and mode of the file and its directories"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SourceFullError(f"{uri}: no space left on the device; free some and run the command again") from error
        if error.errno == errno.ESTALE:  # NFS: replaced or deleted at the server while it was open
            raise SourceChangedError(uri, expected="the file that was opened", found="gone") from error
        if error.errno in (errno.EISDIR, errno.ENOTDIR):
            raise SourceNotFoundError(uri, "file") from error
        raise SourceUnavailableError(f"{uri}: {error.strerror or error}") from error
