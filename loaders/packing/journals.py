"""Which shards of a pack are stored, in a local file that survives kill -9.

A journal belongs to one pack: commit, layout, transform and format make its name. Its records are appended when their
shards are in the repository; a torn one at the end is cut off.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import google_crc32c
from blake3 import blake3

from loaders.errors import PackRunningError
from loaders.packing.tasks import FORMAT, ShardResult
from sources.locking import locked_file
from versioning.packs import spooling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loaders.packing.tasks import TransformRef
    from loaders.sharding import ShardLayout
    from versioning import CommitId

_HEAD = struct.Struct("<4sII")  # mark, length and CRC-32C of what follows
_MARK = b"FBP1"
_DOOR = "door"  # the lock of the directory
_DOOR_SECONDS = 30.0  # it is held for milliseconds
_KEPT_SECONDS = 7 * 24 * 3600.0
"""A journal that nobody went on with for so long is thrown away: its shards may be collected by then."""


def journal_name(commit: CommitId, layout: ShardLayout, transform: TransformRef | None) -> str:
    """Name a pack: equal for the same work only."""
    about = {
        "format": FORMAT,
        "commit": commit,
        "layout": layout.record(),
        "transform": None if transform is None else [transform.name, transform.code, transform.version],
    }
    return blake3(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


class Journal:
    """The record of one pack. Use `opened_journal`.

    Attributes:
        results: What was in it when it was opened, by shard.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.results = self._load()

    def add(self, result: ShardResult) -> None:
        """Note a shard; one that lacks inputs is not noted, so that the next run tries them again."""
        if result.skipped:
            return
        body = result.to_bytes()
        record = memoryview(_HEAD.pack(_MARK, len(body), google_crc32c.value(body)) + body)
        with spooling(self._path.parent):
            while record:
                record = record[os.write(self._fd, record) :]

    def forget(self) -> None:
        """Delete it: the pack is committed."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _load(self) -> dict[int, ShardResult]:
        found: dict[int, ShardResult] = {}
        good = 0
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            while (body := _next_record(file.read(_HEAD.size), file.read)) is not None:
                result = ShardResult.from_bytes(body)
                found[result.number] = result
                good = file.tell()
        os.ftruncate(self._fd, good)
        return found


def _next_record(head: bytes, read: Callable[[int], bytes]) -> bytes | None:
    if len(head) != _HEAD.size:
        return None
    mark, length, crc32c = _HEAD.unpack(head)
    body = read(length) if mark == _MARK else b""
    return body if len(body) == length and mark == _MARK and google_crc32c.value(body) == crc32c else None


@contextmanager
def opened_journal(directory: Path, name: str, *, resume: bool) -> Iterator[Journal]:
    """Open the journal of a pack for this process alone; old ones of other packs are thrown away.

    Args:
        directory: Of all journals of one repository on this machine.
        name: See `journal_name`.
        resume: Go on with what is in it, rather than begin anew.

    Raises:
        PackRunningError: If another process makes this pack.
        SpoolError: If the file cannot be used.
    """
    with spooling(directory):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.journal"
        with contextlib.ExitStack() as held:
            # Nobody takes or deletes the lock of a journal without this one: one that is deleted is held by nobody.
            with locked_file(directory / _DOOR, seconds=_DOOR_SECONDS):
                _forget_old(directory)
                try:
                    held.enter_context(locked_file(directory / f"{name}.lock", seconds=0))
                except TimeoutError as error:
                    raise PackRunningError(
                        "another process of this machine makes the same pack; wait until it ends, or end it"
                    ) from error
            if not resume:
                path.unlink(missing_ok=True)
            journal = Journal(path)
            held.callback(journal.close)
            yield journal


def stored_shards(directory: Path | None, name: str) -> int:
    """Count the shards that a journal knows, without touching it."""
    if directory is None or not (directory / f"{name}.journal").exists():
        return 0
    numbers = set[int]()
    with open(directory / f"{name}.journal", "rb") as file:
        while (body := _next_record(file.read(_HEAD.size), file.read)) is not None:
            numbers.add(ShardResult.from_bytes(body).number)
    return len(numbers)


def _forget_old(directory: Path) -> None:
    """Delete journals that nobody holds, if nothing was added to them for long."""
    for path in {*directory.glob("*.journal"), *directory.glob("*.lock")}:
        with contextlib.suppress(FileNotFoundError, TimeoutError):
            if time.time() - path.stat().st_mtime <= _KEPT_SECONDS:
                continue
            lock = path.with_suffix(".lock")
            with locked_file(lock, seconds=0):
                if path == lock and path.with_suffix(".journal").exists():
                    continue  # it goes with its journal
                path.unlink()
                lock.unlink(missing_ok=True)
