"""A version's tree as the cache's filesystem wants to see it, and one with a transaction's changes on top."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cache_runtime import PathInfo
from versioning import Entry, PathNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ds.pending import Pending, PendingFile
    from sources import Location
    from versioning import RepositoryRoot, Tree


class TreeView:
    """Paths of one version; see `cache_runtime.PathView`.

    Args:
        tree: The version's files.
        root: Where its repository lies.
    """

    def __init__(self, tree: Tree, root: RepositoryRoot) -> None:
        self._tree = tree
        self._root = root

    def locate(self, path: str) -> Location:
        """Return where a file's bytes are.

        Raises:
            PathNotFoundError: If there is no such file.
            IsADirectoryError: If it is a directory.
        """
        entry = self._tree.get(path)
        if entry is None:
            self._tree.listdir(path)  # says so if there is no such directory either
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return entry.location(self._root)

    def info(self, path: str) -> PathInfo:
        """Describe a file or directory.

        Raises:
            PathNotFoundError: If there is neither.
        """
        entry = self._tree.get(path)
        if entry is not None:
            return file_info(path, entry)
        self._tree.listdir(path)
        return PathInfo(path, 0, is_dir=True)

    def listdir(self, path: str) -> list[PathInfo]:
        """Describe the direct children of a directory.

        Raises:
            PathNotFoundError: If there is no such directory.
            NotADirectoryError: If it is a file.
        """
        try:
            children = self._tree.listdir(path)
        except PathNotFoundError:
            if self._tree.get(path) is None:
                raise
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        top = f"{path}/" if path else ""
        return [PathInfo(top + child.name, child.size, child.is_dir) for child in children]

    def get(self, path: str) -> Entry | None:
        """Look one file up; None if there is none."""
        return self._tree.get(path)

    def paths_below(self, directory: str) -> Iterator[list[str]]:
        """Yield the paths of the files below a directory, some at a time."""
        for table in self._tree.scan(f"{directory}/" if directory else "", columns=["path"]):
            paths: list[Any] = table.column("path").to_pylist()
            yield paths


class PendingView:
    """Paths of a branch as they will be when a transaction is committed; see `cache_runtime.PathView`.

    Args:
        base: The branch as it was; None if it had no commit.
        pending: What the transaction changed; looked at anew by every call.
        root: Where the repository lies.
    """

    def __init__(self, base: TreeView | None, pending: Pending, root: RepositoryRoot) -> None:
        self._base = base
        self._pending = pending
        self._root = root

    def find(self, path: str) -> PendingFile | Entry:
        """Return what a file is.

        Raises:
            PathNotFoundError: If there is no such file.
            IsADirectoryError: If it is a directory.
        """
        found = self._get(path)
        if found is not None:
            return found
        if self.is_dir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise PathNotFoundError(path)

    def locate(self, path: str) -> Location:
        """Return where a file's bytes are in the repository; BlockingIOError while they are only on the local disk."""
        found = self.find(path)
        entry = found if isinstance(found, Entry) else found.entry
        if entry is None:
            raise BlockingIOError(errno.EAGAIN, "not uploaded yet; open it through its transaction", path)
        return entry.location(self._root)

    def info(self, path: str) -> PathInfo:
        """Describe a file or directory.

        Raises:
            PathNotFoundError: If there is neither.
        """
        found = self._get(path)
        if found is not None:
            return file_info(path, found)
        if not self.is_dir(path):
            raise PathNotFoundError(path)
        return PathInfo(path, 0, is_dir=True)

    def is_dir(self, path: str) -> bool:
        """Say whether files lie below a path; the root always is a directory."""
        if not path or self._pending.written_below[path]:
            return True
        if self._base is None:
            return False
        gone = self._pending.deleted_below[path]
        if not gone:
            return any(True for _ in self._base.paths_below(path))
        return any(self._get(each) is not None for some in self._base.paths_below(path) for each in some)

    def listdir(self, path: str) -> list[PathInfo]:
        """Describe the direct children of a directory.

        Raises:
            PathNotFoundError: If there is no such directory.
            NotADirectoryError: If it is a file.
        """
        if self._get(path) is not None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if not self.is_dir(path):
            raise PathNotFoundError(path)
        top = f"{path}/" if path else ""
        names = {
            changed[len(top) :].partition("/")[0] for changed in list(self._pending.paths) if changed.startswith(top)
        }
        children: dict[str, PathInfo] = {}
        if self._base is not None:
            with suppress(PathNotFoundError):  # all of it is new
                children = {info.path: info for info in self._base.listdir(path)}
        for child in (top + name for name in names):
            children.pop(child, None)
            with suppress(PathNotFoundError):  # all of it was deleted
                children[child] = self.info(child)
        return [children[child] for child in sorted(children)]

    def check_can_be_file(self, path: str, *, exclusive: bool = False) -> None:
        """See that a path may be written.

        Raises:
            FileExistsError: If it is there and must not be.
            IsADirectoryError: If files lie below it.
            NotADirectoryError: If a part of it is a file.
        """
        if self._get(path) is not None:
            if exclusive:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            return
        if self.is_dir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        parent = path.rpartition("/")[0]
        while parent:
            if self._get(parent) is not None:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), parent)
            parent = parent.rpartition("/")[0]

    def _get(self, path: str) -> PendingFile | Entry | None:
        if path in self._pending.paths:
            return self._pending.get(path)
        return self._base.get(path) if self._base is not None else None


def file_info(path: str, what: PendingFile | Entry) -> PathInfo:
    """Describe a file."""
    entry = what if isinstance(what, Entry) else what.entry
    if entry is None:
        return PathInfo(path, what.size, is_dir=False)
    etag = entry.oid.hex() if entry.oid else f"{entry.key}:{entry.version}:{entry.offset}"
    return PathInfo(path, entry.size, is_dir=False, etag=etag)
