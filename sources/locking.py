"""A lock file that several processes take turns with."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_SECONDS = 0.002


@contextmanager
def locked_file(path: str | os.PathLike[str], *, seconds: float) -> Iterator[None]:
    """Hold a file's lock, which the kernel frees with its holder; Linux carries flock over NFS too.

    Threads exclude each other as processes do. The file is created if it is missing and stays.

    Args:
        path: The lock file.
        seconds: How long to wait for another holder.

    Raises:
        TimeoutError: If it is still held then.
        OSError: If the file cannot be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + seconds
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process holds its lock for {seconds:g} s")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
