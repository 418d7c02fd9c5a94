"""Memory for shards, or for windows of them, used again: fresh pages cost more than the bytes that go into them."""

from __future__ import annotations

import mmap
import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from versioning.packs import spooling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STEP = 4 << 20  # sizes are rounded up, so that the next shard, which is a little larger, fits
_KEPT = 4  # two windows of each of two shards
SPOOLED_BYTES = 512 << 20
"""A shard larger than this lies in a temporary file, not in memory."""


class Buffers:
    """Lends memory for shards. Thread-safe.

    Args:
        spool: Directory of temporary files; the system's own by default.
    """

    def __init__(self, spool: Path | None = None) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []

    @contextmanager
    def lend(self, size: int) -> Iterator[memoryview]:
        """Lend so many bytes; what is in them is what somebody left there."""
        memory = self._take(size)
        yield memoryview(memory)[:size]
        with self._lock:  # not after an error: a write that was broken off may still read from it
            if len(memory) <= SPOOLED_BYTES and len(self._free) < _KEPT:
                self._free.append(memory)

    def _take(self, size: int) -> mmap.mmap:
        with self._lock:
            for number, memory in enumerate(self._free):
                if len(memory) >= size:
                    return self._free.pop(number)
            self._free.clear()
        rounded = -(-size // _STEP) * _STEP
        if rounded <= SPOOLED_BYTES:
            return mmap.mmap(-1, rounded)
        with spooling(self._spool), tempfile.TemporaryFile(prefix="forebay-pack-", dir=self._spool) as file:
            file.truncate(size)
            return mmap.mmap(file.fileno(), size)
