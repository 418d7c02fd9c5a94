"""What the server tells the kernel unasked: from a thread of its own.

The kernel takes locks for a notice that it holds while it waits for an answer: a thread that answers would wait for
itself.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import os
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from cache_runtime.mount.protocol import INVAL_ENTRY_OUT, INVAL_INODE_OUT, OUT_HEADER, Notice

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_UNKNOWN = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENOTCONN)
"""The kernel does not know the name or the file, or has left: there was nothing to forget."""


class Notices:
    """Tells notices one after the other, and does other things that may wait.

    Args:
        device: The open /dev/fuse.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._queue: SimpleQueue[tuple[float, int, Callable[[], None]] | None] = SimpleQueue()
        self._numbers = itertools.count()

    def post(self, action: Callable[[], None], *, delay_seconds: float = 0.0) -> None:
        """Do something soon, in the order of these calls, or later."""
        self._queue.put((time.monotonic() + delay_seconds, next(self._numbers), action))

    def stop(self) -> None:
        """Let `run` return, without what was posted for later."""
        self._queue.put(None)

    def run(self) -> None:
        """Work until `stop`."""
        waiting: list[tuple[float, int, Callable[[], None]]] = []
        while True:
            pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            try:
                item = self._queue.get(timeout=pause)
            except Empty:
                heapq.heappop(waiting)[2]()
                continue
            if item is None:
                return
            heapq.heappush(waiting, item)

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Have a name looked up again."""
        self._tell(Notice.INVAL_ENTRY, INVAL_ENTRY_OUT.pack(parent, len(name), 0) + name + b"\0")

    def drop_pages(self, node: int) -> None:
        """Have the pages and attributes of a file or directory forgotten."""
        self._tell(Notice.INVAL_INODE, INVAL_INODE_OUT.pack(node, 0, 0))

    def drop_all_entries(self) -> None:
        """Have every name looked up again: since 7.44."""
        self._tell(Notice.INC_EPOCH, b"")

    def _tell(self, notice: Notice, body: bytes) -> None:
        try:
            os.write(self._device, OUT_HEADER.pack(OUT_HEADER.size + len(body), notice, 0) + body)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
