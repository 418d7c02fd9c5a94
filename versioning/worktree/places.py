"""Directories of a working copy, opened step by step so that no symbolic link leads out of it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from versioning.errors import UnwritableFileError

if TYPE_CHECKING:
    from types import TracebackType

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)


class Obstructed(Exception):
    """A parent of a path is no directory: a file, or a symbolic link."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Places:
    """Finds the parent directories of paths below a root; keeps those of the last path open. Not thread-safe.

    Args:
        root: The working copy; itself it may be reached through links.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._chain: list[tuple[str, int]] = []

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_from(0)
        os.close(self._root)

    def parent(self, path: str, *, create: bool = False) -> int | None:
        """Return the open parent directory of a path, valid until the next call; None if it does not exist.

        Raises:
            Obstructed: If something that is no directory has its place, or the place of one above it.
            UnwritableFileError: If it cannot be opened or created.
        """
        wanted = path.split("/")[:-1]
        same = 0
        while same < min(len(wanted), len(self._chain)) and self._chain[same][0] == wanted[same]:
            same += 1
        self._close_from(same)
        for number in range(same, len(wanted)):
            above = self._chain[-1][1] if self._chain else self._root
            found = self._step(above, wanted[number], "/".join(wanted[: number + 1]), create)
            if found is None:
                return None
            self._chain.append((wanted[number], found))
        return self._chain[-1][1] if self._chain else self._root

    def stat(self, path: str) -> os.stat_result | None:
        """Return the stat of what has this path, links not followed; None if nothing has.

        Raises:
            Obstructed, UnwritableFileError: As `parent`.
        """
        parent = self.parent(path)
        if parent is None:
            return None
        try:
            return os.stat(name_of(path), dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnwritableFileError(path, reason=error.strerror or str(error)) from error

    def prune(self, directory: str) -> None:
        """Remove a directory and those above it, as long as they are empty."""
        while directory:
            try:
                parent = self.parent(directory)
                if parent is None:
                    return
                os.rmdir(name_of(directory), dir_fd=parent)
            except FileNotFoundError:
                pass
            except (OSError, Obstructed):
                return
            directory = directory.rpartition("/")[0]

    def prune_empty(self, directory: str) -> None:
        """Remove a directory in which there are only directories.

        Raises:
            OSError: If there is more in it.
        """
        parent = self.parent(directory)
        if parent is not None:
            _remove_empty(parent, name_of(directory))

    def _step(self, above: int, name: str, path: str, create: bool) -> int | None:
        try:
            return os.open(name, _FLAGS, dir_fd=above)
        except FileNotFoundError:
            if not create:
                return None
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                raise Obstructed(path) from error
            raise UnwritableFileError(path, reason=error.strerror or str(error)) from error
        try:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
            return os.open(name, _FLAGS, dir_fd=above)
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                raise Obstructed(path) from error
            raise UnwritableFileError(path, reason=error.strerror or str(error)) from error

    def _close_from(self, start: int) -> None:
        while len(self._chain) > start:
            os.close(self._chain.pop()[1])


def name_of(path: str) -> str:
    """Return the last component of a path."""
    return path.rpartition("/")[2]


def _remove_empty(parent: int, name: str) -> None:
    fd = os.open(name, _FLAGS, dir_fd=parent)
    try:
        for below in os.listdir(fd):
            _remove_empty(fd, below)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
