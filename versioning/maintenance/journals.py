"""A local file that remembers what was checked: what is immutable need not be checked twice."""

from __future__ import annotations

import os
import struct
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from versioning.maintenance.ids import ID_BYTES, Ids, IdSet
from versioning.packs import spooling

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"forebay.fsck.v2\n"
_HEAD = struct.Struct("<BII")  # kind, count of ids, CRC-32 of the ids
_SAVE_IDS = 512
_FORGET = 0  # in the place of a kind: what was noted of leaves before does not count


class Checked(IntEnum):
    """What an id in the journal says; the numbers are stored."""

    LEAF = 1
    """A leaf and all objects that it names are there."""
    LEAF_BYTES = 2
    """The bytes of all files in the repository that a leaf names are right."""
    OBJECT = 3
    """The bytes of a pack or blob are right."""
    LINE = 4
    """A line of a log can be read."""
    NAMED = 5
    """A leaf that was good names a pack or blob; the id is mixed with the object's size."""


_OF_LEAVES = (Checked.LEAF, Checked.LEAF_BYTES, Checked.NAMED)


class Journal:
    """Remembers ids in a file, or in memory only. Appended to, so a crash loses the last few at most.

    Args:
        path: The file; None: none.
        repository: Id of the repository; a journal of another one is begun anew.

    Raises:
        SpoolError: If the file cannot be used.
    """

    def __init__(self, path: Path | None, repository: str) -> None:
        self._path = path
        self._sets = {kind: IdSet() for kind in Checked}
        self._waiting: dict[Checked, list[Ids]] = {kind: [] for kind in Checked}
        if path is not None:
            with spooling(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._load(path, _MAGIC + blake3(repository.encode()).digest())

    def contains(self, kind: Checked, ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Say for each id whether it was noted."""
        return self._sets[kind].contains(ids)

    def add(self, kind: Checked, ids: Ids) -> None:
        """Note some."""
        new = ids[self._sets[kind].add(ids)]
        if self._path is None or not len(new):
            return
        self._waiting[kind].append(new)
        if sum(map(len, self._waiting[kind])) >= _SAVE_IDS:
            self.save()

    def count(self, kind: Checked) -> int:
        """Return how many ids were noted."""
        return len(self._sets[kind])

    def forget_leaves(self) -> None:
        """Forget all leaves and what they name."""
        self._forget()
        if self._path is not None:
            with spooling(self._path.parent), open(self._path, "ab") as file:
                file.write(_HEAD.pack(_FORGET, 0, 0))

    def save(self) -> None:
        """Write what was noted to the file."""
        if self._path is None:
            return
        with spooling(self._path.parent), open(self._path, "ab") as file:
            for kind, parts in reversed(self._waiting.items()):  # what leaves name before the leaves
                if parts:
                    data = np.concatenate(parts).tobytes()
                    file.write(_HEAD.pack(kind, len(data) // ID_BYTES, zlib.crc32(data)) + data)
                parts.clear()

    def _load(self, path: Path, magic: bytes) -> None:
        data = path.read_bytes() if path.exists() else b""
        if data[: len(magic)] != magic:
            path.write_bytes(magic)
            return
        at = len(magic)
        while (end := self._take(data, at)) is not None:
            at = end
        os.truncate(path, at)

    def _take(self, data: bytes, at: int) -> int | None:
        """Take one record; returns where the next begins, None if this one is not whole."""
        if at + _HEAD.size > len(data):
            return None
        kind, count, crc = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        body = data[start : start + count * ID_BYTES]
        if kind == _FORGET and not count:
            self._forget()
            return start
        if len(body) != count * ID_BYTES or zlib.crc32(body) != crc or kind not in list(Checked):
            return None
        self._sets[Checked(kind)].add(np.frombuffer(body, np.uint8).reshape(-1, ID_BYTES))
        return start + len(body)

    def _forget(self) -> None:
        for kind in _OF_LEAVES:
            self._sets[kind] = IdSet()
            self._waiting[kind].clear()
