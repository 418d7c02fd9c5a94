"""Files that a working copy does not tell about: the patterns of `.dsignore`, as git's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ds.errors import UsageError
from versioning.worktree import LOCAL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pathspec import GitIgnoreSpec

FILE = ".dsignore"


class IgnoreRules:
    """The `.dsignore` files of a working copy; those of a directory go before those of the ones above it.

    Args:
        root: The working copy.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._specs: dict[str, GitIgnoreSpec] = {}

    def enter(self, directory: str, names: Sequence[str]) -> None:
        """Read a directory's `.dsignore`, if it has one."""
        if FILE in names:
            self._read(directory)

    def enter_above(self, directory: str) -> None:
        """Read the `.dsignore` of the directories that one lies in, for a walk that begins there."""
        parts = directory.split("/") if directory else []
        for number in range(len(parts)):
            above = "".join(f"{part}/" for part in parts[:number])
            if (self._root / above / FILE).is_file():
                self._read(above)

    def ignores(self, path: str, *, is_dir: bool) -> bool:
        """Say whether a path whose directories were entered is ignored by itself."""
        if path.rpartition("/")[2] == ".git" or path.endswith(f"/{LOCAL}"):
            return True  # other tools' and other working copies' own files
        if not self._specs:
            return False
        written = f"{path}/" if is_dir else path
        directory = path
        while directory:
            above, slash, _ = directory.rpartition("/")
            spec = self._specs.get(above + slash)
            found = spec.check_file(written[len(above + slash) :]).include if spec is not None else None
            if found is not None:
                return found
            directory = above
        return False

    def ignores_by_name(self, path: str, *, is_dir: bool) -> bool:
        """Say whether a path, or a directory that it lies in, is ignored; reads the files on the way."""
        self.enter_above(path)
        parts = path.split("/")
        for number in range(len(parts)):
            if self.ignores("/".join(parts[: number + 1]), is_dir=is_dir or number < len(parts) - 1):
                return True
        return False

    def _read(self, directory: str) -> None:
        from pathspec import GitIgnoreSpec  # it is large, and most directories have none of these files

        file = self._root / directory / FILE
        try:
            self._specs[directory] = GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError, ValueError, re.error) as error:
            raise UsageError(f"cannot use {file}: {error}") from error
