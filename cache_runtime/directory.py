"""The cache directory: creating it, recognising it, setting aside an index that cannot be used."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import lmdb

from cache_runtime.errors import CacheDirectoryError
from cache_runtime.index import open_index
from cache_runtime.layout import FORMAT
from cache_runtime.locks import OPEN_LOCK, RangeLocks
from cache_runtime.visited import VisitedMap

if TYPE_CHECKING:
    from cache_runtime.index import Index

_log = logging.getLogger(__name__)
_OPEN_SECONDS = 60.0
_UNUSABLE = (
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.IncompatibleError,
)


def prepare_directory(directory: str, *, capacity_bytes: int) -> tuple[Index, VisitedMap, RangeLocks]:
    """Create the directory or recognise it, and open what its processes share.

    An index of another format, or a damaged one, is renamed with a warning, and the cache starts empty.

    Raises:
        CacheDirectoryError: If the directory cannot be created or written, or holds something else.
        CacheTimeoutError: If another process opens it for a minute.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        _refuse_foreign(directory)
        locks = RangeLocks(os.path.join(directory, "locks"))
        with locks.fixed(OPEN_LOCK, seconds=_OPEN_SECONDS):
            os.makedirs(os.path.join(directory, "slabs"), exist_ok=True)
            os.makedirs(os.path.join(directory, "files"), exist_ok=True)
            _check_format(directory)
            index = _open_or_replace(directory)
            visited = VisitedMap(os.path.join(directory, "visited.map"), capacity_bytes=capacity_bytes)
    except (OSError, lmdb.Error) as error:
        if isinstance(error, CacheDirectoryError | TimeoutError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CacheDirectoryError(directory, reason) from error
    return index, visited, locks


def _refuse_foreign(directory: str) -> None:
    """Refuse to make a cache of a directory that holds something else: its files might be swept."""
    names = set(os.listdir(directory)) - {"lost+found"}
    if names and not names & {"FORMAT", "locks"}:
        raise CacheDirectoryError(directory, "is neither empty nor a cache")


def _check_format(directory: str) -> None:
    path = os.path.join(directory, "FORMAT")
    with suppress(FileNotFoundError):
        with open(path, encoding="utf-8", errors="replace") as file:
            found = file.read(64).strip()
        if found == str(FORMAT):
            return
        _set_aside(directory, f"format {found!r}, this version writes {FORMAT}")
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(f"{FORMAT}\n")
    os.rename(temporary, path)


def _open_or_replace(directory: str) -> Index:
    path = os.path.join(directory, "index.lmdb")
    try:
        return open_index(path)
    except _UNUSABLE as error:
        _set_aside(directory, str(error))
    return open_index(path)


def _set_aside(directory: str, reason: str) -> None:
    path = os.path.join(directory, "index.lmdb")
    aside = f"{path}.aside-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    _log.warning("cache index set aside, starting empty path=%s aside=%s reason=%s", path, aside, reason)
    with suppress(FileNotFoundError):
        os.rename(path, aside)
    with suppress(FileNotFoundError):
        os.unlink(f"{path}-lock")
