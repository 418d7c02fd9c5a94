"""The cache directory: creating it, recognising it, replacing an index that cannot be used or trusted."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import lmdb

from cache_runtime.errors import CacheDirectoryError, CacheTimeoutError
from cache_runtime.store.cleanmark import is_marked, remove_mark
from cache_runtime.store.index import is_open, open_index
from cache_runtime.store.indexcheck import damage_of, is_in_use
from cache_runtime.store.layout import FORMAT
from cache_runtime.store.locks import OPEN_LOCK, RangeLocks
from cache_runtime.store.rebuilding import find_units, rebuild_index
from cache_runtime.store.visited import VisitedMap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cache_runtime.store.index import Index

_log = logging.getLogger(__name__)
_OPEN_SECONDS = 60.0
_LOOK_SECONDS = 10.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_UNUSABLE = (
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.IncompatibleError,
)


def prepare_directory(directory: str, *, capacity_bytes: int) -> tuple[Index, VisitedMap, RangeLocks]:
    """Create the directory or recognise it, and open what its processes share.

    An index that is lost, damaged, of another format, or that was not flushed when the machine went down, is rebuilt
    from the slabs and files, with a warning.

    Raises:
        CacheDirectoryError: If the directory cannot be created or written, or holds something else.
        CacheTimeoutError: If another process opens it for a minute, and the index that it makes does not grow.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        _refuse_foreign(directory)
        locks = RangeLocks(os.path.join(directory, "locks"))
        with _alone(directory, locks):
            os.makedirs(os.path.join(directory, "slabs"), exist_ok=True)
            os.makedirs(os.path.join(directory, "files"), exist_ok=True)
            index, rebuilt = _open_or_rebuild(directory)
            visited = VisitedMap(os.path.join(directory, "visited.map"), capacity_bytes=capacity_bytes)
            if rebuilt:
                visited.bump()  # processes that use the old index take the new one
    except (OSError, lmdb.Error) as error:
        if isinstance(error, CacheDirectoryError | TimeoutError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CacheDirectoryError(directory, reason) from error
    return index, visited, locks


@contextmanager
def _alone(directory: str, locks: RangeLocks) -> Iterator[None]:
    """Hold the open lock; who makes an index of many objects may take long, but not stand still."""
    path = os.path.join(directory, "index.lmdb.new")
    with ExitStack() as stack:
        stood_still = 0.0
        while True:
            before = _change_time(path)
            try:
                stack.enter_context(locks.fixed(OPEN_LOCK, seconds=_LOOK_SECONDS))
                break
            except CacheTimeoutError:
                after = _change_time(path)
                stood_still = 0.0 if after != before else stood_still + _LOOK_SECONDS
                if stood_still >= _OPEN_SECONDS:
                    raise CacheTimeoutError(directory, seconds=stood_still) from None
                doing = "makes a new index" if after else "opens it or checks its index"
                _log.warning("cache directory not open yet: another process %s directory=%s", doing, directory)
        yield


def _change_time(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _refuse_foreign(directory: str) -> None:
    """Refuse to make a cache of a directory that holds something else: its files might be swept."""
    names = set(os.listdir(directory)) - {"lost+found"}
    if names and not names & {"FORMAT", "locks"}:
        raise CacheDirectoryError(directory, "is neither empty nor a cache")


def distrust_index(directory: str) -> None:
    """Let the next process that opens the directory rebuild the index; for an index that turned out to be damaged."""
    with suppress(OSError):  # the disk fails
        os.unlink(os.path.join(directory, "boot"))
        remove_mark(os.path.join(directory, "index.lmdb"))


def _open_or_rebuild(directory: str) -> tuple[Index, bool]:
    """Open the index, in place of which there may be a new one then."""
    path = os.path.join(directory, "index.lmdb")
    boot = _read_line(_BOOT_ID)
    reason = _reason_to_rebuild(directory, path, boot)
    index = None
    if reason is None:
        try:
            index = open_index(path)
        except _UNUSABLE as error:
            reason = str(error)
    if index is None:
        rebuild_index(directory, reason=str(reason))
        index = open_index(path)
    _write_line(os.path.join(directory, "FORMAT"), str(FORMAT))
    _write_line(os.path.join(directory, "boot"), boot)
    return index, reason is not None


def _reason_to_rebuild(directory: str, path: str, boot: str) -> str | None:
    if not os.path.exists(path):
        return "the index is lost" if find_units(directory) else None
    found = _read_line(os.path.join(directory, "FORMAT"))
    if found != str(FORMAT):
        return f"format {found!r}, this version writes {FORMAT}"
    marked = is_marked(path)
    if marked is not None:
        return None if marked else "it differs from what was flushed"
    if not boot or _read_line(os.path.join(directory, "boot")) != boot:
        return "it was not flushed when the machine went down, or was found damaged"
    return None if is_open(path) or is_in_use(path) else damage_of(path)


def _read_line(path: str) -> str:
    """Return a line of a small file, empty where there is no file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(64).strip()
    except FileNotFoundError:
        return ""


def _write_line(path: str, line: str) -> None:
    if _read_line(path) == line:
        return
    temporary = f"{path}.new"  # one name, for one process at a time: a killed one leaves no more than that
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(f"{line}\n")
    os.rename(temporary, path)
