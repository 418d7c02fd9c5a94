"""Open files."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING

from cache_runtime.store.layout import SMALL_BYTES

if TYPE_CHECKING:
    from cache_runtime.mount.ahead import Stream
    from cache_runtime.mount.operations import Opening
    from sources import Location

_MOST_UNOPENED = 1024


class Handle:
    """One open file.

    Attributes:
        node: The id that it was opened by.
        path: Of the file, for the log.
        location: Its bytes.
        size: How many.
        row: Its number.
        view: Its version.
        is_large: Whether its bytes are in an object that is cached by blocks.
        stream: What is known of how it is read; None until it is read.
    """

    __slots__ = ("is_large", "location", "node", "path", "row", "size", "stream", "view")

    def __init__(self, opening: Opening) -> None:
        self.node = opening.node
        self.row = opening.row
        self.view = opening.view
        self.path = opening.file.path
        self.location: Location = opening.file.location
        self.size = self.location.length
        self.is_large = self.location.object.size > SMALL_BYTES
        self.stream: Stream | None = None


class Handles:
    """Open files by their numbers, which are never used again."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._open: dict[int, Handle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, handle: Handle) -> int:
        """Give a handle its number."""
        number = next(self._numbers)
        self._open[number] = handle
        return number

    def get(self, number: int) -> Handle:
        """Return a handle.

        Raises:
            OSError: EBADF.
        """
        try:
            return self._open[number]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def pop(self, number: int) -> Handle | None:
        """Forget a handle, if it is there."""
        return self._open.pop(number, None)


class Unopened:
    """Files that the kernel opened by itself, by their nodes: those that were read last. For any number of threads.

    Nobody tells when they are closed, so that the oldest ones are forgotten; they are found again when they are read.
    """

    def __init__(self, *, most: int = _MOST_UNOPENED) -> None:
        self._most = most
        self._lock = Lock()
        self._read: OrderedDict[int, Handle] = OrderedDict()

    def __contains__(self, node: int) -> bool:
        return node in self._read

    def __len__(self) -> int:
        return len(self._read)

    def get(self, node: int) -> Handle | None:
        """Return a file that is read again."""
        with self._lock:
            found = self._read.get(node)
            if found is not None:
                self._read.move_to_end(node)
            return found

    def add(self, handle: Handle) -> Handle:
        """Remember a file; return what it is remembered by, that of another thread if it was first."""
        with self._lock:
            found = self._read.setdefault(handle.node, handle)
            if len(self._read) > self._most:
                _, old = self._read.popitem(last=False)
                if old.stream is not None:
                    old.stream.is_wanted = False
            return found
