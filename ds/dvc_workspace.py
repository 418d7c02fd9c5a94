"""The files of a DVC project on the disk: put in place, and never at the cost of what DVC's cache does not have."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from versioning.dvc import MARK, DvcFileError, DvcForeignFileError, load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from versioning.dvc import DvcFile, HashedFile


class Workspace:
    """The working tree of a DVC project.

    Args:
        root: Its directory.
        cache: The directory of DVC's cache.
    """

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self.cache = cache

    def object(self, digest: str) -> Path:
        """Return where the cache has an object; `digest` may end in ".dir"."""
        return self.cache / "files" / "md5" / digest[:2] / digest[2:]

    def check_dvc_files(self, names: Iterable[str]) -> None:
        """Check that the `.dvc` files of some outputs are not there, or an export's.

        Raises:
            DvcForeignFileError: If not.
        """
        files = (self.root / f"{name}.dvc" for name in names)
        foreign = [str(file) for file in files if os.path.lexists(file) and not self._is_exported(file)]
        if foreign:
            raise DvcForeignFileError(foreign)

    def update(self, files: Sequence[HashedFile], outputs: Sequence[DvcFile], *, link: str) -> None:
        """Put files, `.dvc` files and `.gitignore` in place, and delete what an earlier export had and this has not.

        Args:
            files: Of all outputs; the cache has them.
            outputs: What is tracked.
            link: `copy`, `hardlink`, or `none`: leave the files alone.

        Raises:
            DvcForeignFileError: If a file would be lost that the cache does not have; nothing was changed.
        """
        names = {output.name for output in outputs}
        old = [file for file in self.root.glob("*.dvc") if file.is_file() and self._is_exported(file)]
        stale = [file for file in old if file.name.removesuffix(".dvc") not in names]
        if link != "none":
            wanted = {file.path: file.digest for file in files}
            put, drop = self._plan(wanted, names | {file.name.removesuffix(".dvc") for file in stale})
            for path in drop:
                (self.root / path).unlink()
                self._drop_empty((self.root / path).parent)
            for path in put:
                self._put(self.root / path, self.object(wanted[path]), link)
        for file in stale:
            file.unlink()
        for output in outputs:
            _write(self.root / f"{output.name}.dvc", output.text.encode())
        self._ignore(sorted(names))

    def _plan(self, wanted: dict[str, str], tops: set[str]) -> tuple[list[str], list[str]]:
        """Return the files to put and to delete; a file that is there is replaced only if the cache has it."""
        foreign = [str(self.root / top) for top in tops if (self.root / top).is_symlink()]
        there: dict[str, str] = {}
        for top in sorted(tops - {Path(path).name for path in foreign}):
            for file in _files_at(self.root / top):
                path = file.relative_to(self.root).as_posix()
                there[path] = "" if file.is_symlink() else _md5(file)
        foreign += [
            str(self.root / path)
            for path, digest in there.items()
            if wanted.get(path) != digest and not (digest and self.object(digest).exists())
        ]
        if foreign:
            raise DvcForeignFileError(foreign)
        put = [path for path, digest in wanted.items() if there.get(path) != digest]
        return put, [path for path in there if path not in wanted]

    def _put(self, target: Path, source: Path, link: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".forebay-tmp-{secrets.token_hex(8)}")
        try:
            if link == "hardlink":
                os.link(source, temporary)
            else:
                shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _drop_empty(self, directory: Path) -> None:
        while directory != self.root and not any(directory.iterdir()):
            directory.rmdir()
            directory = directory.parent

    def _ignore(self, names: Sequence[str]) -> None:
        """Add what git must not hold to `.gitignore`, as DVC does; lines that are there stay."""
        file = self.root / ".gitignore"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        missing = [line for line in map(_ignoring, names) if line not in text.splitlines()]
        if missing:
            text += "" if not text or text.endswith("\n") else "\n"
            _write(file, (text + "".join(f"{line}\n" for line in missing)).encode())

    def _is_exported(self, file: Path) -> bool:
        if file.is_symlink():
            return False
        try:
            content = load_yaml(file.read_bytes(), str(file))
        except DvcFileError:
            return False
        meta = content.get("meta") if isinstance(content, dict) else None
        return isinstance(meta, dict) and MARK in meta


def _files_at(path: Path) -> Iterator[Path]:
    """Yield a file, or all below a directory; links are not followed."""
    if not path.is_dir():
        if os.path.lexists(path):
            yield path
        return
    for directory, names, files in os.walk(path):
        yield from (Path(directory, name) for name in files)
        yield from (Path(directory, name) for name in names if Path(directory, name).is_symlink())


def _ignoring(name: str) -> str:
    special = "\\*?[! #"
    return "/" + "".join(f"\\{char}" if char in special else char for char in name)


def _md5(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_name(f".forebay-tmp-{secrets.token_hex(8)}")
    temporary.write_bytes(data)
    os.replace(temporary, file)
