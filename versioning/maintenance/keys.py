"""The four kinds of objects that are named by their hash, and what their keys say."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from versioning.columns import as_bytes, as_mask, compute
from versioning.maintenance.ids import ID_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from versioning.columns import Column, Mask
    from versioning.maintenance.ids import Ids

_DIGITS = 2 * ID_BYTES
_NO_DIGIT = 255
_VALUES: NDArray[np.uint8] = np.full(256, _NO_DIGIT, np.uint8)
_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class ObjectKind(IntEnum):
    """What an object is; the numbers are stored in lists of condemned objects."""

    COMMIT = 0
    NODE = 1
    PACK = 2
    BLOB = 3

    @property
    def folder(self) -> str:
        """Where they lie, below the repository's prefix."""
        return _FOLDERS[self]

    @property
    def suffix(self) -> str:
        """What their keys end with."""
        return _SUFFIXES[self]

    def key(self, identity: bytes) -> str:
        """Return an object's key below the repository's prefix."""
        name = identity.hex()
        return f"{self.folder}{name[:2]}/{name}{self.suffix}"


_FOLDERS = ("commits/", "trees/", "packs/", "blobs/")
_SUFFIXES = (".json", ".parquet", ".tar", "")


def ids_of_keys(keys: Column, kind: ObjectKind, *, prefix: str = "") -> tuple[Mask, Ids]:
    """Read the ids out of keys.

    Args:
        keys: Column of strings.
        kind: Of the objects wanted.
        prefix: What stands in front of the folder.

    Returns:
        For each key whether it is one of that kind, and the ids of those that are, in order.
    """
    start, end = (prefix + kind.folder).encode(), kind.suffix.encode()
    length = len(start) + 3 + _DIGITS + len(end)
    mask = as_mask(compute.equal(compute.binary_length(keys), length)).copy()
    rows = _rows(keys.filter(pa.array(mask)), length)
    digits = _VALUES[rows[:, len(start) + 3 : len(start) + 3 + _DIGITS]]
    good = (digits != _NO_DIGIT).all(axis=1)
    good &= (rows[:, : len(start)] == np.frombuffer(start, np.uint8)).all(axis=1)
    good &= (rows[:, length - len(end) :] == np.frombuffer(end, np.uint8)).all(axis=1)
    good &= (rows[:, len(start) : len(start) + 2] == rows[:, len(start) + 3 : len(start) + 5]).all(axis=1)
    good &= rows[:, len(start) + 2] == ord("/")
    mask[mask] = good
    pairs = digits[good]
    return mask, (pairs[:, ::2] << 4) | (pairs[:, 1::2] & 15)


def _rows(texts: Any, length: int) -> NDArray[np.uint8]:
    """Return texts of one length as rows of bytes."""
    return np.frombuffer(b"".join(as_bytes(texts).to_pylist()), np.uint8).reshape(-1, length)
