"""Hashes of files in a working copy, with the stat that belongs to the bytes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from versioning.errors import UnreadableFileError
from versioning.worktree.places import Obstructed, name_of

if TYPE_CHECKING:
    from versioning.worktree.clock import Clock
    from versioning.worktree.places import Places

_CHUNK_BYTES = 4 << 20


class Hashed(NamedTuple):
    """A file that was read.

    Attributes:
        oid: BLAKE3-256 of its bytes.
        stat: From before they were read; what is written later changes it.
        settled: Whether a later write is sure to change the stat.
    """

    oid: bytes
    stat: os.stat_result
    settled: bool


def hash_file(places: Places, path: str, clock: Clock) -> Hashed | None:
    """Read a file of a working copy and hash it; None if there is no regular file of this name.

    Raises:
        UnreadableFileError: If it is there and cannot be read.
    """
    try:
        parent = places.parent(path)
    except Obstructed:
        return None
    if parent is None:
        return None
    now = clock.now()
    try:
        fd = os.open(name_of(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if _is_link(parent, path):
            return None
        raise UnreadableFileError(path, reason=error.strerror or str(error)) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        hasher = blake3()
        while chunk := os.read(fd, _CHUNK_BYTES):
            hasher.update(chunk)
    except OSError as error:
        raise UnreadableFileError(path, reason=error.strerror or str(error)) from error
    finally:
        os.close(fd)
    return Hashed(hasher.digest(), found, max(found.st_mtime_ns, found.st_ctime_ns) < now)


def _is_link(parent: int, path: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name_of(path), dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False
