"""What the failure of a disk means for the store that met it."""

from __future__ import annotations

import errno
import os
from enum import Enum

import lmdb

_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # says nothing about the disk
_WRITES_FAIL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # what is there can still be read
_FULL = frozenset({os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)})
_NEARLY_FULL_BYTES = 16 << 20  # a fill that failed at the same moment may have given its room back


class Verdict(Enum):
    """What is left to do with a directory."""

    PASSING = "passing"
    WRITES_FAIL = "writes fail"
    UNUSABLE = "unusable"


def judge(error: OSError | lmdb.Error, *, directory: str, is_off: bool) -> tuple[Verdict, str]:
    """Decide what a failure means, and name it.

    Args:
        error: What was raised.
        directory: Looked at for its free space where the error does not tell.
        is_off: Whether writes failed before.
    """
    code = error.errno if isinstance(error, OSError) else _errno_of(error, directory, is_off=is_off)
    reason = os.strerror(code) if code else str(error)
    if code in _PASSING:
        return Verdict.PASSING, reason
    return Verdict.WRITES_FAIL if code in _WRITES_FAIL else Verdict.UNUSABLE, reason


def has_room_again(reason: str | None, directory: str, *, floor_bytes: int) -> bool:
    """Say whether a disk was turned off for being full, and is not any more.

    Args:
        reason: What `judge` said.
        directory: On that disk.
        floor_bytes: Free space that is left alone.
    """
    try:
        return reason in _FULL and not _is_nearly_full(directory, floor_bytes=floor_bytes)
    except OSError:
        return False


def _errno_of(error: lmdb.Error, directory: str, *, is_off: bool) -> int | None:
    """Find the system's error in LMDB's; a full map is a full disk.

    A write that a full disk cut short is an input/output error to LMDB (mdb.c, mdb_page_flush).
    """
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
        return errno.ENOSPC
    known = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    code = next((code for code in known if os.strerror(code) in str(error)), None)
    if code == errno.EIO and (is_off or _is_nearly_full(directory)):
        return errno.ENOSPC
    return code


def _is_nearly_full(directory: str, *, floor_bytes: int = 0) -> bool:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize < _NEARLY_FULL_BYTES + floor_bytes
