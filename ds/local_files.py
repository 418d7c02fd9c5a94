"""Local files that are to be added, and the paths they get."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from versioning import UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def local_files(paths: Iterable[str | os.PathLike[str]], *, to: str) -> Iterator[tuple[str, str]]:
    """Name the dataset path of each local file: a directory's files keep their paths relative to it.

    Symbolic links to directories are not followed.

    Raises:
        UnreadableFileError: If a path is neither a file nor a directory.
    """
    top = f"{to.strip('/')}/" if to.strip("/") else ""
    for path in map(Path, paths):
        if path.is_dir():
            yield from _below(f"{path}/", top)
        elif path.is_file():
            yield f"{top}{path.name}", str(path)
        else:
            raise UnreadableFileError(str(path), reason="no such file or directory")


def _below(directory: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield what is not a directory below one, which ends in a slash, as its prefix does."""
    directories = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    directories.append(name)
                elif not (entry.is_symlink() and os.path.isdir(entry.path)):
                    yield prefix + name, directory + name
    except OSError as error:
        raise UnreadableFileError(directory, reason=error.strerror or str(error)) from error
    for name in directories:
        yield from _below(f"{directory}{name}/", f"{prefix}{name}/")
