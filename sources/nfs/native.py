"""The engine over nfs-rs: NFSv3 in a wheel, without a C library."""

from __future__ import annotations

import errno
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from sources.forking import keep_in_children
from sources.nfs.engines import Attributes, Kind, MountRefusedError

try:
    from nfs_rs import Client, FileType, NfsMountError, list_exports
except ImportError:  # an optional extra
    _INSTALLED = False
else:
    _INSTALLED = True

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nfs_rs import FileInfo

    from sources.locations import Version
    from sources.nfs.options import NfsOptions

_CONNECT_SECONDS = 10.0
_UNSAYABLE = re.compile(r"[?#%\\]")  # nfs-rs takes a URL and does not decode it


class NfsRsEngine:
    """One connection, which all threads share: nfs-rs sends their requests one behind the other without waiting.

    Args:
        options: Where and who.
        path: What to mount: an export, or a directory in it.

    Raises:
        MountRefusedError: If the server does not mount this path.
    """

    def __init__(self, options: NfsOptions, path: str) -> None:
        try:
            self._client = Client.connect(f"nfs://{options.host}{path}", **_arguments(options), versions=["3"])
        except NfsMountError as error:
            raise MountRefusedError(errno.EACCES if "denied" in str(error) else errno.EIO, str(error)) from error
        keep_in_children(self)

    def attributes(self, path: str) -> Attributes:
        """See `Engine`."""
        return _attributes(self._client.stat(path))

    def scan(self, path: str) -> Iterator[tuple[str, Attributes]]:
        """See `Engine`; READDIRPLUS, so it costs no request for each file."""
        for entry in self._client.scandir(path):
            yield entry.name, _attributes(entry.info)

    def read_into(
        self, path: str, start: int, target: memoryview, wanted: Version | None
    ) -> tuple[int, tuple[Attributes]]:
        """See `Engine`. nfs-rs asks for 8 parts at a time, and does not tell the attributes that come with them."""
        file = self._client.open(path, "rb")
        try:
            got = file.readinto_at(target, start)
        finally:
            file.close()  # costs no request: NFSv3 knows no open files
        return got, (_attributes(self._client.stat(path)),)

    def write(self, path: str, data: memoryview) -> None:
        """See `Engine`."""
        with self._client.open(path, "wb") as file:
            if data:
                file.write(data)
        self._client.chmod(path, 0o644)  # nfs-rs creates with 0666, and knows no umask

    def make_directories(self, path: str) -> None:
        """See `Engine`."""
        self._client.mkdir(path, 0o755, parents=True, exist_ok=True)

    def remove_directory(self, path: str) -> None:
        """See `Engine`."""
        self._client.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        """See `Engine`."""
        self._client.rename(source, target)

    def remove(self, path: str) -> None:
        """See `Engine`."""
        self._client.remove(path)


def is_installed() -> bool:
    """Say whether nfs-rs is there."""
    return _INSTALLED


def connect(options: NfsOptions, path: str) -> NfsRsEngine:
    """Mount a path. Raises as `NfsRsEngine` does."""
    return NfsRsEngine(options, path)


def can_mount(path: str) -> bool:
    """Say whether nfs-rs can be told to mount this path."""
    return not _UNSAYABLE.search(path)


def exports(options: NfsOptions) -> list[str]:
    """Ask the server what it exports."""
    return [entry.path for entry in list_exports(options.host, **_arguments(options))]


def _arguments(options: NfsOptions) -> dict[str, Any]:
    return {
        "uid": options.uid,
        "gid": options.gid,
        "nfs_port": options.nfsport,
        "mount_port": options.mountport,
        "noresvport": options.noresvport,
        "connect_timeout": min(_CONNECT_SECONDS, options.timeout_seconds),
        "operation_timeout": options.timeout_seconds,
    }


@cache
def _kinds() -> dict[FileType, Kind]:
    return {FileType.FILE: "file", FileType.DIRECTORY: "directory", FileType.SYMLINK: "symlink"}


def _attributes(info: FileInfo) -> Attributes:
    return Attributes(_kinds().get(info.type, "other"), info.size, info.mtime, info.ctime, info.fileid)
