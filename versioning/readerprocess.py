"""The process that reads files for another: what it is told comes by its input, all else lies in shared memory.

It has a group of its own, so that Ctrl-C is the other's matter, and ends when the other does: its input ends then. It
leaves nothing behind, since it writes no file.
"""

from __future__ import annotations

import marshal
import mmap
import os
import struct
from typing import Any, NamedTuple

from versioning.errors import UnreadableFileError
from versioning.filereading import buffer_bytes, take_files

MESSAGE = struct.Struct("<II")
"""Which part of the memory, and how many bytes its table has."""
READY = MESSAGE.pack(0xF03EBA1, 0)
"""What it says first."""
PARTS = 4
"""Of the memory: one is packed while others are read into. On a busy machine a process waits long for its turn."""
TABLE_BYTES = 4 << 20
"""Behind the bytes of a part: files that are to be read, then what became of them. Longer than any of either."""


class Part(NamedTuple):
    """One half of the memory that two processes share.

    Attributes:
        tar: The bytes of files, as in a tar.
        table: A value that is marshalled.
    """

    tar: memoryview
    table: memoryview

    def put(self, value: Any) -> int:
        """Write the table; return its length, or -1 if it is too long."""
        data = marshal.dumps(value)
        if len(data) > len(self.table):
            return -1
        self.table[: len(data)] = data
        return len(data)

    def get(self, length: int) -> object:
        """Read the table."""
        return marshal.loads(self.table[:length])  # written by a process of ours, in private memory


def parts_of(memory: mmap.mmap, limit: int) -> list[Part]:
    """Divide the memory."""
    view, size = memoryview(memory), part_bytes(limit)
    parts = [view[number * size : (number + 1) * size] for number in range(PARTS)]
    return [Part(part[: buffer_bytes(limit)], part[buffer_bytes(limit) :]) for part in parts]


def part_bytes(limit: int) -> int:
    """Return the size of each part of the memory, for files of at most `limit` bytes."""
    return -(-(buffer_bytes(limit) + TABLE_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE


def serve(shared: int, limit: int, follow: bool) -> None:
    """Read files until the input ends; input and output are those of the process.

    Args:
        shared: File descriptor of the memory.
        limit: As in `take_files`.
        follow: As in `take_files`.
    """
    parts = parts_of(mmap.mmap(shared, 0), limit)
    try:
        os.write(1, READY)
        while request := os.read(0, MESSAGE.size):
            number, length = MESSAGE.unpack(request)
            os.write(1, MESSAGE.pack(number, _answer(parts[number], length, limit, follow)))
    except BrokenPipeError:  # the other one is gone
        pass
    os._exit(0)  # the interpreter takes some milliseconds to tidy up what is not worth it


def _answer(part: Part, length: int, limit: int, follow: bool) -> int:
    files = part.get(length)
    try:
        return part.put(tuple(take_files(files, part.tar, limit=limit, follow=follow)))  # type: ignore[arg-type]
    except UnreadableFileError as error:
        return part.put((error.file, error.reason))
