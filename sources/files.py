"""Directories: local disks and mounted NFS."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat as modes
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Buffer

_log = logging.getLogger(__name__)
_Paths = list[str]

STORE_ID = StoreId("file://")
_TEMPORARY = ".forebay-tmp-"
_LOCK_SECONDS = 30  # a swap takes milliseconds
_LEFT_OUT = (
    "%d symbolic links below %s lead to directories, out of it or nowhere and are not listed; the first is %s; "
    "give what they lead to a mount of its own"
)


class FileStore:
    """Files below one root directory; keys are absolute paths without the first slash.

    The version of a file is its mtime and size. Whatever a key says, nothing outside the root is read or written,
    symbolic links included.

    Args:
        root: The directory; it must exist for listing and is created by the first write.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = os.path.realpath(root)
        self.id = STORE_ID

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> FileStore:
        """Open `file:///absolute/path` (no options)."""
        if options:
            raise SourceConfigError(f"{uri}: a file:// source takes no options, found: {', '.join(sorted(options))}")
        return cls("/" + split_uri(uri).key)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Walk the directory; keys come byte-sorted. See `ListObjects.list`."""
        directory = prefix[: prefix.rfind("/") + 1]
        top = self._inside(directory)
        if not os.path.isdir(top):
            raise SourceNotFoundError(f"file://{top}", "directory")
        left_out: _Paths = []
        cut = len(top.rstrip("/")) + 1
        for entry in self._walk(top, left_out):
            key = directory + entry.path[cut:]  # as was asked for: `top` is where symbolic links on the way lead to
            if key.startswith(prefix):
                with suppress(SourceNotFoundError), _translated(key):  # deleted while we walk: not in the listing
                    yield _stat_of(key, entry.stat())
        if left_out:
            _log.warning(_LEFT_OUT, len(left_out), f"file:///{directory}", left_out[0])

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        with _translated(key):
            found = os.stat(self._inside(key))
        if not modes.S_ISREG(found.st_mode):
            raise SourceNotFoundError(f"file:///{key}", "file")
        return _stat_of(key, found)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> bytes:
        """Read a range; the file is compared with the version before and after. See `ReadRange.read`."""
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
                data = _pread_all(fd, start, length)
                _check_version(uri, fd, version)
        finally:
            os.close(fd)
        if len(data) != length:
            raise SourceUnavailableError(f"{uri}: asked for {length} bytes at {start}, the file ended at {len(data)}")
        return data

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

    def _inside(self, key: str) -> str:
        path = os.path.realpath("/" + key)
        if path != self._root and not path.startswith(self._root.rstrip("/") + "/"):
            raise SourceConfigError(f"file:///{key} lies outside of the source file://{self._root}")
        return path

    def _walk(self, top: str, left_out: _Paths) -> Iterator[os.DirEntry[str]]:
        """Yield the files below `top` in byte order of their full paths, on an explicit stack."""
        stack = [self._scan(top, left_out)]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif entry[1].is_dir(follow_symlinks=False):
                stack.append(self._scan(entry[1].path, left_out))
            else:
                yield entry[1]

    def _scan(self, directory: str, left_out: _Paths) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
        rows = []
        with _translated(directory[1:]), os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    rows.append((os.fsencode(entry.name) + b"/", entry))
                elif self._is_file(entry) and not entry.name.startswith(_TEMPORARY):
                    rows.append((os.fsencode(entry.name), entry))
                elif entry.is_symlink():
                    left_out.append(entry.path)
        return iter(sorted(rows, key=lambda row: row[0]))

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return entry.is_file()
        target = os.path.realpath(entry.path)
        return os.path.isfile(target) and target.startswith(self._root.rstrip("/") + "/")


def _stat_of(key: str, found: os.stat_result) -> ObjectStat:
    return ObjectStat(key, found.st_size, _stat_version(found), found.st_mtime_ns)


def _stat_version(found: os.stat_result) -> Version:
    return Version(f"stat:{found.st_mtime_ns}:{found.st_size}")


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


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    uri = f"file:///{key}"
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceNotFoundError(uri) from error
    except PermissionError as error:
        raise SourceAuthError(
            f"{uri}: permission denied; check the owner and mode of the file and its directories"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SourceFullError(f"{uri}: no space left on the device; free some and run the command again") from error
        if error.errno in (errno.EISDIR, errno.ENOTDIR):
            raise SourceNotFoundError(uri, "file") from error
        raise SourceUnavailableError(f"{uri}: {error.strerror or error}") from error
