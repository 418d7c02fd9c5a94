"""Which children of a directory some neighbouring rows of a leaf show: whole columns at once, no object per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from versioning.columns import as_positions, compute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from versioning.positions import LeafRows

_LONG = 1 << 20  # bytes; no path is
_STEP = 4096  # rows looked at in one go


class NamedRows(NamedTuple):
    """Children, in order.

    Attributes:
        names: Of each.
        is_file: Whether it is one; else it is a directory.
        rows: Number in the tree of the file, or of the first file below.
        sizes: Of the file at that row.
        mtimes_ns: Of the file at that row, or `UNKNOWN_TIME`.
        stop: The row behind the last that was looked at.
    """

    names: list[bytes]
    is_file: NDArray[np.bool_]
    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    mtimes_ns: NDArray[np.int64]
    stop: int

    @property
    def last_is_directory(self) -> bool:
        """Whether more files of the last child may follow."""
        return bool(self.names) and not self.is_file[-1]

    def where(self, shown: Sequence[bool] | None) -> NamedRows:
        """Leave some out; None: none."""
        if shown is None:
            return self
        kept = np.array(shown, dtype=np.bool_)
        names = [name for name, is_kept in zip(self.names, shown, strict=True) if is_kept]
        return NamedRows(names, self.is_file[kept], self.rows[kept], self.sizes[kept], self.mtimes_ns[kept], self.stop)


def named_rows(leaf: LeafRows, row: int, stop: int, prefix_bytes: int) -> NamedRows:
    """Return the children that the next rows of a leaf show.

    Args:
        leaf: Holds the row.
        row: The first to look at: the first of a child.
        stop: The row of the tree behind the directory's last.
        prefix_bytes: How much of each path is the directory's, with a slash at its end.
    """
    stop = min(stop, leaf.stop, row + _STEP)
    start, count = row - leaf.start, stop - row
    # without an end, Arrow's estimate of the result's size overflows
    rests = compute.binary_slice(leaf.binary_paths.slice(start, count), prefix_bytes, _LONG)
    is_file = np.asarray(compute.find_substring(rests, b"/").to_numpy()) < 0
    if is_file.all():
        at = np.arange(start, start + count)
    else:
        rests = compute.list_element(compute.split_pattern(rests, b"/", max_splits=1), 0)
        at = start + (chosen := _firsts(rests, is_file))
        rests, is_file = rests.take(as_positions(chosen)), is_file[chosen]
    names: list[bytes] = rests.to_numpy(zero_copy_only=False).tolist()
    return NamedRows(names, is_file, leaf.start + at, leaf.sizes[at], leaf.mtimes_ns[at], stop)


def _firsts(names: Any, is_file: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the positions at which another child begins."""
    differs = compute.not_equal(names.slice(1), names.slice(0, len(names) - 1)).to_numpy(zero_copy_only=False)
    begins = np.ones(len(names), dtype=np.bool_)
    begins[1:] = differs | (is_file[1:] != is_file[:-1])
    return np.flatnonzero(begins)
