"""Node ids: what the kernel calls a file by is where its row is, so that no table has to remember it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache_runtime.mount.protocol import ROOT_ID
from cache_runtime.mount.view import ROOT, Place

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ROW_BITS = 36
_LEVEL_BITS = 12
_EPOCH_BITS = 14
_LEVEL_SHIFT = _ROW_BITS
_THROUGH_SHIFT = _LEVEL_SHIFT + _LEVEL_BITS
_EPOCH_SHIFT = _THROUGH_SHIFT + 1

MAX_ROWS = 1 << _ROW_BITS
MAX_LEVEL = (1 << _LEVEL_BITS) - 1
"""A path of 4,096 bytes has 2,048 components at most."""
SLOTS = (1 << _EPOCH_BITS) - 1
"""How many epochs have ids of their own; then they come again, with another generation."""
THROUGH = 1 << _THROUGH_SHIFT
"""Set in the id of a file that old handles read otherwise: to the kernel it is another file of the same number."""


def slot_of(epoch: int) -> int:
    """Return which of the `SLOTS` an epoch has; epochs count from 0, slots from 1, so that no id is 0 or the root's."""
    return epoch % SLOTS + 1


def node_id(slot: int, place: Place) -> int:
    """Return the id of a file or directory, without `THROUGH`; below 2**63."""
    row, level = place
    return ROOT_ID if level == 1 else slot << _EPOCH_SHIFT | level << _LEVEL_SHIFT | row


def node_ids(slot: int, rows: npt.NDArray[np.int64], levels: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Do `node_id` for many, none of them the root."""
    return rows + (levels.astype("i8") << _LEVEL_SHIFT) + (slot << _EPOCH_SHIFT)


def slot_in(node: int) -> int:
    """Return the slot in an id; 0 in the root's, which is that of any epoch, and in what is no id."""
    return node >> _EPOCH_SHIFT


def place_in(node: int) -> Place:
    """Return which file or directory an id names."""
    if node == ROOT_ID:
        return ROOT
    return Place(node & MAX_ROWS - 1, node >> _LEVEL_SHIFT & MAX_LEVEL)


def ino_in(node: int) -> int:
    """Return the number that `stat` shows: the id, whichever way the file is read."""
    return node & ~THROUGH
