"""A version's tree as the cache's filesystem wants to see it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cache_runtime import PathInfo
from versioning import PathNotFoundError

if TYPE_CHECKING:
    from sources import Location
    from versioning import Entry, RepositoryRoot, Tree


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
            return _file(entry)
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


def _file(entry: Entry) -> PathInfo:
    return PathInfo(entry.path, entry.size, is_dir=False)
