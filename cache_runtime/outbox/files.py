"""Writing one file of a parcel: counted against the outbox, and summed on the way."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

import google_crc32c
import numpy

from cache_runtime.errors import OutboxDiskError, OutboxForkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_runtime.outbox.parcels import Outbox

_PIECE_BYTES = 4 << 20


class ParcelFile(io.RawIOBase):
    """A file of a parcel while it is written: seekable, not readable.

    Args:
        path: The local file; it must not be there yet.
        outbox: What its bytes are counted against.
        relieve: See `Outbox.reserve`.

    Attributes:
        is_torn: Whether a write failed, so that nobody can tell what is in it.

    Raises:
        OutboxDiskError: If the file cannot be created; `write` too, if the disk fails or is full.
    """

    def __init__(self, path: Path, outbox: Outbox, *, relieve: Callable[[], None]) -> None:
        self.path = path
        self._outbox = outbox
        self._relieve = relieve
        self._position = 0
        self._crc32c = 0
        self.is_torn = False
        self._process = os.getpid()
        self._summed = 0  # so many bytes from the start are in the sum; -1: written out of order
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutboxDiskError(str(path), error.strerror or str(error)) from error

    def writable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the local file; syncing it is allowed, and not needed."""
        return self._fd

    def tell(self) -> int:
        """Return where the next byte goes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere; as for any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._fd).st_size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = base + offset
        return self._position

    def write(self, data: Buffer, /) -> int:
        """Write all the bytes; waits while the outbox is full.

        Raises:
            OutboxFullError: If it stays full, or this file alone is over its limit.
            OutboxForkError: In a process that was forked from the one that opened the file; so do the calls below.
        """
        self._check_ours()
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), _PIECE_BYTES):
                self._write_piece(view[start : start + _PIECE_BYTES])
        except BaseException:  # Ctrl-C too: whatever stopped it, a part was written, which must not be committed
            self.is_torn = True
            raise
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file."""
        self._check_ours()
        size = self._position if size is None else size
        os.ftruncate(self._fd, size)
        if size != self._summed:
            self._summed = -1
        return size

    def size_and_sum(self) -> tuple[int, int]:
        """Return the file's length and its CRC-32C, of what was written, not of what the disk made of it.

        A file that was not written from start to end is read for it.
        """
        self._check_ours()
        size = os.fstat(self._fd).st_size
        if self._summed != size:
            self._crc32c, offset = 0, 0
            while piece := os.pread(self._fd, _PIECE_BYTES, offset):
                self._crc32c = google_crc32c.extend(self._crc32c, piece)
                offset += len(piece)
            self._summed = size
        return size, self._crc32c

    def close(self) -> None:
        """Close the local file."""
        if not self.closed:
            super().close()
            os.close(self._fd)

    def _check_ours(self) -> None:
        if self._process != os.getpid():
            raise OutboxForkError(self._process)

    def _write_piece(self, piece: memoryview) -> None:
        self._outbox.reserve(len(piece), relieve=self._relieve, beside=self._position)
        try:
            done = 0
            while done < len(piece):
                done += os.pwrite(self._fd, piece[done:], self._position + done)
        except OSError as error:
            raise OutboxDiskError(str(self.path), error.strerror or str(error)) from error
        if self._position == self._summed:
            self._crc32c = google_crc32c.extend(self._crc32c, numpy.frombuffer(piece, numpy.uint8))
            self._summed += len(piece)
        else:
            self._summed = -1
        self._position += len(piece)
