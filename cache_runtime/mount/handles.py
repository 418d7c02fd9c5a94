"""Open files."""

from __future__ import annotations

import errno
import os
from itertools import count
from typing import TYPE_CHECKING

from cache_runtime.store.layout import SMALL_BYTES

if TYPE_CHECKING:
    from cache_runtime.mount.ahead import Stream
    from cache_runtime.mount.operations import Opening
    from sources import Location


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
