"""Looking through an index that was left unflushed, before it is used.

LMDB has no checksums, and a damaged page can kill the process that reads it. So all of it is read by a child first:
what would kill this process, again and again, kills that one, and the index is rebuilt.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from struct import Struct

import lmdb

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 30.0  # some 10^8 rows
_FLOCK = Struct("hhqqi4x")
_READ_ALL = """
import sys
sys.path.append(sys.argv[2])
import lmdb
env = lmdb.open(sys.argv[1], subdir=False, readonly=True, lock=False, max_dbs=4, map_size=1 << 36)
with env.begin() as txn:
    tables = [env.open_db(name, txn, create=False) for name in (b"objects", b"units", b"parts", b"meta")]
    for table in tables:
        if sum(1 for _ in txn.cursor(table)) != txn.stat(table)["entries"]:
            sys.exit("a table has lost rows")
    charged = sum(int.from_bytes(row[1:9], "little") for _, row in txn.cursor(tables[1]))
    if charged != int.from_bytes(txn.get(b"used", b"", tables[3]), "little"):
        sys.exit("the charges of the units do not add up")
"""


def is_in_use(path: str) -> bool:
    """Say whether another process has an index open; not to be asked by a process that has it open itself."""
    try:
        # closing it drops every lock that this process has on it, so nothing of ours may be there
        fd = os.open(f"{path}-lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def damage_of(path: str) -> str | None:
    """Read all rows of an index in a child process; return what is wrong with it, or None."""
    if not sys.executable:
        return None
    # isolated and without `site`: half of the time, and nothing of the user's runs in it
    top = os.path.dirname(os.path.dirname(os.path.abspath(lmdb.__file__)))
    command = [sys.executable, "-I", "-S", "-c", _READ_ALL, path, top]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        _log.warning("cache index used unchecked path=%s reason=%s", path, error)
        return None
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"reading it kills a process (signal {-done.returncode})"
    return (done.stderr.strip().splitlines() or ["it cannot be read"])[-1]
