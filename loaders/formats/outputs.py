"""Where a writer puts its files: a directory, or a prefix of a store. A file is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Protocol

from loaders.errors import LoaderError, ShardsExistError
from loaders.formats.reading import mount_kind
from loaders.formats.shards import Finder, beside, local_path
from sources import (
    SourceAuthError,
    SourceError,
    SourceFullError,
    SourceNotFoundError,
    SourceUnavailableError,
    join_uri,
    split_uri,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_RESERVING = ("btrfs", "ext4", "tmpfs", "xfs")  # elsewhere the C library may write zeros instead
_TEMPORARY = ".forebay-tmp-"  # what `sources.FileStore` leaves out of its listings, too


class Output(Protocol):
    """Takes the files of one writer.

    Attributes:
        place: The directory or URI.
        options: Of its store.
        reserves: Whether room for a temporary file can be reserved without writing it.
    """

    place: str
    options: Mapping[str, object] | None
    reserves: bool

    def names(self) -> list[str]:
        """Return the names of the files that are there, sorted."""
        ...

    def create(self) -> IO[bytes]:
        """Return an unbuffered temporary file, which `publish` gives its name, and closing it without that deletes."""
        ...

    def publish(self, file: IO[bytes], name: str) -> None:
        """Make a temporary file durable, give it its name, and close it."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a small file, durably once `sync` was called; what has its name is replaced."""
        ...

    def sync(self) -> None:
        """Make the names of all files durable."""
        ...

    def close(self) -> None:
        """Delete what was not published, and let other writers in."""
        ...


def open_output(place: str, prefix: str, options: Mapping[str, object] | None) -> Output:
    """Return the output for a path or URI.

    Args:
        place: A local directory, which is made, or a URI of a store.
        prefix: What the names of this writer begin with: two writers of one prefix exclude each other where they can.
        options: For the store.

    Raises:
        ShardsExistError: If another writer is at work there.
    """
    path = local_path(place)
    return StoreOutput(place, options) if path is None else DirectoryOutput(path, prefix)


class DirectoryOutput:
    """A local directory; holds a lock that the kernel frees with its process."""

    def __init__(self, directory: str, prefix: str) -> None:
        self.place = directory
        self.options: Mapping[str, object] | None = None
        with disk_errors(directory):
            os.makedirs(directory, exist_ok=True)
        self.reserves = mount_kind(directory) in _RESERVING
        self._mark = f"{_TEMPORARY}{prefix}"
        self._lock_path = os.path.join(directory, f"{self._mark}lock")
        with disk_errors(directory):
            self._lock = self._locked()
        self._temporary: dict[int, tuple[IO[bytes], str]] = {}
        self._created = 0
        self._sweep()

    def _locked(self) -> int:
        while True:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(fd)
                text = f"{self.place}: another writer is at work there; wait for it, or give this one another prefix"
                raise ShardsExistError(text, uri=self.place) from error
            with suppress(FileNotFoundError):
                if os.stat(self._lock_path).st_ino == os.fstat(fd).st_ino:
                    return fd
            os.close(fd)  # its holder deleted it between our two looks

    def _sweep(self) -> None:
        """Delete what a writer that was killed left: nobody else uses these names while we hold the lock."""
        for name in os.listdir(self.place):
            if name.startswith(self._mark) and name.endswith(".part"):
                os.unlink(os.path.join(self.place, name))

    def names(self) -> list[str]:
        """See `Output.names`."""
        return sorted(name for name in os.listdir(self.place) if not name.startswith(_TEMPORARY))

    def create(self) -> IO[bytes]:
        """See `Output.create`."""
        self._created += 1
        path = os.path.join(self.place, f"{self._mark}{self._created}.part")
        with disk_errors(self.place):
            file = open(path, "xb", buffering=0)  # noqa: SIM115 - until it is published
        self._temporary[file.fileno()] = file, path
        return file

    def publish(self, file: IO[bytes], name: str) -> None:
        """See `Output.publish`."""
        number = file.fileno()
        target = os.path.join(self.place, name)
        with disk_errors(target):
            os.fsync(number)
            _name_new(self._temporary[number][1], target)
            del self._temporary[number]
            file.close()
        self.sync()

    def put(self, name: str, data: bytes) -> None:
        """See `Output.put`."""
        path = os.path.join(self.place, f"{self._mark}{name}.part")
        target = os.path.join(self.place, name)
        with disk_errors(target):
            try:
                with open(path, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(path, target)
            except OSError:
                with suppress(OSError):
                    os.unlink(path)
                raise

    def sync(self) -> None:
        """See `Output.sync`."""
        with disk_errors(self.place):
            fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """See `Output.close`."""
        if self._lock < 0:
            return
        for file, path in self._temporary.values():
            file.close()
            with suppress(FileNotFoundError):
                os.unlink(path)
        with suppress(FileNotFoundError):
            os.unlink(self._lock_path)
        os.close(self._lock)
        self._lock = -1


class StoreOutput:
    """A prefix of a store: a file is gathered on the local disk and written whole."""

    def __init__(self, place: str, options: Mapping[str, object] | None) -> None:
        self.place = place.rstrip("/")
        self.options = options
        self.reserves = False
        self._store = Finder(options).store_of(place)

    def names(self) -> list[str]:
        """See `Output.names`; what lies in directories below is not named."""
        _, _, prefix = split_uri(self.place + "/")
        try:
            keys = [stat.key[len(prefix) :] for stat in self._store.list(prefix)]
        except SourceNotFoundError as error:
            if error.what == "bucket":
                raise
            keys = []  # a directory that the first write makes
        return sorted(key for key in keys if "/" not in key)

    def create(self) -> IO[bytes]:
        """See `Output.create`."""
        with disk_errors(tempfile.gettempdir()):
            return tempfile.TemporaryFile(prefix="forebay-shard-", buffering=0)

    def publish(self, file: IO[bytes], name: str) -> None:
        """See `Output.publish`."""
        with file:
            # Not closed by hand: a write that Ctrl-C broke off may still hold it, and closing it then is an error.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._check_absent(name)
            self._store.put(self._key(name), content)

    def _check_absent(self, name: str) -> None:
        """Notice another writer: there is no lock, and a conditional write could not be tried again when it fails."""
        try:
            self._store.stat(self._key(name))
        except SourceNotFoundError:
            return
        uri = join_uri(self.place, name)
        text = f"{uri} appeared while it was written; nothing was replaced: is another writer at work there?"
        raise ShardsExistError(text, uri=uri)

    def put(self, name: str, data: bytes) -> None:
        """See `Output.put`."""
        self._store.put(self._key(name), data)

    def sync(self) -> None:
        """See `Output.sync`: a store is durable by itself."""

    def _key(self, name: str) -> str:
        return split_uri(join_uri(self.place, name)).key

    def close(self) -> None:
        """See `Output.close`."""


def place_of(output: Output, name: str) -> str:
    """Return the path or URI of a file of an output."""
    return beside(output.place, name)


def _name_new(temporary: str, target: str) -> None:
    """Give a file a name that nothing has: the lock keeps other writers away, but not everybody.

    Raises:
        ShardsExistError: If something has it; it stays as it is.
    """
    try:
        try:
            os.link(temporary, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            if os.path.lexists(target):  # a file system without hard links: looked at, then named
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from error
            os.rename(temporary, target)
            return
    except FileExistsError as error:
        raise ShardsExistError(f"{target} appeared while it was written; nothing was replaced", uri=target) from error
    os.unlink(temporary)


@contextmanager
def disk_errors(place: str) -> Iterator[None]:
    """Turn what a disk says while a shard is written into our errors.

    Args:
        place: What is written, for the message.

    Raises:
        SourceFullError: If there is no room.
        SourceAuthError: If it may not be written.
        SourceUnavailableError: If the disk fails.
    """
    try:
        yield
    except (LoaderError, SourceError):  # some of them are an OSError, too
        raise
    except PermissionError as error:
        raise SourceAuthError(f"{place}: permission denied; check the owner and mode of the directory") from error
    except OSError as error:
        what = f"{place}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise SourceFullError(f"{what}; free some space, and write with append=True to go on") from error
        raise SourceUnavailableError(
            f"{what}; shards that have their names are whole: check the disk, and write with append=True to go on"
        ) from error


def write_all(fd: int, parts: list[bytes]) -> None:
    """Write parts, at most IOV_MAX (1024) of them, one after the other."""
    written = os.writev(fd, parts)
    left = sum(map(len, parts)) - written
    if not left:
        return
    rest = memoryview(b"".join(parts))[written:]
    while rest:
        rest = rest[os.write(fd, rest) :]
