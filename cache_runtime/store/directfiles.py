"""Reading a file from the disk itself, to learn what is on it."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress

from cache_runtime.store.layout import BLOCK_BYTES

_ALIGN = 4096


class DirectFile:
    """A file that is read past the page cache, so that the disk is checked and not the memory; where it can be.

    The bytes of one read are valid until the next one.
    """

    def __init__(self, path: str) -> None:
        self._fd = _open_direct(path)
        self._buffer = memoryview(mmap.mmap(-1, 2 * BLOCK_BYTES))  # pages, as direct reads want them

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, start: int, length: int) -> memoryview:
        """Read up to 4 MiB; fewer bytes if the file ends before."""
        first = start // _ALIGN * _ALIGN
        wanted = -(-(start + length) // _ALIGN) * _ALIGN - first
        got = 0
        while got < wanted:
            count = os.preadv(self._fd, [self._buffer[got:wanted]], first + got)
            got += count
            if count == 0 or count % _ALIGN:  # the end of the file
                break
        return self._buffer[start - first : min(got, start - first + length)]


def _open_direct(path: str) -> int:
    with suppress(OSError):  # EINVAL where the file system cannot, ENOENT below
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
