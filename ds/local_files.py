"""Local files that are to be added, and the paths they get."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from versioning import UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def local_files(paths: Iterable[str | os.PathLike[str]], *, to: str) -> Iterator[tuple[str, Path]]:
    """Name the dataset path of each local file: a directory's files keep their paths relative to it.

    Symbolic links to directories are not followed.

    Raises:
        UnreadableFileError: If a path is neither a file nor a directory.
    """
    top = f"{to.strip('/')}/" if to.strip("/") else ""
    for path in map(Path, paths):
        if path.is_dir():
            for directory, _, names in os.walk(path, onerror=_raise_unreadable):
                below = Path(directory).relative_to(path).as_posix()
                prefix = top if below == "." else f"{top}{below}/"
                for name in names:
                    yield prefix + name, Path(directory, name)
        elif path.is_file():
            yield f"{top}{path.name}", path
        else:
            raise UnreadableFileError(str(path), reason="no such file or directory")


def _raise_unreadable(error: OSError) -> None:
    raise UnreadableFileError(str(error.filename), reason=error.strerror or str(error)) from error
