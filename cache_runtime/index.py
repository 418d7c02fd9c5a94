"""The index: one LMDB environment per directory and process, through forks, with joined commits."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakSet, WeakValueDictionary

import lmdb

from cache_runtime.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)
_MAP_BYTES = 64 << 30  # address space only; the file grows as it is used
_MAX_READERS = 4096  # processes times threads that read at the same moment

Result = TypeVar("Result")


class Index:
    """Four tables (see `layout`) that any number of threads and processes read without waiting for writers.

    Get one from `open_index`: LMDB allows a file to be opened once in a process. Lowest-level failures pass through as
    `lmdb.Error`.

    A child of a fork may neither use its parent's environment nor hold its reader slots, and closing a live transaction
    there would corrupt the parent's; the environment has locks of its own, too, which a fork may copy as they are held.
    So it is used under `lock` or `_commit_lock` only, both are taken around a fork, and the child closes the quiet copy
    and opens its own.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()  # held while a read transaction lives
        self._commit_lock = threading.Lock()
        self._queue: deque[_Change[Any]] = deque()
        self._environment: Any = None
        self.open()

    def open(self) -> None:
        """Open the environment if it is closed."""
        if self._environment is not None:
            return
        environment = lmdb.open(
            self.path,
            subdir=False,
            map_size=_MAP_BYTES,
            max_dbs=4,
            max_readers=_MAX_READERS,
            max_spare_txns=0,  # a spare one keeps a reader slot, which a fork would copy
            metasync=False,  # a power cut may undo the last commit, which is a miss; it cannot corrupt
            readahead=False,
        )
        environment.reader_check()
        self._file = _identify(self.path)
        self.objects = environment.open_db(b"objects")
        self.units = environment.open_db(b"units")
        self.parts = environment.open_db(b"parts")
        self.meta = environment.open_db(b"meta")
        self.begin: Callable[[Any], Any] = environment.begin
        self._environment = environment

    def close(self) -> None:
        """Close the environment; `open` opens it again."""
        with self._commit_lock, self._lock:
            if self._environment is not None:
                self._environment.close()
                self._environment = None

    def is_current(self) -> bool:
        """Say whether the index is open, and its file still the one at `path`."""
        return self._environment is not None and self._file == _identify(self.path)

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """Hold one read snapshot."""
        with self._lock:
            txn = self.begin(self.objects)
            try:
                yield self._tables(txn)
            finally:
                txn.abort()

    def change(self, work: Callable[[Tables], Result]) -> Result:
        """Run `work` in a write transaction, and commit it together with what other threads ask for meanwhile.

        Commits cost a disk flush; threads that queue up share one. `work` may run more than once, and may run beside
        others' in one transaction: it must check before it writes, and write nothing when it raises.
        """
        change = _Change(work)
        self._queue.append(change)
        with self._commit_lock:
            if not change.done:
                self._commit_queue()
        if change.error is not None:
            raise change.error
        return cast("Result", change.result)

    def pages_bytes(self) -> int:
        """Return how much of the file is in use, bytes; 0 where it could not be opened after a fork."""
        with self._lock:
            return 0 if self._environment is None else (int(self._environment.info()["last_pgno"]) + 1) * 4096

    def free_dead_readers(self) -> None:
        """Free the snapshots of processes that were killed while they read: they would keep old pages from reuse."""
        with self._lock:
            self._environment.reader_check()

    def _commit_queue(self) -> None:
        changes = [self._queue.popleft() for _ in range(len(self._queue))]
        try:
            with self._environment.begin(write=True) as txn:
                for change in changes:
                    change.run(self._tables(txn))
        except lmdb.Error as error:
            for change in changes:
                change.error = error
        except BaseException:  # Ctrl-C: nothing was committed, and the others did not ask for it to stop
            self._queue.extendleft(reversed(changes))
            raise
        for change in changes:
            change.done = True

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
        current = self.is_current()
        self.close()
        try:
            if current:
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
        except Exception as error:  # noqa: BLE001 - handed to the thread that asked for the change
            self.error = error


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
        if index is None or not index.is_current():
            index = _open_indexes[path] = Index(path)
            _indexes.add(index)
        return index


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
