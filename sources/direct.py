"""Writing past the page cache: what is larger than memory in all would push out what others read."""

from __future__ import annotations

import errno
import fcntl
import os

import pyarrow as pa

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

_ALIGNED = 4096
"""Address and length of a direct write are multiples of this: of a block of any disk, and of a page."""


def write_direct(fd: int, data: Buffer) -> None:
    """Append bytes to a file past the page cache; as usual what cannot be written so. Does not sync.

    What can be: whole pages, of memory that begins at a page, at a multiple of their size in the file, where the file
    system has direct writes at all.
    """
    view = memoryview(data).cast("B")
    whole = 0 if pa.py_buffer(view).address % _ALIGNED else len(view) // _ALIGNED * _ALIGNED
    done = 0
    if whole and _set_direct(fd, True):
        try:
            while done < whole:
                done += os.write(fd, view[done:whole])
        except OSError as error:
            if error.errno != errno.EINVAL:  # the file system wants something else, or wrote half a block
                raise
        finally:
            _set_direct(fd, False)
    while done < len(view):
        done += os.write(fd, view[done:])


def _set_direct(fd: int, is_direct: bool) -> bool:
    """Return whether the file system took it."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if is_direct else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return True
