"""Small local files into memory as a tar has them, many at a time: what a pack needs is then written in one piece."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import google_crc32c
import numpy as np
from blake3 import blake3

from versioning.errors import UnreadableFileError
from versioning.tarfiles import BLOCK, MAX_MEMBER_BYTES, member_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    File: TypeAlias = tuple[str, Path | str]  # path in the dataset, and where the bytes are

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would wait for somebody to write into it
_ROOM_BYTES = 8 * BLOCK + 8192  # around the bytes of a file: the longest header, the zeros, a byte that is one too many


class Members(NamedTuple):
    """Small files as they lie in a tar, one after another: header, bytes, zeros up to a whole block.

    Attributes:
        view: The bytes of all; good until the buffer below is used again.
        paths: In the dataset, and in the tar.
        offsets: Where the bytes of each begin in the view.
        ends: Where each ends in the view, zeros included.
        sizes: Bytes of each.
        oids: BLAKE3-256 of each, joined.
        crc32c: Of each.
        mtime_ns: Of each, as the next two from before its bytes were read: what is written later changes them.
        ctime_ns: Of each.
        inodes: Of each.
    """

    view: memoryview
    paths: list[str]
    offsets: NDArray[np.int64]
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    oids: bytes
    crc32c: NDArray[np.uint32]
    mtime_ns: NDArray[np.int64]
    ctime_ns: NDArray[np.int64]
    inodes: NDArray[np.uint64]


class Gathered(NamedTuple):
    """What became of some files.

    Attributes:
        members: The small ones that the buffer had room for.
        large: Files with more bytes than were allowed.
        rest: Files that nobody has looked at: the buffer is full.
        waited: For how many files a disk or a server was asked, as far as that can be known; the others were in memory.
    """

    members: Members
    large: list[File]
    rest: list[File]
    waited: int


def buffer_bytes(limit: int) -> int:
    """Return the size of a buffer that has room for a file of `limit` bytes at least."""
    return limit + _ROOM_BYTES


def gather(files: Sequence[File], buffer: bytearray, *, limit: int, follow: bool = True) -> Gathered:
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
    return _Gathering(buffer, min(limit, MAX_MEMBER_BYTES), _FLAGS | (0 if follow else os.O_NOFOLLOW)).run(files)


class _Gathering:
    def __init__(self, buffer: bytearray, limit: int, flags: int) -> None:
        self._view = memoryview(buffer)
        # The checksum's extension takes only what nobody may write to, and no memoryview.
        self._bytes: Any = np.frombuffer(self._view.toreadonly(), np.uint8)
        self._limit = limit
        self._flags = flags
        self._end = 0
        self._waited = 0
        self._paths: list[str] = []
        self._rows: list[tuple[Any, ...]] = []

    def run(self, files: Sequence[File]) -> Gathered:
        large: list[File] = []
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
            if outcome == _NO_FILE:
                raise UnreadableFileError(str(file), reason="it is no regular file")
            if outcome == _FULL:
                return Gathered(self._members(), large, list(files[number:]), self._waited)
            if outcome == _LARGE:
                large.append((path, file))
        return Gathered(self._members(), large, [], self._waited)

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
        data = self._bytes[begin:end]
        self._view[self._end : begin] = header
        self._end = end + -got % BLOCK
        self._view[end : self._end] = _ZEROS[: self._end - end]
        sums = blake3(data).digest(), google_crc32c.value(data)
        # Numbers, not the stat itself: a million of those are much work for the collector of garbage.
        self._rows.append((begin, self._end, got, *sums, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
        self._paths.append(path)
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

    def _members(self) -> Members:
        columns = list(zip(*self._rows, strict=True)) if self._rows else [()] * 8
        begins, ends, sizes, oids, crc32c, mtime_ns, ctime_ns, inodes = columns
        begin, end, size, mtime, ctime = (
            np.array(each, np.int64) for each in (begins, ends, sizes, mtime_ns, ctime_ns)
        )
        sums, inode = np.array(crc32c, np.uint32), np.array(inodes, np.uint64)
        view = self._view[: self._end]
        return Members(view, self._paths, begin, end, size, b"".join(oids), sums, mtime, ctime, inode)


_TAKEN, _LARGE, _FULL, _NO_FILE = 0, -1, -2, -3
_ENOUGH = 64  # files that were waited for: that others were in memory does not matter then
_ZEROS = bytes(BLOCK)
_A_LINK = "it is no regular file; add what a symbolic link leads to"
