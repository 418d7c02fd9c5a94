"""The index: one LMDB environment per directory and process, through forks, with joined commits."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakSet, WeakValueDictionary

import lmdb

from cache_runtime.errors import CacheIndexError, CacheTimeoutError
from cache_runtime.store.cleanmark import has_mark, remove_mark, write_mark
from cache_runtime.store.environments import TABLES, free_bytes, open_environment
from cache_runtime.store.locks import WRITE_LOCK, ByteLock
from cache_runtime.store.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_log = logging.getLogger(__name__)
_PAGE_BYTES = 4096
_WRITE_SECONDS = 5.0  # a commit takes a millisecond; who holds the lock longer was stopped
_SETTLED = b"settled"
_TAKEN = (
    "a process in another PID namespace has this process's id, so this one reads the cache and does not fill it; let"
    " containers that share a cache directory share their PID namespace"
)
_ALONE = nullcontext()

Result = TypeVar("Result")


class Index:
    """Four tables (see `layout`) that any number of threads and processes read without waiting for writers.

    Get one from `open_index`: LMDB allows a file to be opened once in a process. Lowest-level failures pass through as
    `lmdb.Error`.

    Commits are not flushed: whatever happens to processes, the kernel has their pages. After a crash of the machine the
    file is not trusted, see `directory.py`.

    A child of a fork may neither use its parent's environment nor hold its reader slots, and closing a live transaction
    there would corrupt the parent's; the environment has locks of its own, too, which a fork may copy as they are held.
    So it is used under `lock` or `_commit_lock` only, both are taken around a fork, and the child closes the quiet copy
    and opens its own.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()  # held while a read transaction lives
        self._commit_lock = threading.Lock()
        # LMDB's own mutex has no time-out: a stopped process would stop all others
        self._write_lock = ByteLock(os.path.join(os.path.dirname(path), "locks"), WRITE_LOCK)
        self._queue: deque[_Change[Any]] = deque()
        self._environment: Any = None
        self.is_writable = True
        self.open()

    def open(self) -> None:
        """Open the environment if it is closed.

        Raises:
            CacheTimeoutError: If another process writes for 5 seconds.
        """
        if self._environment is not None:
            return
        with self._write_lock.hold(seconds=_WRITE_SECONDS):
            self._open()

    def _open(self) -> None:
        environment, self.is_writable = open_environment(self.path)
        try:
            self._take(environment)
        except BaseException:  # Ctrl-C too: LMDB refuses to open a file again that this process has open
            environment.close()
            raise
        if not self.is_writable:
            _log.warning("cache index opened for reading only path=%s reason=%s", self.path, _TAKEN)

    def _take(self, environment: Any) -> None:
        if self.is_writable:
            environment.reader_check()
        needed = (int(environment.info()["last_pgno"]) + 1) * _PAGE_BYTES
        # touching mapped pages that a cut file does not have kills the process; a new file has no pages yet
        if environment.info()["last_txnid"] and os.stat(self.path).st_size < needed:
            raise lmdb.CorruptedError(f"{self.path} is shorter than the {needed} bytes it refers to")
        self._file = _identify(self.path)
        opened = [environment.open_db(name, create=self.is_writable) for name in TABLES]
        self.objects, self.units, self.parts, self.meta = opened
        self.begin: Callable[..., Any] = environment.begin
        self._fd = os.open(self.path, os.O_PATH | os.O_CLOEXEC)  # only ever asked for its links
        self._environment = environment

    def close(self) -> None:
        """Close the environment; `open` opens it again."""
        with self._commit_lock, self._lock:
            self._close()

    def refresh(self) -> None:
        """Open the file that is at `path` now, if it is not the one that is open.

        Raises:
            CacheTimeoutError: If another process writes for 5 seconds.
        """
        with self._commit_lock, self._lock:
            if not self.is_current():
                self._close()
                self.open()

    def replace(self, path: str) -> None:
        """Close, and put the file in the place of the index at `path`, together with its lock file and mark.

        Whoever opens an index holds the write lock, so that nobody joins a file with the other one's readers.
        """
        with self._commit_lock, self._lock, self._write_lock.hold(seconds=_WRITE_SECONDS):
            self._end()
            self._put_in_place(self.path, path)

    def _put_in_place(self, new: str, path: str) -> None:
        remove_mark(path)
        with suppress(FileNotFoundError):
            os.unlink(f"{path}-lock")
        os.rename(new, path)

    def _close(self) -> None:
        self._end()
        self._write_lock.close()

    def _end(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None
            os.close(self._fd)

    def is_current(self) -> bool:
        """Say whether the index is open, and its file still the one at `path`."""
        return self._environment is not None and self._file == _identify(self.path)

    @property
    def read_only_reason(self) -> str | None:
        """Why this process may not change the index, None if it may."""
        return None if self.is_writable else _TAKEN

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """Hold one read snapshot."""
        with self._lock, _ALONE if self.is_writable else self._write_lock.hold(seconds=_WRITE_SECONDS):
            txn = self.begin(self.objects)
            try:
                yield self._tables(txn)
            finally:
                txn.abort()

    def change(self, work: Callable[[Tables], Result]) -> Result:
        """Run `work` in a write transaction, and commit it together with what other threads ask for meanwhile.

        `work` may run more than once, and may run beside others' in one transaction: it must check before it writes,
        and write nothing when it raises.

        Raises:
            CacheTimeoutError: If another process holds the write lock for 5 seconds; nothing was changed.
            CacheIndexError: If another file has taken the index's place, which is open now, or if this process may not
                write; nothing was changed.
        """
        if not self.is_writable:
            raise CacheIndexError(self.path, _TAKEN)
        change = _Change(work)
        try:
            self._queue.append(change)
            with self._commit_lock:
                if not change.done:
                    self._commit_queue()
        except BaseException:  # Ctrl-C too: it may still be queued, and nobody waits for it any more
            change.work = _do_nothing
            raise
        if change.error is not None:
            if isinstance(change.error, CacheIndexError):
                self.refresh()
            change.reraise()
        return cast("Result", change.result)

    def pages_bytes(self) -> int:
        """Return how much of the file is in use, bytes; 0 where it could not be opened after a fork."""
        with self._lock:
            return 0 if self._environment is None else (self._info("last_pgno") + 1) * _PAGE_BYTES

    def free_dead_readers(self) -> None:
        """Free the snapshots of processes that were killed while they read: they would keep old pages from reuse."""
        with self._lock:
            if self.is_writable:
                self._environment.reader_check()

    def free_bytes(self) -> int:
        """Return how much of `pages_bytes` no row uses. It is reused, but not before the oldest snapshot is gone."""
        with self._lock, self.begin() as txn:
            return free_bytes(self._environment, txn, (self.objects, self.units, self.parts, self.meta))

    def compact(self) -> None:
        """Write the index anew without its free pages; other processes find the new one at their next commit.

        Whoever was stopped with a snapshot keeps the old file's pages, not those of the new one.

        Raises:
            CacheTimeoutError: If another process holds the write lock for 5 seconds.
            lmdb.Error, OSError: If the disk fails; the old index is there still.
        """
        copy = f"{self.path}.compact"
        with self._commit_lock, self._write_lock.hold(seconds=_WRITE_SECONDS):
            if not self.is_writable or not self.is_current():
                return
            self._environment.copy(copy, compact=True)
            with self._lock:
                self._end()
                self._put_in_place(copy, self.path)
                self._open()

    def settle(self) -> bool:
        """Flush the index to the disk, and mark it as whole until the next commit; say whether it is marked now.

        Without the mark it is checked or rebuilt when it is opened after a crash.

        Raises:
            CacheTimeoutError: If another process holds the write lock for 5 seconds.
        """
        if not self.is_writable or self._is_settled():
            return True
        self.change(lambda tables: tables.set_counter(_SETTLED, 1))
        with self._commit_lock:
            settled = self._info("last_txnid")
            self._environment.sync(True)  # without the write lock: it may take seconds
            with self._write_lock.hold(seconds=_WRITE_SECONDS):
                if self._info("last_txnid") != settled or not self.is_current():
                    return False
                write_mark(self.path, (self._info("last_pgno") + 1) * _PAGE_BYTES)
        return True

    def _is_settled(self) -> bool:
        with self.reading() as tables:
            return tables.counter(_SETTLED) != 0 and has_mark(self.path)

    def _info(self, name: str) -> int:
        return int(self._environment.info()[name])

    def _commit_queue(self) -> None:
        """Commit all that is queued.

        A change leaves the queue when it is done: whatever interrupts this thread, the next one finds the others'.
        """
        changes = [self._queue[number] for number in range(len(self._queue))]
        try:
            with self._write_lock.hold(seconds=_WRITE_SECONDS):
                # a file without a name was replaced: what is written to it would be lost, its bytes on disk be nobody's
                if self._environment is not None and not os.fstat(self._fd).st_nlink:
                    raise CacheIndexError(self.path, "it was written anew meanwhile; try again")
                self._commit(changes)
        except (lmdb.Error, CacheTimeoutError, OSError) as error:
            for change in changes:
                change.error = error
        for change in changes:
            change.done = True
        while self._queue and self._queue[0].done:
            self._queue.popleft()

    def _commit(self, changes: Sequence[_Change[Any]]) -> None:
        with self.begin(write=True) as txn:
            tables = self._tables(txn)
            if tables.counter(_SETTLED):
                remove_mark(self.path)
                tables.set_counter(_SETTLED, 0)
            for change in changes:
                change.run(tables)

    def _tables(self, txn: Any) -> Tables:
        return Tables(txn, self.objects, self.units, self.parts, self.meta)

    def before_fork(self) -> None:
        """Wait until no transaction lives, and let none begin."""
        self._commit_lock.acquire()
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()
        self._commit_lock.release()

    def after_fork_in_child(self) -> None:
        """Replace the parent's environment by one of our own."""
        self._queue.clear()
        self._lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self.close()
        try:
            if _identify(self.path) is not None:
                self.open()
        except (lmdb.Error, OSError) as error:  # reads of a closed index fail, and the store turns itself off
            _log.warning("cache index not reopened after a fork path=%s error=%s", self.path, error)


class _Change(Generic[Result]):
    __slots__ = ("done", "error", "result", "work")

    def __init__(self, work: Callable[[Tables], Result]) -> None:
        self.work = work
        self.result: Result | None = None
        self.error: Exception | None = None
        self.done = False

    def run(self, tables: Tables) -> None:
        self.error = None
        try:
            self.result = self.work(tables)
        except lmdb.Error:
            raise
        except Exception as error:  # noqa: BLE001 - raised in the thread that asked; others' changes are kept
            self.error = error

    def reraise(self) -> None:
        """Raise the error, and keep no trace of it: its frames hold what was to be written, up to 16 MiB, and this."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error


def _do_nothing(tables: Tables) -> Any:
    """Take the place of a change that was given up."""


def _identify(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


_indexes: WeakSet[Index] = WeakSet()
_open_indexes: WeakValueDictionary[str, Index] = WeakValueDictionary()
_registry_lock = threading.Lock()


def open_index(path: str) -> Index:
    """Return this process's index of a file, opening it if it is not open or another file has taken its place."""
    with _registry_lock:
        index = _open_indexes.get(path)
        if index is None:
            index = _open_indexes[path] = Index(path)
            _indexes.add(index)
        else:
            index.refresh()
        return index


def is_open(path: str) -> bool:
    """Say whether this process has an index of a file."""
    with _registry_lock:
        return path in _open_indexes


_forking: list[Index] = []


def _before_fork() -> None:
    _registry_lock.acquire()
    _forking[:] = _indexes
    for index in _forking:
        index.before_fork()


def _after_fork_in_parent() -> None:
    for index in _forking:
        index.after_fork_in_parent()
    _forking.clear()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    for index in _forking:
        index.after_fork_in_child()
    _forking.clear()
    _registry_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _settle_all() -> None:
    for index in list(_open_indexes.values()):
        try:
            if index.is_current():
                index.settle()
        except (lmdb.Error, OSError) as error:  # without the mark it is checked when it is opened again
            _log.debug("cache index not flushed path=%s error=%s", index.path, error)


atexit.register(_settle_all)
