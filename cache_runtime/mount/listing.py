"""Directories as the kernel reads them: some thousand names at a time, laid out without an object for each.

A position in a directory is a row, so that nothing has to be remembered between two requests: 0 begins, then come "."
and "..", `AT_ROW` + n is before the first child at row n or after it, `END` is behind the last one.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cache_runtime.mount.attributes import ENTRY_WORDS, entries
from cache_runtime.mount.protocol import DIRENT, ENTRY_BYTES, MAX_NAME_BYTES
from cache_runtime.mount.view import Children

if TYPE_CHECKING:
    from collections.abc import Set

    import numpy.typing as npt

    from cache_runtime.mount.attributes import Owner
    from cache_runtime.mount.epochs import Epoch

AT_ROW = 3
END = 1 << 62
KEPT_PAGES = 16
"""Pages that were answered in part; each is that of one reader, and of some MB at most."""

_DIRENT_WORDS = DIRENT.size // 8
_DIRECTORY, _FILE = stat.S_IFDIR >> 12, stat.S_IFREG >> 12
_UNKNOWN_INO = 0xFFFFFFFF
"""Of "..": whoever wants it asks `stat`."""


class Page(NamedTuple):
    """Some children, as the kernel wants them.

    Attributes:
        data: One record after the other.
        ends: Where each ends.
        cookies: The position after each.
    """

    data: memoryview
    ends: npt.NDArray[np.int64]
    cookies: npt.NDArray[np.int64]


class Pages:
    """Where readers of long directories are, so that their next request finds the same page."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, bool, int], tuple[Page, int]] = OrderedDict()

    def find(self, node: int, position: int, *, plus: bool) -> tuple[Page, int] | None:
        """Return a page and the number of the record at a position."""
        return self._kept.get((node, plus, position))

    def keep(self, node: int, page: Page, count: int, *, plus: bool) -> None:
        """Remember that `count` records of a page were answered."""
        if count < len(page.ends):
            self._kept[node, plus, int(page.cookies[count - 1])] = page, count
            if len(self._kept) > KEPT_PAGES:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all: their ids are old."""
        self._kept.clear()


def take(page: Page, first: int, size: int) -> tuple[memoryview, int]:
    """Return the records from a number on that fit into a size, and the number after them."""
    begin = int(page.ends[first - 1]) if first else 0
    last = int(np.searchsorted(page.ends, begin + size, side="right"))
    return page.data[begin : int(page.ends[last - 1]) if last else 0], last


def dots(position: int, ino: int, first_row: int, *, plus: bool) -> bytes:
    """Return the records of "." and "..", from a position below `AT_ROW` on."""
    head = bytes(ENTRY_BYTES if plus else 0)  # without an id: the kernel looks at the name only
    own = head + DIRENT.pack(ino, 1, 1, _DIRECTORY) + b".".ljust(8, b"\0")
    up = head + DIRENT.pack(_UNKNOWN_INO, first_row + AT_ROW, 2, _DIRECTORY) + b"..".ljust(8, b"\0")
    return own + up if position == 0 else up


def lay_out(children: Children, epoch: Epoch, owner: Owner, upgraded: Set[int], *, plus: bool) -> Page:
    """Return the records of READDIR, or of READDIRPLUS. `children` holds one name at least, and only good ones."""
    names = children.names
    lengths = np.fromiter(map(len, names), "i8", len(names))
    cookies = np.empty(len(names), "i8")
    cookies[:-1] = children.rows[1:] + AT_ROW
    cookies[-1] = END if children.next_row is None else children.next_row + AT_ROW
    head = ENTRY_WORDS + _DIRENT_WORDS if plus else _DIRENT_WORDS
    width = head + int(lengths.max() + 7) // 8
    words = np.empty((len(names), width), "<i8")
    heads = entries(children, epoch, owner, upgraded)
    if plus:
        words[:, :ENTRY_WORDS] = heads
    words[:, head - 3] = heads[:, 5]
    words[:, head - 2] = cookies
    words[:, head - 1] = lengths | np.where(children.levels, _DIRECTORY << 32, _FILE << 32)
    padded = np.array(names, f"S{(width - head) * 8}")  # numpy fills up with NULs, and no name ends in one
    words[:, head:] = padded.view("<i8").reshape(len(names), -1)
    sizes = head + (lengths + 7) // 8
    if int(sizes.min()) < width:
        words = words[np.arange(width) < sizes[:, None]]
    return Page(words.reshape(-1).view("u1").data, np.cumsum(sizes) * 8, cookies)


def without_bad_names(children: Children) -> Children:
    """Leave out what the kernel refuses, and the whole directory with it; what it could not look up either."""
    names = children.names
    joined = b"".join(names)
    lengths = list(map(len, names))
    if b"/" not in joined and b"\0" not in joined and lengths and max(lengths) <= MAX_NAME_BYTES and min(lengths) > 2:
        return children
    good = [number for number, name in enumerate(names) if is_good(name)]
    if len(good) == len(names):
        return children
    return Children(
        [names[number] for number in good],
        children.rows[good],
        children.levels[good],
        children.sizes[good],
        children.mtimes_ns[good],
        children.next_row,
    )


def is_good(name: bytes) -> bool:
    """Whether a file or directory of this name can be shown."""
    return 0 < len(name) <= MAX_NAME_BYTES and name not in (b".", b"..") and b"/" not in name and b"\0" not in name
