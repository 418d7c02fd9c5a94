"""Reading local files ahead of whoever packs them: in other processes where that pays, else on threads."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING

import pyarrow as pa

from versioning.gathering import buffer_bytes, gather
from versioning.names import check_path, check_paths
from versioning.readers import CannotStartReadersError, Readers, usual_readers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from versioning.filereading import File
    from versioning.gathering import Gathered

MOST_READERS = 4  # a disk or server answers several at a time
_MANY_FILES = 3000  # reading so many takes 0.1 s; that is about what it takes to start processes
_BATCH_FILES = 128  # of each reader; their bytes are as many as a blob may have
_CHECKED_FILES = 4096  # whose paths are looked at together: to begin with that takes longer than a hundred paths do
_READ_SECONDS = 24 * 3600  # a network file system may hang for long; this only ends a wait that nothing else would
_log = logging.getLogger(__name__)


@contextmanager
def reading_ahead(
    files: Iterable[File], *, limit: int, follow: bool, readers: int | None = None
) -> Iterator[Iterator[Gathered]]:
    """Read and hash files elsewhere, in the order given; each result is good until the next is asked for.

    Args:
        files: Path in the dataset and local file.
        limit: A file of more bytes is a large one.
        follow: Whether a symbolic link stands for what it leads to; else it is an error.
        readers: How many processes read, 0 for threads of this one; None: as many as there are processors, if there
            are several, and enough files that starting them pays.

    Raises:
        UnreadableFileError, InvalidNameError, ReaderDiedError: From the iterator.
    """
    rest = iter(files)
    first = list(islice(rest, _MANY_FILES)) if readers is None else []
    if readers is None:
        readers = min(usual_readers(), MOST_READERS) if len(first) == _MANY_FILES else 0
    batches = _Batches(chain(first, rest), limit)
    if readers:
        try:
            processes = Readers(readers, limit=limit, follow=follow)
        except CannotStartReadersError as error:
            _log.warning("files are read by this process alone reason=%s", error)
        else:
            with processes:
                yield processes.run(batches, most=max(readers, MOST_READERS))
            return
    with ThreadPoolExecutor(MOST_READERS, "forebay-add") as pool:
        try:
            yield _Threads(pool, limit=limit, follow=follow).run(batches)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Batches:
    """Deals files out, about as many at a time as a buffer has room for."""

    def __init__(self, files: Iterator[File], limit: int) -> None:
        self._files = files
        self._limit = limit
        self._seen_files = self._seen_bytes = 0

    def __iter__(self) -> Iterator[list[File]]:
        checked: list[File] = []
        at = 0
        while True:
            if at == len(checked):
                checked, at = list(islice(self._files, _CHECKED_FILES)), 0
                _check_paths([path for path, _ in checked])
            batch = checked[at : at + self._size()]
            if not batch:
                return
            at += len(batch)
            yield batch

    def learn(self, found: Gathered) -> None:
        self._seen_files += len(found.members.paths)
        self._seen_bytes += len(found.members.view)

    def _size(self) -> int:
        usual = self._seen_bytes // max(self._seen_files, 1)
        return max(1, min(_BATCH_FILES, self._limit // max(usual, 1)))


class _Threads:
    """Reads with one thread as long as files are at hand, and with more if it waits for a disk or a server.

    Threads that do not wait hinder each other: each system call of one gives the interpreter to another.
    """

    def __init__(self, pool: ThreadPoolExecutor, *, limit: int, follow: bool) -> None:
        self._pool = pool
        self._limit = limit
        self._follow = follow
        self._buffers: list[bytearray] = []  # those that nobody uses: memory that is new costs as much as a copy
        self._pending: deque[Future[tuple[bytearray, Gathered]]] = deque()
        self._at_once = 1

    def run(self, batches: _Batches) -> Iterator[Gathered]:
        for batch in batches:
            self._pending.append(self._pool.submit(self._gather, batch))
            if len(self._pending) > self._at_once:
                yield from self._first(batches)
        while self._pending:
            yield from self._first(batches)

    def _first(self, batches: _Batches) -> Iterator[Gathered]:
        """Yield what became of the first batch that is pending; what had no room is read again, before the others."""
        buffer, found = self._pending.popleft().result(_READ_SECONDS)
        batches.learn(found)
        yield found
        self._buffers.append(buffer)
        if found.rest:
            self._pending.appendleft(self._pool.submit(self._gather, found.rest))

    def _gather(self, files: list[File]) -> tuple[bytearray, Gathered]:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = bytearray(buffer_bytes(self._limit))
        found = gather(files, buffer, limit=self._limit, follow=self._follow)
        if found.waited > len(files) // 3:
            self._at_once = min(self._at_once + 1, MOST_READERS)
        return buffer, found


def _check_paths(paths: list[str]) -> None:
    try:
        check_paths(pa.array(paths, pa.string()))
    except UnicodeEncodeError:
        for path in paths:
            check_path(path)
