"""Checks of who uses a cache directory: locks that are held for long, stopped processes, dead readers of the index."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from cache_runtime.errors import CacheTimeoutError
from cache_runtime.store.locks import EVICT_LOCK, OPEN_LOCK, WRITE_LOCK, ByteLock
from ds.findings import failure, ok, warning
from ds.output import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ds.findings import Finding

_FLOCK = Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_NAMES = {OPEN_LOCK: "opening", EVICT_LOCK: "evicting", WRITE_LOCK: "writing the index"}
_LOOKS = 5
_LOOK_SECONDS = 0.2
_WRITE_SECONDS = 2.0


class UsingProcess(NamedTuple):
    """A process that has files of a cache directory open."""

    pid: int
    name: str
    stopped: bool

    def __str__(self) -> str:
        return f"{self.pid} ({self.name}{', stopped' if self.stopped else ''})"


def check_locks(directory: str) -> Iterator[Finding]:
    """Say who uses a directory, and which locks are held for longer than it takes."""
    users = using_processes(directory)
    stopped = [user for user in users if user.stopped]
    held = held_for_long(os.path.join(directory, "locks"))
    if held:
        what = " and ".join(_NAMES[byte] for byte in held)
        who = ", ".join(map(str, stopped or users)) or "another user's"
        remedy = "kill -CONT or end the stopped process" if stopped else "wait; if it stays, look at these processes"
        make = failure if stopped else warning
        yield make("locks", directory, f"the lock of {what} is held all the time; processes: {who}", remedy)
    elif stopped:
        who = ", ".join(map(str, stopped))
        yield warning("locks", directory, f"stopped processes use it: {who}", "kill -CONT or end them")
    else:
        count = "1 process" if len(users) == 1 else f"{len(users):,} processes"
        yield ok("locks", directory, f"none is held for long; used by {count} beside this one")


def held_for_long(path: str) -> list[int]:
    """Return the fixed locks that are held whenever one looks, for a second."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there is no cache yet, or it is not ours: the check of its mode tells
        return []
    try:
        held = list(_NAMES)
        for look in range(_LOOKS):
            if look:
                time.sleep(_LOOK_SECONDS)
            held = [byte for byte in held if _is_held(fd, byte)]
            if not held:
                break
        return held
    finally:
        os.close(fd)


def _is_held(fd: int, byte: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    return bool(_FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)


def using_processes(directory: str) -> list[UsingProcess]:
    """Return the processes, other than this one, that have files of a directory open, as far as one may look."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid() and _has_open(process, f"{directory}/"):
            with suppress(OSError, IndexError):
                text = (process / "stat").read_text(encoding="utf-8", errors="replace")
                name, _, rest = text.partition("(")[2].rpartition(")")
                found.append(UsingProcess(int(process.name), name, stopped=rest.split()[0] in "tT"))
    return sorted(found)


def _has_open(process: Path, prefix: str) -> bool:
    try:
        for link in (process / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if os.readlink(link).startswith(prefix):
                    return True
    except OSError:  # ended meanwhile, or another user's
        return False
    return False


def check_readers(directory: str) -> Finding | None:
    """Free the places of dead readers in the index; None if it is not there, or this process has it open already."""
    path = os.path.join(directory, "index.lmdb")
    if not os.path.exists(path):
        return None
    # held as by whoever opens the index, so that nobody puts another file in its place meanwhile
    lock = ByteLock(os.path.join(directory, "locks"), WRITE_LOCK)
    try:
        with lock.hold(seconds=_WRITE_SECONDS), lmdb.open(path, subdir=False, readonly=True) as environment:
            dead = environment.reader_check()
            alive = max(0, len(environment.readers().splitlines()) - 1)
    except CacheTimeoutError:  # the check of the locks tells
        return None
    except (OSError, lmdb.Error) as error:
        if "already open" in str(error):
            return None
        return failure("readers", directory, f"the index cannot be opened: {error}", "it is rebuilt when next opened")
    finally:
        lock.close()
    if dead:
        remedy = "nothing: their places are free now; look why processes were killed while they read"
        return warning("readers", directory, f"{plural(dead, 'reader')} of the index had died", remedy)
    return ok("readers", directory, f"none is dead, {alive:,} read now" if alive else "none is dead")
