"""Opening LMDB environments such that neither a full disk nor another container can hurt."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import lmdb

_MAP_BYTES = 64 << 30  # address space only; the file grows as it is used
_MAX_READERS = 1000  # processes that read at the same moment: a process has one snapshot at a time
LOCK_FILE_BYTES = 64 << 10
TABLES = (b"objects", b"units", b"parts", b"meta")
_META_PAGES = 2  # in no table
_PAGE_BYTES = 4096


def open_environment(path: str) -> tuple[Any, bool]:
    """Open an index; the caller holds the write lock. Say whether it may be written.

    LMDB tells its readers apart by their process ids, so a process whose id is taken, by one in another PID namespace
    (a container), cannot be among them. It gets an environment without LMDB's locks, to read while it holds the write
    lock: nobody commits meanwhile, so nobody reuses the pages it looks at.
    """
    _allocate_lock_file(f"{path}-lock")
    for left in (f"{path}.compact", f"{path}-clean.new"):  # by a process that was killed with this lock held
        with suppress(FileNotFoundError):
            os.unlink(left)
    common: dict[str, Any] = {"subdir": False, "map_size": _MAP_BYTES, "max_dbs": len(TABLES), "readahead": False}
    try:
        environment = lmdb.open(
            path,
            max_readers=_MAX_READERS,
            max_spare_txns=0,  # a spare one keeps a reader slot, which a fork would copy
            sync=False,
            metasync=False,
            **common,
        )
    except lmdb.LockError:
        return lmdb.open(path, readonly=True, lock=False, **common), False
    return environment, True


def _allocate_lock_file(path: str) -> None:
    """Give the lock file all its bytes: LMDB maps it, and storing into a hole of a full disk kills the process.

    The caller has no environment of it open: to close any descriptor of a file drops a process's locks on it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if os.fstat(fd).st_blocks * 512 < LOCK_FILE_BYTES:
            os.posix_fallocate(fd, 0, LOCK_FILE_BYTES)
    finally:
        os.close(fd)


def free_bytes(environment: Any, txn: Any, tables: tuple[Any, ...]) -> int:
    """Return how much of the file no table uses: pages of what was evicted, or that a snapshot kept from reuse."""
    stats = [environment.stat(), *(txn.stat(table) for table in tables)]
    used = sum(found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"] for found in stats)
    return int((environment.info()["last_pgno"] + 1 - used - _META_PAGES) * _PAGE_BYTES)
