"""Files that are written durably: whole under a temporary name, flushed, then renamed."""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sources.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

TEMPORARY = ".forebay-tmp-"
"""How the names of files begin that are no objects: not published yet, or left by a process that was killed."""


def write_all(fd: int, data: Buffer) -> None:
    """Write bytes at the file's position."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(fd, rest) :]


_UNFINISHED = re.compile(re.escape(TEMPORARY) + "[0-9a-f]{16}")


class NewFile:
    """A file that gets its name, and is seen, when it is complete. See `sources.stores.NewObject`.

    Args:
        directory: Where it lies meanwhile; on the file system of its place.
        place_of: Returns the path of a key.
        write: Appends bytes to an open file.
    """

    def __init__(
        self, directory: str, place_of: Callable[[str], str], *, write: Callable[[int, Buffer], None] = write_all
    ) -> None:
        self._temporary = os.path.join(directory, f"{TEMPORARY}{os.urandom(8).hex()}")
        self._place_of = place_of
        self._write = write
        self._is_published = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self._temporary, flags, 0o666)

    def write(self, data: Buffer) -> None:
        """See `NewObject.write`."""
        with translated(self._temporary[1:]):
            self._write(self._fd, data)

    def publish(self, key: str) -> None:
        """See `NewObject.publish`."""
        path = self._place_of(key)
        with translated(key):
            os.fsync(self._fd)
            make_directory(os.path.dirname(path))
            os.rename(self._temporary, path)
            self._is_published = True
            sync_directory(os.path.dirname(path))

    def close(self) -> None:
        """See `NewObject.close`."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)  # NFS tells only now that a write failed
        finally:
            if not self._is_published:
                with suppress(FileNotFoundError):
                    os.unlink(self._temporary)


def replace_file(path: str, data: Buffer) -> None:
    """Write a file as a whole, durably: a temporary one, flushed, renamed."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, f"{TEMPORARY}{os.urandom(8).hex()}")
    try:
        with open(temporary, "xb", buffering=0) as file:
            write_all(file.fileno(), data)
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def drop_unfinished(top: str, before_ns: int) -> int:
    """Delete temporary files below a directory whose last write was before a time; return how many. Locks stay."""
    count = 0
    for directory, _, names in os.walk(top):
        for name in names:
            if _UNFINISHED.fullmatch(name):
                path = os.path.join(directory, name)
                with suppress(FileNotFoundError):  # its writer, or another run, was faster
                    if os.lstat(path).st_mtime_ns < before_ns:
                        os.unlink(path)
                        count += 1
    return count


def make_directory(path: str) -> None:
    """Make a directory and those above it, durably: a synced file is lost with the name of its directory."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_directory(parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    sync_directory(parent)


def sync_directory(directory: str) -> None:
    """Let the names in a directory survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def translated(key: str, what: str = "object") -> Iterator[None]:
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
