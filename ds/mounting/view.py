"""A version's files by their numbers, as a mount asks for them; see `cache_runtime.mount.view.MountView`."""

from __future__ import annotations

import errno
import functools
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from cache_runtime.mount.view import ROOT, Children, FileAt, Found, Place
from ds.mounting.children import NamedRows, named_rows
from sources import SourceError
from versioning import PathNotFoundError, VersioningError, locations
from versioning.positions import UNKNOWN_TIME

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from versioning import CommitId, RepositoryRoot
    from versioning.positions import LeafRows, Positions

_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")
_Number = TypeVar("_Number", np.bool_, np.int64)

_ENOUGH_CHILDREN = 2048
_AFTER_SLASH = b"0"  # the byte that comes after it: what lies behind all paths of a directory


class Shown(NamedTuple):
    """Which version a mount shows, and what of it.

    Attributes:
        commit: Its id.
        root: Where its repository lies.
        mtime_ns: When it was committed: the time of directories and of files that have none, nanoseconds since 1970.
        directory: What of it; "" is all.
    """

    commit: CommitId
    root: RepositoryRoot
    mtime_ns: int
    directory: str = ""


def _answering(
    method: Callable[Concatenate[MountedVersion, _Given], _Returned],
) -> Callable[Concatenate[MountedVersion, _Given], _Returned]:
    """Let a method raise OSError where the version cannot be read: that is what a kernel understands."""

    @functools.wraps(method)
    def answer(self: MountedVersion, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Returned:
        try:
            return method(self, *args, **kwargs)
        except (VersioningError, SourceError) as error:
            raise OSError(errno.EIO, f"commit {self.commit[:12]}: {error}") from error
        except IndexError as error:
            raise OSError(errno.ESTALE, f"commit {self.commit[:12]} has no such file: {error}") from error

    return answer


class MountedVersion:
    """The files of one version, or of what lies below one of its directories; see `MountView`.

    Where a path is a file and a directory of others, as older versions of Forebay could make it, the file is shown.

    Args:
        positions: The version's tree.
        shown: What it is.

    Raises:
        PathNotFoundError: If nothing lies below the directory.
        NotADirectoryError: If it is a file.
    """

    def __init__(self, positions: Positions, shown: Shown) -> None:
        self.commit: str = shown.commit
        self._positions = positions
        self._root = shown.root
        self._mtime_ns = shown.mtime_ns
        self._base = f"{shown.directory}/".encode() if shown.directory else b""
        rows = positions.rows_below(self._base)
        if shown.directory and not rows:
            if _has_file(positions, shown.directory.encode()):
                raise NotADirectoryError(errno.ENOTDIR, "it is a file; a mount shows a directory", shown.directory)
            raise PathNotFoundError(shown.directory)
        self._first = rows.start
        self.rows = len(rows)
        self.size = positions.bytes_of(rows)
        self._last_prefix = (ROOT, self._base)

    @_answering
    def find(self, directory: Place, name: bytes) -> Found | None:
        """Look a name up in a directory; None if there is none, or if it is not UTF-8."""
        key = self._prefix(directory) + name
        positions = self._positions
        row = positions.first_not_below(key)
        if row >= positions.rows:
            return None
        leaf = positions.leaf(row)
        found = leaf.key(row)
        if found == key:
            return self._found_file(leaf, row)
        below = key + b"/"
        if found < below:  # a neighbour, such as `a-b` beside `a/`
            row = positions.first_not_below(below)
            if row >= positions.rows:
                return None
            found = positions.leaf(row).key(row)
        if not found.startswith(below):
            return None
        return Found(Place(row - self._first, directory.level + 1), 0, self._mtime_ns)

    @_answering
    def stat(self, place: Place) -> Found:
        """Describe a file or directory that was found before."""
        if place.level:
            return Found(place, 0, self._mtime_ns)
        row = self._tree_row(place.row)
        return self._found_file(self._positions.leaf(row), row)

    @_answering
    def children(self, directory: Place, row: int) -> Children:
        """List a directory, some thousand children at a time.

        Args:
            directory: Which.
            row: Leave out children that lie before this row; the directory's own for all.
        """
        prefix, positions = self._prefix(directory), self._positions
        stop = positions.rows_below(prefix).stop
        first = directory.row + self._first
        at = self._behind_a_child(prefix, first, min(max(row + self._first, first), stop))
        parts: list[NamedRows] = []
        count = 0
        while at < stop and count < _ENOUGH_CHILDREN:
            leaf = positions.leaf(at)
            part = named_rows(leaf, at, stop, len(prefix))
            at = part.stop
            if part.last_is_directory and at < stop:
                at = max(at, positions.first_not_below(prefix + part.names[-1] + _AFTER_SLASH))
            part = part.where(self._not_clashing(prefix, part, parts[-1].names[-1:] if parts else None))
            if part.names:
                parts.append(part)
                count += len(part.names)
        return self._children(directory, parts, at - self._first if at < stop else None)

    @_answering
    def file(self, row: int) -> FileAt:
        """Return one file; for any number of threads."""
        at = self._tree_row(row)
        leaf = self._positions.leaf(at)
        return FileAt(leaf.key(at).decode(), leaf.location(at, self._root), leaf.oid(at))

    @_answering
    def files(self, row: int, count: int) -> list[FileAt]:
        """Return some neighbours of a file, `row` being the first, fewer at the end; for any number of threads."""
        at = self._tree_row(row)
        stop = min(at + count, self._first + self.rows)
        found: list[FileAt] = []
        while at < stop:
            found += self._files_in_leaf(at, stop - at)
            at = self._tree_row(row) + len(found)
        return found

    @_answering
    def largest(self, row: int, count: int) -> int:
        """Return the size of the largest of some neighbours of a file; for any number of threads."""
        at = self._tree_row(row)
        stop = min(at + count, self._first + self.rows)
        size = 0
        while at < stop:
            leaf = self._positions.leaf(at)
            size = max(size, int(leaf.sizes[at - leaf.start : stop - leaf.start].max()))
            at = leaf.stop
        return size

    def _tree_row(self, row: int) -> int:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")
        return row + self._first

    def _files_in_leaf(self, row: int, count: int) -> list[FileAt]:
        leaf = self._positions.leaf(row)
        table = leaf.table.slice(row - leaf.start, count)
        paths: list[Any] = table.column("path").to_pylist()
        digests: list[Any] = table.column("oid").to_pylist()
        return [FileAt(*each) for each in zip(paths, locations(table, self._root), digests, strict=True)]

    def _found_file(self, leaf: LeafRows, row: int) -> Found:
        position = row - leaf.start
        mtime_ns = int(leaf.mtimes_ns[position])
        if mtime_ns == UNKNOWN_TIME:
            mtime_ns = self._mtime_ns
        return Found(Place(row - self._first, 0), int(leaf.sizes[position]), mtime_ns)

    def _prefix(self, directory: Place) -> bytes:
        """Return what the paths below a directory begin with."""
        if directory.level == 1:
            return self._base
        last, prefix = self._last_prefix
        if last == directory:
            return prefix
        row = self._tree_row(directory.row)
        path = self._positions.leaf(row).key(row)
        depth = directory.level - 1
        parts = path[len(self._base) :].split(b"/", depth)
        if len(parts) <= depth:
            raise IndexError(f"row {directory.row} lies in no directory of level {directory.level}")
        prefix = self._base + b"/".join(parts[:depth]) + b"/"
        self._last_prefix = directory, prefix
        return prefix

    def _behind_a_child(self, prefix: bytes, first: int, row: int) -> int:
        """Return the first row, not before one, that a child of a directory begins at."""
        if row <= first or row >= self._positions.rows:
            return row
        leaf = self._positions.leaf(row - 1)
        name, slash, _ = leaf.key(row - 1)[len(prefix) :].partition(b"/")
        return max(row, self._positions.first_not_below(prefix + name + _AFTER_SLASH)) if slash else row

    def _not_clashing(self, prefix: bytes, part: NamedRows, before: list[bytes] | None) -> list[bool] | None:
        """Say which rows are shown; None: all.

        A directory is left out that is a file, too: what comes between the two begins with their name.
        """
        if part.is_file.all():
            return None
        shown = [True] * len(part.names)
        for number in np.flatnonzero(~part.is_file).tolist():
            name = part.names[number]
            previous = part.names[number - 1] if number else (before[0] if before else name)
            if previous.startswith(name):
                shown[number] = not _has_file(self._positions, prefix + name)
        return None if all(shown) else shown

    def _children(self, directory: Place, parts: list[NamedRows], next_row: int | None) -> Children:
        names = [name for part in parts for name in part.names]
        is_file = _joined([part.is_file for part in parts], np.bool_)
        mtimes = _joined([part.mtimes_ns for part in parts], np.int64)
        return Children(
            names,
            _joined([part.rows for part in parts], np.int64) - self._first,
            np.where(is_file, 0, directory.level + 1).astype(np.uint16),
            np.where(is_file, _joined([part.sizes for part in parts], np.int64), 0),
            np.where(is_file & (mtimes != UNKNOWN_TIME), mtimes, self._mtime_ns),
            next_row,
        )


def _joined(parts: list[NDArray[_Number]], kind: type[_Number]) -> NDArray[_Number]:
    return np.concatenate(parts) if parts else np.empty(0, kind)


def _has_file(positions: Positions, key: bytes) -> bool:
    row = positions.first_not_below(key)
    return row < positions.rows and positions.leaf(row).key(row) == key
