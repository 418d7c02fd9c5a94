"""What the disk of a working copy holds at some paths, as the planner asks."""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning.columns import take
from versioning.worktree.hashing import hash_file
from versioning.worktree.index import UNSETTLED, listed
from versioning.worktree.places import Obstructed, Places
from versioning.worktree.planning import Found, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from versioning.worktree.clock import Clock
    from versioning.worktree.hashing import Hashed
    from versioning.worktree.index import Index


class Inspector:
    """Looks at paths of a working copy.

    Args:
        root: The working copy.
        index: Its index.
        places: Its directories.
        clock: Its file system's.
        halfway: Hashes that an interrupted update has written, by path: these bytes are nobody's work.

    Attributes:
        hashed: What had to be read, by path.
    """

    def __init__(
        self, root: Path, index: Index, places: Places, clock: Clock, *, halfway: Mapping[str, bytes] | None = None
    ) -> None:
        self._root = root
        self._index = index
        self._places = places
        self._clock = clock
        self._halfway = halfway or {}
        self.hashed: dict[str, Hashed] = {}

    def look(self, paths: Sequence[str], oid_of: Callable[[int], bytes | None] = lambda at: None) -> Iterator[Found]:
        """Yield what the disk holds at each path.

        Args:
            paths: Sorted ones are quicker.
            oid_of: Gives the hash wanted at a path, by its number in `paths`; asked only where bytes are compared.
        """
        if not paths:
            return
        rows = self._index.positions(pa.array(paths, pa.string()))
        known: Any = take(self._index.rows, rows[rows >= 0])
        columns = (listed(known.column(name)) for name in ("size", "mtime_ns", "ctime_ns", "inode", "oid"))
        stats = zip(*columns, strict=True)
        for number, (path, row) in enumerate(zip(paths, rows.tolist(), strict=True)):
            recorded = next(stats) if row >= 0 else None
            yield self._look(path, recorded, partial(oid_of, number))

    def _look(
        self, path: str, recorded: tuple[int, int, int, int, bytes] | None, wanted: Callable[[], bytes | None]
    ) -> Found:
        tracked = recorded is not None
        try:
            found = self._places.stat(path)
        except Obstructed as obstructed:
            return Found(path, State.BLOCKED, tracked, (obstructed.path,))
        if found is None:
            return Found(path, State.ABSENT, tracked)
        if stat.S_ISDIR(found.st_mode):
            return Found(path, State.DIRECTORY, tracked, tuple(self._files_in(path)))
        if not stat.S_ISREG(found.st_mode):
            return Found(path, State.CHANGED, tracked)
        if recorded is not None and is_same(found, recorded):
            return Found(path, State.CLEAN, tracked)
        return Found(path, self._compare(path, recorded, wanted), tracked)

    def _compare(
        self, path: str, recorded: tuple[int, int, int, int, bytes] | None, wanted: Callable[[], bytes | None]
    ) -> State:
        hashed = hash_file(self._places, path, self._clock)
        if hashed is None:
            return State.CHANGED
        self.hashed[path] = hashed
        if hashed.oid == wanted():
            return State.WANTED
        known = recorded is not None and hashed.oid == recorded[-1]
        return State.CLEAN if known or hashed.oid == self._halfway.get(path) else State.CHANGED

    def _files_in(self, directory: str) -> Iterator[str]:
        for top, _, names in os.walk(self._root / directory):
            for name in names:
                yield os.path.relpath(os.path.join(top, name), self._root)


def is_same(found: os.stat_result, recorded: tuple[int, int, int, int, bytes]) -> bool:
    """Say whether a stat is the one that was recorded, and tells that the bytes are, too."""
    size, mtime_ns, ctime_ns, inode, _ = recorded
    return (
        found.st_size == size
        and found.st_mtime_ns == mtime_ns
        and found.st_ctime_ns == ctime_ns != UNSETTLED
        and found.st_ino == inode & 0xFFFF_FFFF_FFFF_FFFF
    )
