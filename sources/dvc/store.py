"""A DVC repository at one revision, as a read-only store."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from sources.dvc.failures import translated
from sources.dvc.naming import parse_repository
from sources.dvc.revision import Revision, Tracked, measure
from sources.errors import SourceChangedError, SourceConfigError, SourceNotFoundError, SourceUnavailableError
from sources.listing import scan
from sources.locations import ObjectStat, Version, join_uri
from sources.stores import DirectoryPage, batch_of, stats_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Buffer

    from sources.dvc.naming import Repository

_log = logging.getLogger(__name__)
_REFRESH_SECONDS = 60.0  # how old the view of a branch of a repository elsewhere may be; one fetch each time
_LOCAL_REFRESH_SECONDS = 1.0
_KNOWN = 65536  # files whose place is remembered
_Stats = list[ObjectStat]  # inside of the class `list` is the method
_Names = list[str]
_LFS = b"version https://git-lfs."


class _View(NamedTuple):
    """A revision as one process sees it."""

    pid: int
    revision: Revision
    checked: float
    known: dict[str, Tracked]


class DvcStore:
    """Files of a DVC repository at a revision: those that DVC tracks and those that git does. Nothing is written.

    The version of a file is the hash that DVC or git names its content by, and a read takes the bytes from where they
    lie under that hash: DVC's cache, its remote, git's objects. Before a pinned read the hash is compared with that of
    the same path at the revision; when a branch has moved to another content, that is SourceChangedError. Where a
    branch stands is looked up again after a second in a repository of this machine; one that has to be fetched is so
    after a minute, when it is listed or when a read does not find what was pinned. A file read whole is hashed, so that
    a damaged cache is found; a range is as true as its object's name and size.

    Threads share one view of the repository; a forked or spawned process opens its own.

    Args:
        repository: Where it is; see `parse_repository`.
    """

    remote: ClassVar[bool] = True

    def __init__(self, repository: Repository) -> None:
        self.id = repository.store
        self._repository = repository
        self._view: _View | None = None
        self._opening = (os.getpid(), threading.Lock())

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> DvcStore:
        """Open the repository of a `dvc://` URI.

        Options: `rev` (branch, tag or commit; the checked-out commit by default), `url` (what git reaches the
        repository by; tokens belong here, not in the URI), `repo` (which part of the path is the repository),
        `remote` and `remote_config` (DVC's).
        """
        return cls(parse_repository(uri, options))

    def __reduce__(self) -> tuple[object, ...]:
        return DvcStore, (self._repository,)

    def close(self) -> None:
        """Let go of the repository; the next call opens it again."""
        self._view = None  # it closes itself when the last thread has let go of it

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Walk the tree in byte order of keys. See `ListObjects.list`."""
        for batch in scan(self, prefix, concurrency=1):
            yield from stats_of(batch)

    def scan_directory(self, directory: str) -> DirectoryPage:
        """See `ListDirectories.scan_directory`."""
        stats, directories = self._scan(directory)
        return DirectoryPage(batch_of(stats), directories)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        with translated(self._uri(key), self._repository):
            found = self._find(self._current(fresh=True), key)
            if found is None:
                raise SourceNotFoundError(self._uri(key))
            return self._stat(key, found, measure({key: found})[key])

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        if not length:
            return b""
        with translated(self._uri(key), self._repository):
            view, found = self._pinned(key, version)
            data = self._bytes(view.revision, key, found, (start, length))
        if len(data) != length:
            text = f"{self._uri(key)}: asked for {length} bytes at {start}, got {len(data)}: the object is shorter"
            raise SourceUnavailableError(text, received=len(data), retryable=False)
        return data

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        target = buffer.cast("B")
        target[:] = memoryview(self.read(key, start=start, length=target.nbytes, version=version)).cast("B")

    def put(self, key: str, data: Buffer) -> None:
        """Refuse."""
        raise self._read_only(key)

    def delete(self, key: str) -> None:
        """Refuse."""
        raise self._read_only(key)

    def _scan(self, directory: str) -> tuple[_Stats, _Names]:
        """Return the files and the directories of a directory, each in byte order of key."""
        root = self._repository.root
        if root.startswith(directory) and directory != root:  # above the repository there is nothing but it
            return [], [directory + root[len(directory) :].partition("/")[0] + "/"]
        uri = self._uri(directory)
        with translated(uri, self._repository):
            try:
                page = self._current(fresh=True).revision.page(self._path(directory))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise SourceNotFoundError(uri, "directory") from error
            sizes = measure(page.files)
            stats = [self._stat(directory + name, file, sizes[name]) for name, file in page.files.items()]
        if page.left_out:
            _log.warning(
                "%d files of %s have no hash of their own (links, submodules, imports that DVC does not keep) and are "
                "not listed; the first is %s", len(page.left_out), uri, min(page.left_out),
            )  # fmt: skip
        stats.sort(key=lambda stat: stat.key.encode())
        return stats, sorted((f"{directory}{name}/" for name in page.directories), key=str.encode)

    def _stat(self, key: str, found: Tracked, size: int | BaseException) -> ObjectStat:
        if isinstance(size, FileNotFoundError):
            raise self._absent(key, found)
        if isinstance(size, BaseException):
            raise size
        return ObjectStat(key, size, found.version)

    def _pinned(self, key: str, version: Version | None) -> tuple[_View, Tracked]:
        """Find a file whose content is `version`; only if it is not, look whether the branch has moved there.

        Returns:
            The file, and the view that it is to be read in: that of other threads may move on meanwhile.
        """
        view = self._current(fresh=self._repository.is_local)
        found = self._find(view, key)
        if version is None or version.startswith("oid:"):
            if found is None:
                raise SourceNotFoundError(self._uri(key))
            return view, found
        if found is None or found.version != version:
            view = self._current(fresh=True)
            found = self._find(view, key)
        if found is None or found.version != version:
            raise SourceChangedError(
                self._uri(key), expected=version, found="gone" if found is None else str(found.version)
            )
        return view, found

    def _find(self, view: _View, key: str) -> Tracked | None:
        known = view.known.get(key)
        if known is not None:
            return known
        found = view.revision.find(self._path(key))
        if found is not None:
            if len(view.known) >= _KNOWN:
                view.known.clear()
            view.known[key] = found
        return found

    def _bytes(self, revision: Revision, key: str, found: Tracked, span: tuple[int, int]) -> bytes:
        start, length = span
        if found.version.startswith("blob:"):
            blob = revision.blob(self._path(key))
            if blob.startswith(_LFS):
                raise SourceConfigError(f"{self._uri(key)} lies in Git LFS, which is not read; track it with DVC")
            return blob[start : start + length]
        for filesystem, path in found.places:
            try:
                data = bytes(filesystem.fs.cat_file(path, start=start, end=start + length))
                whole = start == 0 and filesystem.info(path)["size"] == length
            except FileNotFoundError:
                continue  # not in the cache, then in the remote
            self._check(key, found, data, whole=whole)
            return data
        raise self._absent(key, found)

    def _check(self, key: str, found: Tracked, data: bytes, *, whole: bool) -> None:
        if not whole or not found.version.startswith("md5:"):
            return
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if digest != found.digest:
            raise SourceChangedError(self._uri(key), expected=found.version, found=f"md5:{digest}")

    def _current(self, *, fresh: bool) -> _View:
        """Return this process's view; `fresh`: of a branch as it is now, give or take the refresh time."""
        view = self._view
        if view is not None and view.pid == os.getpid() and (not fresh or not self._is_due(view)):
            return view
        if self._opening[0] != os.getpid():  # another thread may have held it when this process was forked
            self._opening = (os.getpid(), threading.Lock())
        with self._opening[1]:
            view = self._view
            if view is None or view.pid != os.getpid():
                self._view = self._opened()
            elif fresh and self._is_due(view):
                self._view = self._refreshed(view)
            assert self._view is not None
            return self._view

    def _is_due(self, view: _View) -> bool:
        if self._repository.rev == view.revision.commit:
            return False
        limit = _LOCAL_REFRESH_SECONDS if self._repository.is_local else _REFRESH_SECONDS
        return time.monotonic() - view.checked >= limit

    def _opened(self) -> _View:
        return _View(os.getpid(), Revision(self._repository), time.monotonic(), {})

    def _refreshed(self, view: _View) -> _View:
        """Look the branch up again: a repository elsewhere is fetched."""
        if self._repository.is_local and view.revision.is_current():
            return view._replace(checked=time.monotonic())
        opened = self._opened()
        if opened.revision.commit != view.revision.commit:
            return opened  # the old one closes itself when the last thread has let go of it
        opened.revision.close()
        return view._replace(checked=time.monotonic())

    def _path(self, key: str) -> str:
        path = key.removeprefix(self._repository.root)
        if path == key or (not {"", ".", ".."}.isdisjoint(path.removesuffix("/").split("/")) and path):
            raise SourceNotFoundError(self._uri(key))
        return path

    def _absent(self, key: str, found: Tracked) -> SourceUnavailableError:
        text = f"{self._uri(key)}: neither DVC's cache nor its remote holds {found.version}; run dvc push where it is"
        return SourceUnavailableError(text, retryable=False)

    def _read_only(self, key: str) -> SourceConfigError:
        return SourceConfigError(
            f"{self._uri(key)}: a dvc:// source is read-only; change it with dvc add and git commit"
        )

    def _uri(self, key: str) -> str:
        return join_uri(self.id, key) if self.id != "dvc://" else f"dvc:///{key}"
