"""What `stat` shows of the files of a version: they have bytes and a time, and for the rest what the mount says."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache_runtime.mount.nodes import THROUGH, node_id, node_ids
from cache_runtime.mount.protocol import ATTR, ENTRY_BYTES, ENTRY_HEAD, FOREVER_SECONDS, PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Set

    import numpy.typing as npt

    from cache_runtime.mount.epochs import Epoch
    from cache_runtime.mount.view import Children, Found

ENTRY_WORDS = ENTRY_BYTES // 8
FILE_MODE = stat.S_IFREG | 0o444
DIRECTORY_MODE = stat.S_IFDIR | 0o555
LINKS = 1
"""Of directories too: 2 would say that there are no directories in it, and some programs would not look."""
_SECOND = 1_000_000_000
_U64 = (1 << 64) - 1


@dataclass(frozen=True)
class Owner:
    """Whose the files are.

    Attributes:
        uid: User.
        gid: Group.
    """

    uid: int
    gid: int


def attributes(found: Found, ino: int, owner: Owner) -> bytes:
    """Return the struct for one file or directory."""
    seconds, nanoseconds = divmod(found.mtime_ns, _SECOND)
    seconds &= _U64  # before 1970 is two's complement
    mode = DIRECTORY_MODE if found.place.level else FILE_MODE
    blocks = (found.size + 511) >> 9
    times = (seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds)
    return ATTR.pack(ino, found.size, blocks, *times, mode, LINKS, owner.uid, owner.gid, 0, PAGE_BYTES, 0)


def entry(found: Found, epoch: Epoch, owner: Owner, upgraded: Set[int]) -> bytes:
    """Return what a look-up answers."""
    ino = node_id(epoch.slot, found.place)
    node = ino | THROUGH if ino in upgraded else ino
    head = ENTRY_HEAD.pack(node, epoch.number, FOREVER_SECONDS, FOREVER_SECONDS, 0, 0)
    return head + attributes(found, ino, owner)


NO_ENTRY = ENTRY_HEAD.pack(0, 0, FOREVER_SECONDS, 0, 0, 0) + bytes(ATTR.size)
"""There is no such name, and the kernel may remember that."""


def entries(children: Children, epoch: Epoch, owner: Owner, upgraded: Set[int]) -> npt.NDArray[np.int64]:
    """Do `entry` for many: one row each, of `ENTRY_WORDS` words; the sixth is the number that `stat` shows."""
    inos = node_ids(epoch.slot, children.rows, children.levels)
    words = np.zeros((len(inos), ENTRY_WORDS), "<i8")
    words[:, 0] = inos
    if upgraded:
        words[np.isin(inos, np.fromiter(list(upgraded), "i8")), 0] += THROUGH
    words[:, 1] = epoch.number
    words[:, 2:4] = FOREVER_SECONDS
    words[:, 5] = inos
    words[:, 6] = children.sizes
    words[:, 7] = (children.sizes + 511) >> 9
    seconds, nanoseconds = np.divmod(children.mtimes_ns, _SECOND)
    words[:, 8:11] = seconds[:, None]
    modes = np.where(children.levels, DIRECTORY_MODE, FILE_MODE).astype("i8")
    words[:, 11] = nanoseconds << 32 | nanoseconds
    words[:, 12] = modes << 32 | nanoseconds
    words[:, 13] = _pair(LINKS, owner.uid)
    words[:, 14] = _pair(owner.gid, 0)
    words[:, 15] = _pair(PAGE_BYTES, 0)
    return words


def _pair(low: int, high: int) -> int:
    """Return two u32 as one word, signed as numpy has it here."""
    return int.from_bytes((high << 32 | low).to_bytes(8, "little"), "little", signed=True)
