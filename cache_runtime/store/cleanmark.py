"""The mark beside an index that is flushed, and the same since: its length and crc32c in ASCII.

Whoever commits removes it first, durably. So where it is, the index is either what was flushed or damaged, and the CRC
tells which; where it is not, the index is as good as the kernel that holds its unflushed pages.
"""

from __future__ import annotations

import os
from contextlib import suppress

import google_crc32c

_CHUNK_BYTES = 4 << 20


def write_mark(path: str, length: int) -> None:
    """Mark an index of `length` bytes as flushed; the caller holds the write lock."""
    temporary = f"{path}-clean.new"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(f"{length} {_checksum(path, length):08x}\n")
    os.rename(temporary, f"{path}-clean")


def remove_mark(path: str) -> None:
    """Remove the mark before a commit; the caller holds the write lock."""
    with suppress(FileNotFoundError):
        os.unlink(f"{path}-clean")
        # or a crash could bring it back beside pages that were written later
        _flush_directory(os.path.dirname(path))


def has_mark(path: str) -> bool:
    """Say whether an index has a mark, right or not."""
    return os.path.exists(f"{path}-clean")


def is_marked(path: str) -> bool | None:
    """Say whether an index is what its mark says, None where there is no mark."""
    try:
        with open(f"{path}-clean", encoding="ascii", errors="replace") as file:
            mark = file.read(64)
        length = int(mark.split()[0])
        return mark == f"{length} {_checksum(path, length):08x}\n"
    except FileNotFoundError:
        return None
    except (ValueError, IndexError):
        return False


def _checksum(path: str, length: int) -> int:
    crc = 0
    with open(path, "rb", buffering=0) as file:
        while length > 0 and (chunk := file.read(min(length, _CHUNK_BYTES))):
            crc = google_crc32c.extend(crc, chunk)
            length -= len(chunk)
    return int(crc)


def _flush_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
