"""Columns of keys: order, positions, and where to go on."""

from __future__ import annotations

import bisect
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    Keys = pa.Array[Any]

_MOST_TAKEN = 1000
_FEW = 16  # that Python compares sooner than Arrow is called; in code points, whose order is that of their UTF-8


class OrderBroken(Exception):
    """A key came that is not greater than the one before it: the server does not keep byte order."""


def check_ascending(keys: Keys, last: str) -> None:
    """Check that the keys ascend in byte order, starting behind `last`.

    Raises:
        OrderBroken: If they do not.
    """
    if keys[0].as_py() <= last or not is_ascending(keys):
        raise OrderBroken


def is_ascending(keys: Keys) -> bool:
    """Say whether each key is greater than the one before it, in byte order."""
    if len(keys) < _FEW:
        return all(one < other for one, other in pairwise(map(str, keys.to_pylist())))
    return bool(pc.all(pc.less(keys.slice(0, len(keys) - 1), keys.slice(1))).as_py())


def position_after(keys: Keys, key: str, low: int = 0) -> int:
    """Count the keys of an ascending column that are at most `key`; the first `low` are known to be."""
    return bisect.bisect_right(range(len(keys)), key, lo=low, key=lambda at: keys[at].as_py())


def has_key(keys: Keys, key: str) -> bool:
    """Say whether an ascending column has a key."""
    count = position_after(keys, key)
    return count > 0 and keys[count - 1].as_py() == key


def without(batch: pa.RecordBatch, keys: Sequence[str]) -> pa.RecordBatch:
    """Drop rows by key."""
    return batch.filter(pc.invert(pc.is_in(batch.column("key"), value_set=pa.array(keys, pa.string()))))


def restart_point(keys: Keys, after: str, taken: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Choose the key after which a new listing goes on, and say which keys behind it are taken already.

    It is the last key that does not end in "/": asked for what comes after the marker `a/`, SeaweedFS leaves out the
    whole directory.
    """
    at = len(keys) - 1
    while at >= 0 and keys[at].as_py().endswith("/"):
        at -= 1
    taken = (() if at >= 0 else taken) + tuple(str(key) for key in keys.slice(at + 1).to_pylist())
    if len(taken) > _MOST_TAKEN:  # nothing but markers, and no server with markers only is worth the memory
        return taken[-1], ()
    return (keys[at].as_py() if at >= 0 else after), taken
