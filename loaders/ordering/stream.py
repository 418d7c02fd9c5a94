"""The order `stream` of one lane in one epoch: shards permuted, then two windows over them, the second half-offset.

A window holds K shards. Positions are permuted inside the windows of the first row, then inside those of the second
row, whose edges are the middles of the first. A sample so moves over two windows at most, at most 2 K shards are in use
at a time and at most K are new at once; any position needs three windows, wherever it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from loaders.order import permute, stream_key
from loaders.ordering.shuffling import SHORT, Indices, hashed_order

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARDS, _FIRST, _SECOND = 1, 2, 3  # what a key is for
_KEPT = 2  # windows of each row that are kept: a reader goes forward


class LaneStream:
    """The samples of one lane in the order of one epoch.

    Windows of up to `SHORT` samples are permuted as a whole and kept; in longer ones each position is computed alone,
    so that a start costs the same there.

    Args:
        first: int64: first sample of each piece of the lane.
        counts: Samples of each piece, at least 1.
        window: Pieces in a window, K.
        key: Hash of seed, epoch and lane.
    """

    def __init__(self, first: Indices, counts: npt.NDArray[np.signedinteger], *, window: int, key: int) -> None:
        order = hashed_order(len(first), stream_key(key, _SHARDS))
        self._key = key
        self._order = order
        self._first = first
        self._piece_ends = np.zeros(len(first) + 1, dtype=np.int64)
        np.cumsum(counts[order], out=self._piece_ends[1:])
        windows = -(-len(first) // window)
        self._pieces = np.arange(windows + 1) * len(first) // windows  # even: no short window at the end
        self._edges = self._piece_ends[self._pieces]
        middles = (self._edges[:-1] + self._edges[1:]) // 2
        self._half_edges = np.concatenate([self._edges[:1], middles, self._edges[-1:]])
        self._whole = _Recent(self._whole_window)
        self._mixed = _Recent(self._mixed_window)

    def __len__(self) -> int:
        return int(self._edges[-1])

    def slice(self, start: int, stop: int) -> Indices:
        """Return the samples at positions [start, stop)."""
        parts = []
        window = int(np.searchsorted(self._half_edges, start, side="right")) - 1
        while start < stop:
            first, end = int(self._half_edges[window]), int(self._half_edges[window + 1])
            end = min(end, stop)
            if end > start:
                parts.append(self._samples(window, start - first, end - first))
                start = end
            window += 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, dtype=np.int64)])

    def at(self, positions: Indices) -> Indices:
        """Return the samples at some positions, ascending; best where they lie close together."""
        if not positions.size:
            return positions.copy()
        first = int(positions[0])
        return self.slice(first, int(positions[-1]) + 1)[positions - first]

    def _samples(self, window: int, start: int, stop: int) -> Indices:
        """Return what is at [start, stop) of a window of the second row."""
        around = self._edges[max(window - 1, 0) : window + 2]
        if max(int(np.diff(around).max()), self._size(self._half_edges, window)) <= SHORT:
            return self._mixed(window)[start:stop]
        return self._points(window, np.arange(start, stop, dtype=np.int64))

    def _mixed_window(self, window: int) -> Indices:
        """Make a window of the second row out of the second half of one window and the first half of the next."""
        first, edge, end = self._bounds(window)
        parts = []
        if first < edge:
            parts.append(self._whole(window - 1)[first - edge :])
        if edge < end:
            parts.append(self._whole(window)[: end - edge])
        return np.concatenate(parts)[hashed_order(end - first, self._window_key(_SECOND, window))]

    def _whole_window(self, window: int) -> Indices:
        """Make a window of the first row: its samples, shard after shard, permuted."""
        pieces = slice(int(self._pieces[window]), int(self._pieces[window + 1]))
        ends = self._piece_ends[pieces.start : pieces.stop + 1]
        size = int(ends[-1] - ends[0])
        samples = np.repeat(self._first[self._order[pieces]] - (ends[:-1] - ends[0]), np.diff(ends))
        samples += np.arange(size)
        return samples[hashed_order(size, self._window_key(_FIRST, window))]

    def _points(self, window: int, inside: Indices) -> Indices:
        """Compute single positions of a window of the second row."""
        first, edge, _ = self._bounds(window)
        between = first + self._permuted(inside, self._size(self._half_edges, window), _SECOND, window)
        late = between >= edge
        for row, chosen in ((window - 1, ~late), (window, late)):
            begin = int(self._edges[row]) if 0 <= row < len(self._edges) - 1 else 0
            if chosen.any():
                inside = between[chosen] - begin
                between[chosen] = begin + self._permuted(inside, self._size(self._edges, row), _FIRST, row)
        piece = np.searchsorted(self._piece_ends, between, side="right") - 1
        samples: Indices = self._first[self._order[piece]] + between - self._piece_ends[piece]
        return samples

    def _permuted(self, inside: Indices, size: int, row: int, window: int) -> Indices:
        key = self._window_key(row, window)
        if size <= SHORT:
            return hashed_order(size, key)[inside]
        return permute(inside.astype(np.uint64), n=size, key=key).astype(np.int64)

    def _bounds(self, window: int) -> tuple[int, int, int]:
        """Return begin, edge of the first row inside, and end of a window of the second row."""
        return int(self._half_edges[window]), int(self._edges[window]), int(self._half_edges[window + 1])

    def _size(self, edges: Indices, window: int) -> int:
        return int(edges[window + 1] - edges[window])

    def _window_key(self, row: int, window: int) -> int:
        return stream_key(self._key, row, window)


class _Recent:
    """Keeps what was made last. Two threads at once may make the same twice, and both get it."""

    def __init__(self, make: Callable[[int], Indices]) -> None:
        self._make = make
        self._kept: dict[int, Indices] = {}

    def __call__(self, number: int) -> Indices:
        found = self._kept.get(number)
        if found is None:
            found = self._make(number)
            last = list(self._kept.items())[1 - _KEPT :]
            self._kept = {**dict(last), number: found}
        return found
