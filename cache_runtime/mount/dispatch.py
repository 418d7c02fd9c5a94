"""Which operation answers which request."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from cache_runtime.mount.names import refused
from cache_runtime.mount.operations import Part, opened_bytes
from cache_runtime.mount.protocol import (
    ACCESS_IN,
    GETXATTR_IN,
    GETXATTR_OUT,
    OPEN_IN,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    Opcode,
    OpenFlag,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from cache_runtime.mount.epochs import Epochs
    from cache_runtime.mount.names import Names
    from cache_runtime.mount.operations import FileOperations

    Handler = Callable[[int, memoryview, int, int], "Buffer | None"]
    """From node, body of the request, unique and pid to the body of the answer, or None if it comes later."""

WRITES = frozenset(
    (
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.TMPFILE,
        Opcode.FALLOCATE,
        Opcode.COPY_FILE_RANGE,
        Opcode.COPY_FILE_RANGE_64,
    )
)
"""The kernel sends none of them for a read-only mount, but somebody may remount it."""

IN_LANE = frozenset(
    map(
        int,
        (
            Opcode.LOOKUP,
            Opcode.GETATTR,
            Opcode.OPEN,
            Opcode.READDIR,
            Opcode.READDIRPLUS,
            Opcode.GETXATTR,
            Opcode.LISTXATTR,
        ),
    )
)
"""They ask the version, which serves one thread at a time and may have to fetch a part of itself."""

READ_LATER = -1
"""No opcode of the kernel: a READ of a file that has to be found first, while another thread asks the version."""

SILENT = frozenset((int(Opcode.FORGET), int(Opcode.BATCH_FORGET), int(Opcode.NOTIFY_REPLY)))
"""They have no answer; and there is no table to take anything out of."""

_MAY_WRITE = 2


class Dispatch:
    """Takes requests apart.

    Args:
        names: Answers about names.
        files: Answers about bytes.
        epochs: The versions.
        follows: Whether other versions will come: then a listing of the root stays in the version it began in.
    """

    def __init__(self, names: Names, files: FileOperations, epochs: Epochs, *, follows: bool) -> None:
        self._names = names
        self._files = files
        self._epochs = epochs
        self._follows = follows

    def table(self) -> dict[int, Handler]:
        """Return who answers what; the rest is ENOSYS, which the kernel does not ask again.

        So it is for FLUSH, of which nothing remains to be done, and LSEEK, which the kernel does right for files
        without holes.
        """
        handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._look_up,
            Opcode.GETATTR: self._describe,
            Opcode.READLINK: _no_link,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            READ_LATER: self._read_later,
            Opcode.RELEASE: self._release,
            Opcode.READDIR: self._list,
            Opcode.READDIRPLUS: self._list_plus,
            Opcode.GETXATTR: self._attribute,
            Opcode.LISTXATTR: self._attribute_names,
            Opcode.STATFS: self._statistics,
            Opcode.ACCESS: _access,
            Opcode.DESTROY: _done,
        }
        if self._follows:
            handlers[Opcode.OPENDIR] = self._open_directory
            handlers[Opcode.RELEASEDIR] = _done
        handlers.update(dict.fromkeys(map(int, WRITES), _read_only))
        return handlers

    def _look_up(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        return self._names.look_up(node, _name(bytes(body)))

    def _describe(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        return self._names.describe(node)

    def _open(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer | None:
        opened = self._files.open(self._names.opening(node, OPEN_IN.unpack_from(body)[0], pid), unique)
        return None if opened is None else opened_bytes(opened)

    def _read(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer | None:
        handle, offset, size, _ = READ_IN.unpack_from(body)
        if handle:
            return self._files.read(handle, offset, size, unique)
        find = partial(self._names.opening, node, os.O_RDONLY, pid)
        return self._files.read_unopened(node, find, Part(offset, size), unique)

    def _read_later(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer | None:
        _, offset, size, _ = READ_IN.unpack_from(body)
        find = partial(self._names.opening, node, os.O_RDONLY, pid)
        self._files.read_unopened_later(find, Part(offset, size), unique)
        return None

    def _release(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        self._files.release(RELEASE_IN.unpack_from(body)[0])
        return b""

    def _open_directory(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        return OPEN_OUT.pack(self._epochs.newest.number, OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR, 0)

    def _list(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        return self._records(node, body, plus=False)

    def _list_plus(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        return self._records(node, body, plus=True)

    def _records(self, node: int, body: memoryview, *, plus: bool) -> Buffer:
        handle, position, size, _ = READ_IN.unpack_from(body)
        number = handle if self._follows else -1
        return self._names.list(node, position, size, plus=plus, epoch_number=number)

    def _attribute(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        size = GETXATTR_IN.unpack_from(body)[0]
        return _sized(self._names.attribute(node, _name(bytes(body[GETXATTR_IN.size :]))), size)

    def _attribute_names(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        return _sized(self._names.attribute_names(node), GETXATTR_IN.unpack_from(body)[0])

    def _statistics(self, node: int, body: memoryview, unique: int, pid: int) -> Buffer:
        return self._names.statistics()


def _name(body: bytes) -> bytes:
    return body.partition(b"\0")[0]


def _sized(value: bytes, size: int) -> bytes:
    """Return a value for a caller who has room for `size` bytes, or asks with 0 how many it is."""
    if size == 0:
        return GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise refused(errno.ERANGE)
    return value


def _done(node: int, body: memoryview, unique: int, pid: int) -> Buffer:
    return b""


def _no_link(node: int, body: memoryview, unique: int, pid: int) -> Buffer:
    raise refused(errno.EINVAL)


def _read_only(node: int, body: memoryview, unique: int, pid: int) -> Buffer:
    raise refused(errno.EROFS)


def _access(node: int, body: memoryview, unique: int, pid: int) -> Buffer:
    """Answer ACCESS, which the kernel asks only if it does not check modes by itself."""
    if ACCESS_IN.unpack_from(body)[0] & _MAY_WRITE:
        raise refused(errno.EROFS)
    return b""
