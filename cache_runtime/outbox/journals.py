"""Append-only journals: one JSON object a line behind its checksum, so that a torn end is seen and left out."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import google_crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Journal:
    """The records of one file, in the order they were appended. One process at a time writes; not thread-safe.

    Args:
        path: The file; created if it is not there.

    Attributes:
        records: What was in it when it was opened. What follows a line that does not check was never acknowledged, and
            is cut off.

    Raises:
        OSError: If it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.records, good_bytes = _read(path)
        os.ftruncate(self._fd, good_bytes)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; it outlives this process from now on, and a power cut from the next `sync` on."""
        line = _line(record)
        written = os.write(self._fd, line)
        if written != len(line):  # a full disk: the torn line must not hide what comes after it
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Return when everything that was appended is on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; appending is an error from now on."""
        fd, self._fd = self._fd, -1
        os.close(fd)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the records of a journal that another process may be writing; none if there is no such file."""
    try:
        return _read(path)[0]
    except FileNotFoundError:
        return []


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %b\n" % (google_crc32c.value(text), text)


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records up to the first line that does not check, and how many bytes they take."""
    data = path.read_bytes()
    records: list[dict[str, Any]] = []
    good = 0
    for line in _lines(data):
        text = line[9:-1]
        if line[:9] != b"%08x " % google_crc32c.value(text):
            break
        records.append(json.loads(text))
        good += len(line)
    return records, good


def _lines(data: bytes) -> Iterator[bytes]:
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start : end + 1]
        start = end + 1
