"""The list of bad samples: a file that many processes may append to."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from loaders.running.policies import BadSample


class Quarantine:
    """Names each bad sample once in a file of JSON lines, while this object lives.

    A line is written by one call, in append mode: lines of several ranks on one local disk do not mix, and a crash
    leaves whole lines.

    Args:
        path: The file; made with the first line. None: nothing is written.
        rank: Who writes.

    Attributes:
        numbers: The samples that were named, in order.
    """

    def __init__(self, path: Path | None, *, rank: int) -> None:
        self._path = path
        self._rank = rank
        self.numbers: dict[int, None] = {}

    def add(self, bad: Iterable[BadSample]) -> None:
        """Name those that were not named yet.

        Raises:
            OSError: If the file cannot be written.
        """
        new = [one for one in bad if one.number not in self.numbers]
        for one in new:
            self.numbers[one.number] = None
            if self._path is not None:
                append_line(self._path, {**one._asdict(), "rank": self._rank})


def append_line(path: Path, document: dict[str, Any]) -> None:
    """Append one line of JSON, whole or not at all."""
    # What UTF-8 cannot hold, such as half of a surrogate pair, becomes an escape that JSON has too.
    line = json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        written = os.write(handle, line)
    finally:
        os.close(handle)
    if written != len(line):
        raise OSError(f"{path}: {written} of {len(line)} bytes were written; is the disk full?")


def read_quarantine(path: Path) -> list[dict[str, Any]]:
    """Return what a quarantine file names, each sample once, the first line of it."""
    found: dict[int, dict[str, Any]] = {}
    lines = path.read_bytes().splitlines()  # of bytes: text has more ends of lines, which JSON does not escape
    for line in lines:
        document = json.loads(line)
        found.setdefault(document["number"], document)
    return list(found.values())
