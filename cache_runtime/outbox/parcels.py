"""The outbox: files that were written here and are not in their repository yet, safe on a local disk.

    <id>/lock       held by the process that writes or sends the parcel; freed by the kernel when it dies
    <id>/journal    what the parcel is and what happened to it, see `journals.py`; its first record is the header
    <id>/<n>        bytes of its n-th file

A parcel whose lock is free was left behind by a process that ended: `Outbox.take` goes on with it. A name that begins
with a dot is a parcel that is being made or thrown away.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cache_runtime.errors import OutboxBusyError, OutboxDiskError, OutboxError, OutboxFullError, ParcelNotFoundError
from cache_runtime.outbox.journals import Journal, read_journal
from sources.locking import locked_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_NAME = re.compile(r"\.?(?P<second>\d{8}T\d{6})-(?P<nanoseconds>[0-9a-f]{8})[0-9a-f]{4}", re.ASCII)
_TIME = "%Y%m%dT%H%M%S"
_log = logging.getLogger(__name__)
_STALE_SECONDS = 3600  # a dotted parcel that is older was left by a process that died
_LOOK_SECONDS = 1  # who lists the outbox holds the lock for a moment
_POLL_SECONDS = 0.2  # other processes make room too
_MAX_CREDIT_BYTES = 64 << 20
_SYNCS_AT_ONCE = 32


@dataclass(frozen=True)
class KeptParcel:
    """A parcel as somebody else sees it.

    Attributes:
        id: Its name.
        header: What it was begun with; empty if the disk lost it.
        records: What happened to it so far.
        begun_at: When.
        waiting_bytes: Bytes of its files on the local disk.
        is_running: Whether a process holds it now.
    """

    id: str
    header: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    begun_at: datetime
    waiting_bytes: int
    is_running: bool


class Outbox:
    """Parcels of files on a local disk, in one directory for any number of threads and processes.

    Args:
        directory: On a local file system; created when the first parcel is begun.
        limit_bytes: Most bytes that wait in it, of all processes; exceeded by at most a 64th for each of them.
        wait_seconds: How long a writer waits for room.
    """

    def __init__(self, directory: Path, *, limit_bytes: int, wait_seconds: float) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self.wait_seconds = wait_seconds
        self._lock = threading.Condition()
        self._credit_bytes = 0

    def begin(self, header: Mapping[str, Any]) -> Parcel:
        """Create an empty parcel that this process holds.

        Raises:
            OutboxDiskError: If the directory cannot be written.
        """
        identity = _new_name()
        temporary = self.directory / f".{identity}"
        with ExitStack() as held, _writing(self.directory):
            _make_directory(self.directory)
            temporary.mkdir(mode=0o700)
            held.enter_context(locked_file(temporary / "lock", seconds=0))
            journal = Journal(temporary / "journal")
            held.callback(journal.close)
            journal.append(header)
            os.rename(temporary, self.directory / identity)
            return Parcel(self, identity, journal, header=header, held=held.pop_all())

    def take(self, identity: str) -> Parcel:
        """Hold a parcel that another process left.

        Raises:
            ParcelNotFoundError: If there is none of this name.
            OutboxBusyError: If a process still holds it.
            OutboxDiskError: If it cannot be read.
        """
        directory = self.directory / identity
        if _NAME.fullmatch(identity) is None or identity.startswith(".") or not directory.is_dir():
            raise ParcelNotFoundError(identity, str(self.directory))
        with ExitStack() as held, _writing(directory):
            try:
                held.enter_context(locked_file(directory / "lock", seconds=_LOOK_SECONDS))
            except TimeoutError as error:
                raise OutboxBusyError(identity, str(directory / "lock")) from error
            if not directory.is_dir():  # its holder finished just now
                raise ParcelNotFoundError(identity, str(self.directory))
            journal = Journal(directory / "journal")
            held.callback(journal.close)
            header = journal.records[0] if journal.records else {}
            return Parcel(self, identity, journal, header=header, held=held.pop_all())

    def parcels(self, *, left_only: bool = False) -> list[KeptParcel]:
        """Return what is in the outbox, oldest first; what a process that died was throwing away is tidied up.

        Args:
            left_only: Leave out what a process holds, without reading it.

        Raises:
            OutboxDiskError: If the disk cannot be read.
        """
        found: list[KeptParcel] = []
        for name in self._names():
            directory = self.directory / name
            if name.startswith("."):
                _sweep(directory)
                continue
            with _writing(directory):
                kept = _look_at(directory, left_only=left_only)
            if kept is not None:
                found.append(kept)
        return found

    def waiting_bytes(self) -> int:
        """Return how many bytes of files wait here, of all processes.

        Raises:
            OutboxDiskError: If the disk cannot be read.
        """
        with _writing(self.directory):
            return sum(_data_bytes(self.directory / name) for name in self._names())

    def reserve(self, count: int, *, relieve: Callable[[], None], beside: int = 0) -> None:
        """Return when `count` more bytes may be written, or fail when they never fitted in.

        Args:
            count: Bytes, not more than a few MiB at once.
            relieve: Called while there is no room; it should hurry uploads, and may raise why they do not end.
            beside: So many bytes can leave only together with these: those of the same file.

        Raises:
            OutboxFullError: If uploads did not make room within `wait_seconds`, or never could.
        """
        if beside + count > self.limit_bytes:
            raise OutboxFullError(str(self.directory), beside + count, limit_bytes=self.limit_bytes, seconds=0)
        if self._grant(count):
            return
        start = time.monotonic()
        _log.warning(
            "a write waits for uploads to make room outbox=%s limit_bytes=%d", self.directory, self.limit_bytes
        )
        while not self._grant(count):
            relieve()
            if time.monotonic() - start > self.wait_seconds:
                waiting = self.waiting_bytes()
                raise OutboxFullError(
                    str(self.directory), waiting, limit_bytes=self.limit_bytes, seconds=self.wait_seconds
                )
            with self._lock:
                self._lock.wait(_POLL_SECONDS)
        _log.warning("the write goes on outbox=%s waited_seconds=%.1f", self.directory, time.monotonic() - start)

    def wake(self) -> None:
        """Tell waiting writers that there may be room."""
        with self._lock:
            self._lock.notify_all()

    def _grant(self, count: int) -> bool:
        """Take room, some of it in advance: looking at the directory costs a call per file."""
        with self._lock:
            if self._credit_bytes < count:
                free = self.limit_bytes - self.waiting_bytes() - self._credit_bytes
                if free < count:
                    return False
                ahead = min(_MAX_CREDIT_BYTES, self.limit_bytes // 64)
                self._credit_bytes += min(max(count, ahead), free)
            self._credit_bytes -= count
            return True

    def _names(self) -> list[str]:
        with _writing(self.directory):
            try:
                return sorted(name for name in os.listdir(self.directory) if _NAME.fullmatch(name))
            except FileNotFoundError:
                return []


class Parcel:
    """Files under way to one repository, held by this process. Made by `Outbox`. Thread-safe.

    A process that is forked from this one does not hold it: the parcel is free when this one ends.

    Attributes:
        id: Its name in the outbox.
        header: What it was begun with.
        records: What was in its journal when it was taken, without the header.
    """

    def __init__(
        self, outbox: Outbox, identity: str, journal: Journal, *, header: Mapping[str, Any], held: ExitStack
    ) -> None:
        self.id = identity
        self.header = header
        self.records = journal.records[1:]
        self.outbox = outbox
        self._directory = outbox.directory / identity
        self._journal = journal
        self._held = held
        self._lock = threading.Lock()
        numbers = [int(name) for name in os.listdir(self._directory) if name.isdigit()]
        known = [record["file"] for record in self.records if isinstance(record.get("file"), int)]
        self._next: int = max([-1, *numbers, *known]) + 1
        _held_here.add(self)

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self._directory

    def new_number(self) -> int:
        """Return the number of another file."""
        with self._lock:
            self._next += 1
            return self._next - 1

    def path_of(self, number: int) -> Path:
        """Return where a file's bytes are, if they still are there."""
        return self._directory / str(number)

    def record(self, record: Mapping[str, Any], *, sync: Iterable[int] | None = None) -> None:
        """Append to the journal.

        Args:
            record: JSON.
            sync: Files that must be on the disk before the record, which is then too; None: nothing need be.

        Raises:
            OutboxDiskError: If the disk fails or is full.
        """
        with self._lock, _writing(self._directory):
            _sync_all([self.path_of(number) for number in sync or ()])
            self._journal.append(record)
            if sync is not None:
                self._journal.sync()
                _sync(self._directory)
                _sync(self._directory.parent)

    def forget_bytes(self, number: int) -> None:
        """Delete the bytes of a file, if they are there; readers that opened it keep them."""
        with suppress(FileNotFoundError):
            self.path_of(number).unlink()
        self.outbox.wake()

    def remove(self) -> None:
        """Throw the parcel away: it was delivered, or is not wanted; a disk that fails keeps it, which is logged."""
        gone = self._directory.with_name(f".{self.id}")
        try:
            os.rename(self._directory, gone)
        except OSError as error:
            _log.warning("a parcel cannot be thrown away path=%s reason=%s", self._directory, error)
        self.release()
        shutil.rmtree(gone, ignore_errors=True)  # what is left has a dot in front, and is swept later
        self.outbox.wake()

    def release(self) -> None:
        """Let go of the parcel; it stays in the outbox for whoever takes it."""
        self._held.close()


_held_here: weakref.WeakSet[Parcel] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for parcel in list(_held_here):
        parcel.release()  # closes this process's descriptors; the lock stays with the parent


os.register_at_fork(after_in_child=_after_fork_in_child)


def _new_name() -> str:
    """Return a name that sorts by time: what was begun first is committed first."""
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime(_TIME, time.gmtime(second))}-{nanoseconds:08x}{secrets.token_hex(2)}"


def _make_directory(directory: Path) -> None:
    """Create a directory that is still there after a power cut."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in missing:
        _sync(each.parent)


def _sync_all(paths: Sequence[Path]) -> None:
    """Have files on the disk; together, since a disk writes many at once as fast as one."""
    if len(paths) < _SYNCS_AT_ONCE:
        for path in paths:
            _sync(path)
        return
    with ThreadPoolExecutor(_SYNCS_AT_ONCE, thread_name_prefix="forebay-sync") as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _look_at(directory: Path, *, left_only: bool) -> KeptParcel | None:
    """Describe a parcel; None if it is gone, or is held and that is not wanted."""
    running = _is_locked(directory / "lock")
    if running and left_only:
        return None
    records = read_journal(directory / "journal")
    if not records and (running or not directory.is_dir()):  # its holder threw it away just now
        return None
    named = _NAME.fullmatch(directory.name)
    assert named is not None
    second = datetime.strptime(named["second"], _TIME).replace(tzinfo=UTC)
    begun_at = second + timedelta(microseconds=int(named["nanoseconds"], 16) // 1000)
    header = records[0] if records else {}
    return KeptParcel(directory.name, header, tuple(records[1:]), begun_at, _data_bytes(directory), running)


def _data_bytes(directory: Path) -> int:
    total: int = 0
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.isdigit():
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
    return total


def _is_locked(lock: Path) -> bool:
    try:
        with locked_file(lock, seconds=0):
            return False
    except TimeoutError:
        return True
    except FileNotFoundError:
        return False


def _sweep(directory: Path) -> None:
    with suppress(FileNotFoundError):
        if time.time() - directory.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Turn the operating system's errors about the local disk into ours."""
    try:
        yield
    except OutboxError:
        raise
    except OSError as error:
        raise OutboxDiskError(str(place), error.strerror or str(error)) from error
