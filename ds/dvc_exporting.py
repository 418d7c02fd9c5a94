"""Exporting a version as a DVC project: objects into DVC's cache, then files, `.dvc` files and `.gitignore`."""

from __future__ import annotations

import configparser
import hashlib
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from ds.dvc_workspace import Workspace
from ds.errors import UsageError
from sources import SourceChangedError
from sources.dvc.porcelain import load_porcelain
from sources.locking import locked_file
from versioning.dvc import DvcForeignFileError, HashedFile, check_layout, plan_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache_runtime import CachedFileSystem
    from ds.dataset import Dataset
    from versioning import CommitId, Entry

_CHUNK_BYTES = 8 << 20
_THREADS = 8
_OBJECT_MODE = 0o444  # as DVC protects what is in its cache
_IGNORED = "/config.local\n/tmp\n/cache\n"


class LinkKind(StrEnum):
    """How the files of a project lie beside its cache."""

    COPY = "copy"
    HARDLINK = "hardlink"
    NONE = "none"


@dataclass(frozen=True)
class DvcExported:
    """What an export wrote.

    Attributes:
        commit: The version.
        outputs: Names of its `.dvc` files, without the ending.
        files: How many files the version has.
        copied: How many objects were written; the others were in the cache.
        copied_bytes: Their bytes.
    """

    commit: CommitId
    outputs: tuple[str, ...]
    files: int
    copied: int
    copied_bytes: int


def export_dvc(
    dataset: Dataset,
    revision: str | None,
    directory: Path,
    *,
    link: LinkKind = LinkKind.COPY,
    on_progress: Callable[[int], None] = lambda count: None,
) -> DvcExported:
    """Write a version into a DVC project, on which DVC reports that nothing changed.

    Each file and directory at the top of the version becomes an output. Objects go to the project's cache first; what
    is there already is not written again, so that an export that was interrupted goes on. Then the files; of those in
    the way, only what the cache has as well is replaced or deleted. Nothing is committed to git.

    Args:
        dataset: Of the version.
        revision: The version; None: the branch that the dataset is on.
        directory: A git repository, with or without DVC, or a directory that is empty or not there.
        link: How the files lie beside the cache; `NONE` leaves them to `dvc checkout`.
        on_progress: Called with the bytes of each piece that was read.

    Raises:
        UsageError: If the directory is in use for something else, or another process exports to it.
        DvcFileError: If a path cannot be in a DVC project; nothing was written.
        DvcForeignFileError: If files would be lost; nothing was written but objects of the cache.
    """
    commit = dataset.resolve(revision)
    entries = list(dataset.tree(commit).entries())
    tops = check_layout(entry.path for entry in entries)
    project = _prepared(directory.absolute())
    with _alone(project):
        workspace = Workspace(project, _cache_of(project))
        workspace.check_dvc_files(tops)
        files, copied = _CacheWriter(dataset.filesystem(commit), workspace.cache, project, on_progress).write(entries)
        outputs = plan_outputs(files, commit=commit)
        for output in outputs:
            if output.listing is not None:
                _put_listing(workspace, *output.listing)
        workspace.update(files, outputs, link=str(link))
    names = tuple(output.name for output in outputs)
    return DvcExported(commit, names, len(files), len(copied), sum(copied))


class _CacheWriter:
    """Writes objects into a DVC cache, several at a time, and remembers the md5s that it had to compute."""

    def __init__(
        self, filesystem: CachedFileSystem, cache: Path, project: Path, on_progress: Callable[[int], None]
    ) -> None:
        self._filesystem = filesystem
        self._objects = cache / "files" / "md5"
        self._scratch = cache / "forebay-tmp"
        self._journal = project / ".dvc" / "tmp" / "forebay-md5"
        self._on_progress = on_progress

    def write(self, entries: list[Entry]) -> tuple[list[HashedFile], list[int]]:
        """Put the bytes of entries into the cache; return their md5s, and the sizes of what was written."""
        known = self._remembered()
        self._scratch.mkdir(parents=True, exist_ok=True)
        copied: list[int] = []
        files: list[HashedFile] = []
        try:
            with open(self._journal, "a", encoding="ascii") as journal, ThreadPoolExecutor(_THREADS) as threads:
                pending = threads.map(lambda entry: self._write_one(entry, known.get(_identity(entry))), entries)
                for entry, (digest, is_new) in zip(entries, pending, strict=True):
                    if is_new:
                        copied.append(entry.size)
                        journal.write(f"{_identity(entry)} {digest}\n")
                        journal.flush()
                    files.append(HashedFile(entry.path, digest, entry.size))
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return files, copied

    def _write_one(self, entry: Entry, remembered: str | None) -> tuple[str, bool]:
        source = entry.source or ""
        told = source[4:] if source.startswith("md5:") else None
        recorded = told or remembered
        if recorded is not None and self._has(recorded, entry.size):
            return recorded, False
        temporary = self._scratch / secrets.token_hex(8)
        digest = self._copy(entry, temporary)
        if told is not None and told != digest:
            raise SourceChangedError(entry.path, expected=source, found=f"md5:{digest}")
        place = self._objects / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        os.chmod(temporary, _OBJECT_MODE)
        os.replace(temporary, place)
        return digest, True

    def _copy(self, entry: Entry, target: Path) -> str:
        if entry.size <= _CHUNK_BYTES:  # a file object for each costs more than the read
            data = self._filesystem.cat_file(entry.path)
            target.write_bytes(data)
            self._on_progress(len(data))
            return hashlib.md5(data, usedforsecurity=False).hexdigest()
        hasher = hashlib.md5(usedforsecurity=False)
        with self._filesystem.open(entry.path, "rb") as source, open(target, "xb") as file:
            while data := source.read(_CHUNK_BYTES):
                hasher.update(data)
                file.write(data)
                self._on_progress(len(data))
        return hasher.hexdigest()

    def _has(self, digest: str, size: int) -> bool:
        try:
            return (self._objects / digest[:2] / digest[2:]).stat().st_size == size
        except FileNotFoundError:
            return False

    def _remembered(self) -> dict[str, str]:
        try:
            lines = self._journal.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        pairs = (line.split(" ") for line in lines)
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and len(pair[1]) == 32}


def _identity(entry: Entry) -> str:
    """Name the content of an entry in the journal."""
    if entry.oid is not None:
        return entry.oid.hex()
    return blake3(f"{entry.store}\0{entry.key}\0{entry.version}\0{entry.offset}\0{entry.size}".encode()).hexdigest()


def _put_listing(workspace: Workspace, data: bytes, digest: str) -> None:
    place = workspace.object(f"{digest}.dir")
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{secrets.token_hex(8)}")
    temporary.write_bytes(data)
    os.chmod(temporary, _OBJECT_MODE)
    os.replace(temporary, place)


def _prepared(directory: Path) -> Path:
    """Make a directory a git repository with DVC, if it is not one yet."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file; name a directory")
    is_git = (directory / ".git").exists()
    if not is_git and directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is no git repository and not empty; name a new directory, or run git init in it")
    if not is_git:
        try:
            porcelain = load_porcelain()
        except ImportError as error:
            raise UsageError("making git repositories needs dulwich: pip install 'forebay[dvc]'") from error
        directory.mkdir(parents=True, exist_ok=True)
        porcelain.init(str(directory)).close()
    (directory / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    for name, text in (("config", ""), (".gitignore", _IGNORED)):
        with suppress(FileExistsError), open(directory / ".dvc" / name, "x", encoding="utf-8") as file:
            file.write(text)
    return directory


def _cache_of(project: Path) -> Path:
    """Return the directory of a project's cache, as its configuration says."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([project / ".dvc" / "config", project / ".dvc" / "config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{project}/.dvc/config cannot be read ({error!r:.200}); repair it") from error
    named = parser.get("cache", "dir", fallback="cache").strip("'\"")
    return Path(os.path.normpath(project / ".dvc" / named))


@contextmanager
def _alone(project: Path) -> Iterator[None]:
    try:
        with locked_file(project / ".dvc" / "tmp" / "forebay-export.lock", seconds=0):
            yield
    except TimeoutError as error:
        raise UsageError(f"another process exports to {project}; wait until it ends") from error


__all__ = ["DvcExported", "DvcForeignFileError", "LinkKind", "export_dvc"]
