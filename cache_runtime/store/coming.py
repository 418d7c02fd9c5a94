"""What readers said they read next, and what of it they have passed: for the evictors of all processes of the node.

Each process that announces has a file `announced/<name>` and holds its lock: a dead one's counts no more. It is a ring
of rows, overwritten from the oldest on; a crash leaves nothing to mend.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    Rows = NDArray[Any]
    Ending = Callable[[bool], None]

_ROWS = 1 << 13
_ROW = numpy.dtype([("id", "V16"), ("use", "<u8")])
_HEADER_BYTES = 4096
_FILE_BYTES = _HEADER_BYTES + _ROWS * _ROW.itemsize
_PASSED = 1 << 63  # added to the use of a row that was ended
_LAPSE_SECONDS = 600.0  # who stands still for so long holds nothing up


class Coming(NamedTuple):
    """What all processes announced.

    Attributes:
        uses: Object id -> bytes that are read before it, by whoever reads it first.
        passed: Ids of what was announced and is read, the last one first: who reads in rounds needs that last. Nobody
            announced it anew.
    """

    uses: Mapping[bytes, int]
    passed: Sequence[bytes]


NOTHING_COMING = Coming({}, ())


class Expectation:
    """Objects that somebody reads soon; in force until `end`."""

    __slots__ = ("_made_by", "_rows", "_use", "object_ids")

    def __init__(self, made_by: Announcements, object_ids: Sequence[bytes], rows: range, use: int) -> None:
        self._made_by = made_by
        self._rows = rows
        self._use = use
        self.object_ids = object_ids

    def end(self, *, was_read: bool) -> None:
        """Say that they were read, or are not announced any more."""
        self._made_by.end(self._rows, self._use, was_read=was_read)


class Announcements:
    """What this process announced. For any number of threads; a child of a fork begins anew.

    Args:
        directory: The cache directory.
    """

    def __init__(self, directory: str) -> None:
        self._directory = os.path.join(directory, "announced")
        self._lock = threading.Lock()
        self._file: tuple[int, str, mmap.mmap] | None = None
        self._next = self._bytes = 0

    def add(self, object_ids: Sequence[bytes], size: int) -> Expectation:
        """Announce objects that are read after all that this process announced before.

        Args:
            object_ids: The objects; not more than the ring has rows are held.
            size: Bytes that are read of them.

        Raises:
            OSError: If the file cannot be made.
        """
        object_ids = object_ids[:_ROWS]
        with self._lock:
            self._bytes += max(1, size)
            use, rows = self._bytes, range(self._next, self._next + len(object_ids))
            table = self._table()
            for row, object_id in zip(rows, object_ids, strict=True):
                table[row % _ROWS] = (object_id, use)
            self._next = rows.stop
            return Expectation(self, object_ids, rows, use)

    def end(self, rows: range, use: int, *, was_read: bool) -> None:
        """Do `Expectation.end`; what was overwritten since is another one's."""
        with self._lock:
            if self._file is None:  # closed, or of the parent of this fork
                return
            table = self._table()
            places = numpy.arange(rows.start, rows.stop) % _ROWS
            mine = places[table["use"][places] == use]
            table["use"][mine] = use | _PASSED if was_read else 0

    def close(self) -> None:
        """Take back all that was announced."""
        with self._lock:
            if self._file is not None:
                fd, path, _ = self._file
                self._file = None
                with suppress(FileNotFoundError):
                    os.unlink(path)
                os.close(fd)

    def forget_parent(self) -> None:
        """Leave the file to the parent of a fork, which alone holds its lock then."""
        self._lock = threading.Lock()
        if self._file is not None:
            os.close(self._file[0])
            self._file = None

    def _table(self) -> Rows:
        if self._file is None:
            self._file = _new_file(self._directory)
            self._next = 0
        mapped = self._file[2]
        mapped[:8] = int(time.monotonic()).to_bytes(8, "little")
        return numpy.frombuffer(mapped, _ROW, count=_ROWS, offset=_HEADER_BYTES)


def read_coming(directory: str) -> Coming:
    """Read what all processes announced, and remove the files of dead ones; the caller holds the evict lock."""
    uses: dict[bytes, int] = {}
    passed: dict[bytes, int] = {}
    for table in _tables(os.path.join(directory, "announced")):
        coming, ended = (table[(table["use"] >> 63 == is_over) & (table["use"] > 0)] for is_over in (0, 1))
        first = int(coming["use"].min()) if len(coming) else 0
        last = int(ended["use"].max()) if len(ended) else 0
        for object_id, use in zip(coming["id"].tolist(), coming["use"].tolist(), strict=True):
            distance = use - first
            if uses.get(object_id, distance) >= distance:
                uses[object_id] = distance
        for object_id, use in zip(ended["id"].tolist(), ended["use"].tolist(), strict=True):
            passed[object_id] = min(passed.get(object_id, last - use), last - use)
    return Coming(uses, [found for found in sorted(passed, key=passed.__getitem__) if found not in uses])


def _tables(directory: str) -> Iterator[Rows]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        data = _read_if_held(os.path.join(directory, name))
        age = time.monotonic() - int.from_bytes(data[:8], "little")
        if len(data) == _FILE_BYTES and -1 <= age < _LAPSE_SECONDS:  # another clock's: the machine booted
            yield numpy.frombuffer(data, _ROW, count=_ROWS, offset=_HEADER_BYTES)


def _read_if_held(path: str) -> bytes:
    """Return a file's bytes; none if nobody holds its lock any more, and then remove it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, _FILE_BYTES, 0)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return b""
    finally:
        os.close(fd)


def _new_file(directory: str) -> tuple[int, str, mmap.mmap]:
    os.makedirs(directory, exist_ok=True)
    while True:
        path = os.path.join(directory, secrets.token_hex(8))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.posix_fallocate(fd, 0, _FILE_BYTES)  # storing into a hole of a full disk kills the process
            if os.path.exists(path):  # else an evictor took it for a dead one's before it was locked
                return fd, path, mmap.mmap(fd, _FILE_BYTES)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
