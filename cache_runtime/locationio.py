"""A location as a file object."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

from sources import Location

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

BUFFER_BYTES = 256 << 10
"""Read at a time where less is asked for."""


def open_location(
    location: Location, read: Callable[[Location], memoryview], *, buffer_bytes: int = BUFFER_BYTES
) -> io.BufferedReader:
    """Return a seekable file of a location's bytes, which asks `read` for them; see `Client.open`."""
    return io.BufferedReader(_LocationIO(location, read), buffer_size=buffer_bytes)


class _LocationIO(io.RawIOBase):
    """One location as a file, unbuffered.

    Args:
        location: The range.
        read: `Client.read`.
    """

    def __init__(self, location: Location, read: Callable[[Location], memoryview]) -> None:
        self._location = location
        self._read = read
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._location.length}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        target = memoryview(buffer).cast("B")
        data = self._take(len(target))
        target[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return bytes(self._take(self._location.length))

    def _take(self, most: int) -> memoryview:
        length = max(0, min(most, self._location.length - self._position))
        data = self._read(part_of(self._location, min(self._position, self._location.length), length))
        self._position += length
        return data


def part_of(location: Location, start: int, length: int) -> Location:
    """Return `length` bytes of a location, from `start` on."""
    return Location(location.object, location.offset + start, length)
