"""Small local files into memory as a tar has them, with what is to be kept of each.

A process that does nothing else loads this and starts in 20 ms: it needs neither numpy nor Arrow.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import google_crc32c
from blake3 import blake3

from versioning.errors import UnreadableFileError
from versioning.tarfiles import BLOCK, MAX_MEMBER_BYTES, member_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    File: TypeAlias = tuple[str, Path | str]  # path in the dataset, and where the bytes are

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would wait for somebody to write into it
_ROOM_BYTES = 8 * BLOCK + 8192  # around the bytes of a file: the longest header, the zeros, a byte that is one too many
_COLUMNS = "qqqIqqQ"  # types of the columns of numbers


class TakenFiles(NamedTuple):
    """Files that were read into a buffer, and those that were not.

    Attributes:
        taken: Positions of the files that are in the buffer.
        large: Positions of those with more bytes than were allowed.
        looked_at: How many files that is; nobody has looked at the others, since the buffer is full.
        waited: For how many files a disk or a server was asked, as far as that can be known.
        size: Bytes of the buffer that are in use.
        oids: BLAKE3-256 of each, joined.
        columns: Of each: begin, end, size, crc32c, mtime_ns, ctime_ns, inode, as in `Members`; arrays of numbers.
    """

    taken: list[int]
    large: list[int]
    looked_at: int
    waited: int
    size: int
    oids: bytes
    columns: list[Any]


def buffer_bytes(limit: int) -> int:
    """Return the size of a buffer that has room for a file of `limit` bytes at least."""
    return limit + _ROOM_BYTES


def take_files(files: Sequence[File], buffer: memoryview, *, limit: int, follow: bool = True) -> TakenFiles:
    """Read files behind each other into a buffer, in the order given, and hash them.

    Each costs four system calls: open, fstat, read, close.

    Args:
        files: Paths must be ones that a tar can have.
        buffer: At least `buffer_bytes(limit)`.
        limit: A file of more bytes is a large one.
        follow: Whether a symbolic link stands for what it leads to; else it is an error.

    Raises:
        UnreadableFileError: Naming the file.
    """
    return _Taking(buffer, min(limit, MAX_MEMBER_BYTES), _FLAGS | (0 if follow else os.O_NOFOLLOW)).run(files)


class _Taking:
    def __init__(self, view: memoryview, limit: int, flags: int) -> None:
        self._view = view
        self._limit = limit
        self._flags = flags
        self._end = 0
        self._waited = 0
        self._rows: list[tuple[Any, ...]] = []

    def run(self, files: Sequence[File]) -> TakenFiles:
        taken: list[int] = []
        large: list[int] = []
        for number, (path, file) in enumerate(files):
            try:
                fd = os.open(file, self._flags)
                try:
                    outcome = self._take(path, fd)
                finally:
                    os.close(fd)
            except OSError as error:
                reason = _A_LINK if error.errno == errno.ELOOP else error.strerror or str(error)
                raise UnreadableFileError(str(file), reason=reason) from error
            if outcome == _TAKEN:
                taken.append(number)
            elif outcome == _NO_FILE:
                raise UnreadableFileError(str(file), reason="it is no regular file")
            elif outcome == _FULL:
                return self._found(taken, large, number)
            else:
                large.append(number)
        return self._found(taken, large, len(files))

    def _take(self, path: str, fd: int) -> int:
        """Append a file; say what is the matter if it cannot be."""
        found = os.fstat(fd)
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):
            return _NO_FILE
        if size > self._limit:
            return _LARGE
        header = member_header(path, size)
        begin = self._end + len(header)
        if begin + size + BLOCK > len(self._view):
            return _FULL
        # A byte too many is asked for: if it is not there, that was the end.
        got = self._read(fd, self._view[begin : begin + size + 1])
        if got != size:
            got = self._read_on(fd, begin, got)
            if got < 0:
                return got
            header = member_header(path, got)
        end = begin + got
        data = self._view[begin:end]
        self._view[self._end : begin] = header
        self._end = end + -got % BLOCK
        if self._end != end:
            self._view[end : self._end] = _ZEROS[: self._end - end]
        # Numbers, not the stat itself: a million of those are much work for the collector of garbage.
        kept = found.st_mtime_ns, found.st_ctime_ns, found.st_ino
        self._rows.append((blake3(data).digest(), begin, self._end, got, _crc32c(data), *kept))
        return _TAKEN

    def _read(self, fd: int, into: memoryview) -> int:
        """Read the first bytes of a file, and notice if they are not in memory."""
        if self._waited < _ENOUGH:
            try:
                return os.preadv(fd, [into], 0, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                    raise
                self._waited += 1
        return os.preadv(fd, [into], 0)

    def _read_on(self, fd: int, begin: int, got: int) -> int:
        """Read to the end of a file that grew or shrank, or lies on NFS; return its size, or what is the matter."""
        while got <= self._limit:
            if begin + got + BLOCK > len(self._view):
                return _FULL
            more = os.preadv(fd, [self._view[begin + got :]], got)
            if not more:
                return got
            got += more
        return _LARGE

    def _found(self, taken: list[int], large: list[int], looked_at: int) -> TakenFiles:
        oids, *columns = zip(*self._rows, strict=True) if self._rows else [()] * (len(_COLUMNS) + 1)
        numbers = [array(kind, column) for kind, column in zip(_COLUMNS, columns, strict=True)]
        return TakenFiles(taken, large, looked_at, self._waited, self._end, b"".join(oids), numbers)


def _crc32c(data: memoryview) -> int:
    """Return the checksum, whose extension takes `bytes` only: copying pieces is a tenth of hashing them."""
    if len(data) <= _PIECE_BYTES:
        return int(google_crc32c.value(bytes(data)))
    crc32c = 0
    for start in range(0, len(data), _PIECE_BYTES):
        crc32c = google_crc32c.extend(crc32c, bytes(data[start : start + _PIECE_BYTES]))
    return crc32c


_PIECE_BYTES = 1 << 16
_TAKEN, _LARGE, _FULL, _NO_FILE = 0, -1, -2, -3
_ENOUGH = 64  # files that were waited for: that others were in memory does not matter then
_ZEROS = bytes(BLOCK)
_A_LINK = "it is no regular file; add what a symbolic link leads to"
