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
    line = json.dumps(document, ensure_ascii=False).encode() + b"\n"
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
    for line in path.read_text().splitlines():
        document = json.loads(line)
        found.setdefault(document["number"], document)
    return list(found.values())
