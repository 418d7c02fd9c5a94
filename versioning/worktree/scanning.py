"""What differs between a working copy's disk and its index; no file is opened."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from versioning.errors import UnreadableFileError
from versioning.worktree.index import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from versioning.columns import Mask
    from versioning.worktree.index import Index

LOCAL = ".ds/local"
"""Directory of a working copy's own files: never part of a version."""

_BATCH_FILES = 1 << 16
_name = attrgetter("name")


class Ignores(Protocol):
    """Says which untracked paths do not matter."""

    def ignores(self, path: str, *, is_dir: bool) -> bool:
        """Say whether a path is to be left out."""
        ...

    def enter(self, directory: str, names: Sequence[str]) -> None:
        """Be told of each directory that is walked, "" or ending in "/", and its files, before they are asked for."""
        ...


class _Nothing:
    def ignores(self, path: str, *, is_dir: bool) -> bool:
        del path, is_dir
        return False

    def enter(self, directory: str, names: Sequence[str]) -> None:
        del directory, names


@dataclass(eq=False)
class Scan:
    """What a walk found.

    Attributes:
        suspects: Mask over the rows of the index: there, but with another stat; hash them to know.
        missing: Mask: no longer there, or no regular file.
        untracked: Files that the index does not have, walked in order of directories; names that are not UTF-8 have
            surrogate escapes in them.
    """

    suspects: Mask
    missing: Mask
    untracked: list[str] = field(default_factory=list)


def scan(
    root: str | os.PathLike[str],
    index: Index,
    *,
    below: str = "",
    ignores: Ignores | None = None,
    on_files: Callable[[int], None] | None = None,
) -> Scan:
    """Walk a working copy and compare the stat of each file with its row: size, times and inode.

    Args:
        root: The working copy.
        index: Its index.
        below: Only this directory, without a slash at its end; "" is all. Rows of others are neither.
        ignores: What to leave out of the untracked files; everything counts without.
        on_files: Called now and then with how many files were looked at.

    Raises:
        UnreadableFileError: If a directory cannot be read.
    """
    return _Scanner(root, index, ignores or _Nothing(), on_files).run(below)


class _Scanner:
    def __init__(
        self, root: str | os.PathLike[str], index: Index, ignores: Ignores, on_files: Callable[[int], None] | None
    ) -> None:
        self._root = os.fspath(root)
        self._index = index
        self._ignores = ignores
        self._on_files = on_files
        self._names: list[str] = listed(index.rows.column("name"))
        self._seen = np.zeros(len(index), np.bool_)
        self._result = Scan(np.zeros(len(index), np.bool_), np.zeros(len(index), np.bool_))
        self._rows: list[range | list[int]] = []
        self._stats: list[os.stat_result] = []
        self._columns = {name: index.rows.column(name).to_numpy() for name in ("size", "mtime_ns", "ctime_ns", "inode")}
        self._files = 0

    def run(self, below: str) -> Scan:
        start = f"{below}/" if below else ""
        pending = [start]
        while pending:
            pending.extend(reversed(self._directory(pending.pop())))
            if len(self._stats) >= _BATCH_FILES:
                self._compare()
        self._compare()
        self._result.missing = ~self._seen & self._index.at(below)
        return self._result

    def _directory(self, directory: str) -> list[str]:
        """Look at the files of one directory and return those below it."""
        files, directories, others = [], [], []
        for entry in self._entries(directory):
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry)
            else:
                others.append(entry.name)
        files.sort(key=_name)
        directories.sort()
        names = [entry.name for entry in files]
        self._ignores.enter(directory, names)
        start, end = self._index.directories.get(directory, (0, 0))
        if end > start and names == self._names[start:end]:
            self._meet(range(start, end), files)
        elif names:
            self._match(directory, files, start, end)
        return [f"{directory}{name}/" for name in directories if self._walks(directory, name)]

    def _entries(self, directory: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self._root, directory)) as found:
                return list(found)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UnreadableFileError(directory, reason=error.strerror or str(error)) from error

    def _walks(self, directory: str, name: str) -> bool:
        path = f"{directory}{name}"
        if path == LOCAL:
            return False
        if name in self._index.children.get(directory, ()):
            return True
        return not self._ignores.ignores(path, is_dir=True)

    def _match(self, directory: str, files: list[os.DirEntry[str]], start: int, end: int) -> None:
        """Find the rows of files whose directory has others than the index says."""
        rows = dict(zip(self._names[start:end], range(start, end), strict=True))
        known = [entry for entry in files if entry.name in rows]
        self._meet([rows[entry.name] for entry in known], known)
        fresh = (f"{directory}{entry.name}" for entry in files if entry.name not in rows)
        self._result.untracked += [path for path in fresh if not self._ignores.ignores(path, is_dir=False)]

    def _meet(self, rows: range | list[int], files: list[os.DirEntry[str]]) -> None:
        try:
            stats = [entry.stat(follow_symlinks=False) for entry in files]
        except FileNotFoundError:  # deleted while we look
            found = [(row, stat) for row, entry in zip(rows, files, strict=True) if (stat := _stat_or_none(entry))]
            rows, stats = [row for row, _ in found], [stat for _, stat in found]
        self._rows.append(rows)
        self._stats += stats

    def _compare(self) -> None:
        """Compare what was met since the last time."""
        if not self._stats:
            return
        rows = np.fromiter(chain.from_iterable(self._rows), np.int64, len(self._stats))
        found, columns = self._stats, self._columns
        self._seen[rows] = True
        same = columns["size"][rows] == np.array([each.st_size for each in found])
        same &= columns["mtime_ns"][rows] == np.array([each.st_mtime_ns for each in found])
        same &= columns["ctime_ns"][rows] == np.array([each.st_ctime_ns for each in found])
        inodes: NDArray[np.uint64] = np.array([each.st_ino for each in found], np.uint64)
        same &= columns["inode"][rows] == inodes.view(np.int64)
        self._result.suspects[rows[~same]] = True
        self._files += len(found)
        self._rows, self._stats = [], []
        if self._on_files is not None:
            self._on_files(self._files)


def _stat_or_none(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
