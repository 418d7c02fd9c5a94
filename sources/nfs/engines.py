"""What a client library has to do for an NFS source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from sources.locations import Version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

Kind = Literal["file", "directory", "symlink", "other"]


class Attributes(NamedTuple):
    """What the server tells about a file (`fattr3` of RFC 1813).

    Attributes:
        kind: What it is.
        size: Bytes.
        mtime_ns: Last change of the content, nanoseconds since 1970.
        ctime_ns: Last change of anything, which nobody can set.
        fileid: Its inode.
    """

    kind: Kind
    size: int
    mtime_ns: int
    ctime_ns: int
    fileid: int

    @property
    def version(self) -> Version:
        """Identity of the content."""
        return Version(f"stat:{self.mtime_ns}:{self.size}:{self.fileid}:{self.ctime_ns}")


class MountRefusedError(OSError):
    """The server answers, and does not mount this path."""


class Engine(Protocol):
    """A mounted export. Paths are relative to it, "" is its top. Safe in threads.

    Raises OSError or its library's errors. Symbolic links are never followed, and every call ends in time.
    """

    def attributes(self, path: str) -> Attributes:
        """Stat."""
        ...

    def scan(self, path: str) -> Iterator[tuple[str, Attributes]]:
        """Yield names and attributes of what lies in a directory, without "." and ".."."""
        ...

    def read_into(
        self, path: str, start: int, target: memoryview, wanted: Version | None
    ) -> tuple[int, Collection[Attributes]]:
        """Fill `target` from `start` on; return how much there was before the end, and attributes.

        What was read is of a version if all these attributes are: there is at least one, and none is older than what it
        tells about. Only what turns out to be `wanted` may come from where the path led to some seconds ago.
        """
        ...

    def write(self, path: str, data: memoryview) -> None:
        """Create or truncate a file, mode 0644, and return when the server has `data` on its disk."""
        ...

    def make_directories(self, path: str) -> None:
        """Make a directory and those above it that are missing."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename, atomically replacing a file that is there."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...
