"""What a mount wants to know of the files that it shows. Who has names and versions implements it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sources import Location


class Place(NamedTuple):
    """Which file or directory: a number instead of a path, so that a server needs no table of inodes.

    Files are numbered in the byte order of their paths.

    Attributes:
        row: Number of the file; of a directory, the number of the first file below it.
        level: 0 for a file; for a directory, how many components its path has, and one more: 1 is the root.
    """

    row: int
    level: int


ROOT = Place(0, 1)


class Found(NamedTuple):
    """What `stat` tells.

    Attributes:
        place: Which file or directory.
        size: Bytes; 0 for a directory.
        mtime_ns: Nanoseconds since 1970.
    """

    place: Place
    size: int
    mtime_ns: int


class FileAt(NamedTuple):
    """One file, with its bytes.

    Attributes:
        path: In the dataset, without a first slash.
        location: Where its bytes are.
        digest: BLAKE3 of its bytes, if the version knows it.
    """

    path: str
    location: Location
    digest: bytes | None


class Children(NamedTuple):
    """Some direct children of a directory, in the byte order of the paths below them.

    Attributes:
        names: Of each, UTF-8.
        rows: As in `Place`.
        levels: As in `Place`.
        sizes: As in `Found`.
        mtimes_ns: As in `Found`.
        next_row: Where the next call begins; None when these are the last.
    """

    names: list[bytes]
    rows: npt.NDArray[np.int64]
    levels: npt.NDArray[np.uint16]
    sizes: npt.NDArray[np.int64]
    mtimes_ns: npt.NDArray[np.int64]
    next_row: int | None


class MountView(Protocol):
    """The files of one version, or of what lies below one of its directories; it never changes.

    For one thread at a time unless a method says otherwise. All raise OSError, with a message for the log, if the
    version cannot be read.

    Attributes:
        commit: Its id in hex.
        rows: How many files.
        size: Their bytes.
    """

    commit: str
    rows: int
    size: int

    def find(self, directory: Place, name: bytes) -> Found | None:
        """Look a name up in a directory; None if there is none, or if it is not UTF-8."""
        ...

    def stat(self, place: Place) -> Found:
        """Describe a file or directory that was found before."""
        ...

    def children(self, directory: Place, row: int) -> Children:
        """List a directory, some thousand children at a time.

        Args:
            directory: Which.
            row: Leave out children that lie before this row; the directory's own for all.
        """
        ...

    def file(self, row: int) -> FileAt:
        """Return one file; for any number of threads."""
        ...

    def files(self, row: int, count: int) -> list[FileAt]:
        """Return some neighbours of a file, `row` being the first, fewer at the end; for any number of threads."""
        ...

    def largest(self, row: int, count: int) -> int:
        """Return the size of the largest of some neighbours, as `files` has them; for any number of threads."""
        ...
