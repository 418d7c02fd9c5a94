"""Backing ids: files of the cache that the kernel reads for those who opened a file of the mount."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache_runtime.mount.operations import Kernel
    from cache_runtime.store.shelf import Lent

_log = logging.getLogger(__name__)
_IOC_WRITE, _FUSE = 1 << 30, 229 << 8
_MAP = Struct("<iIQ")
"""struct fuse_backing_map: descriptor, flags, padding."""
_ID = Struct("<I")
_BACKING_OPEN = _IOC_WRITE | _MAP.size << 16 | _FUSE | 1
_BACKING_CLOSE = _IOC_WRITE | _ID.size << 16 | _FUSE | 2
_FOR_EVER = frozenset({errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ELOOP})
"""What says that no file will do: no right, no such kernel, or the cache is on a file system that stacks too high."""


class BackingIds:
    """Opens and closes backing ids of one connection.

    Attributes:
        refusal: Why the kernel takes no backing file; None while it does.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.refusal: str | None = None

    @property
    def is_possible(self) -> bool:
        """Whether it is worth to try."""
        return self._kernel.passthrough and self.refusal is None

    def open(self, lent: Lent, size: int) -> int:
        """Give a whole file of the cache to the kernel, which holds it open by itself; 0 if it does not take it.

        Args:
            lent: The file.
            size: Bytes of the object: a file that is longer or shorter is not given, for the kernel reads to its end.
        """
        if os.fstat(lent.fd).st_size != size:
            return 0
        try:
            # an array, not bytes: else the id is lost, which is what the call returns
            request = bytearray(_MAP.pack(lent.fd, 0, 0))
            return int(fcntl.ioctl(self._kernel.device, _BACKING_OPEN, request, True))
        except OSError as error:
            if error.errno in _FOR_EVER:
                self.refusal = f"the kernel takes no file of the cache: {error.strerror}"
            _log.warning("not read past the mount: %s", error)
            return 0

    def close(self, backing: int) -> None:
        """Take a file back; handles that read it go on."""
        with suppress(OSError):  # the connection is gone, and its ids with it
            fcntl.ioctl(self._kernel.device, _BACKING_CLOSE, _ID.pack(backing))
