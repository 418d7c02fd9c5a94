"""One epoch, cut into global batches: place j of batch g, whatever the world size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from xxhash import xxh3_64

from loaders.order import Order, OrderMode, stream_key
from loaders.ordering.lanes import cut_lanes
from loaders.ordering.stream import LaneStream

if TYPE_CHECKING:
    from loaders.ordering.shuffling import Indices

_BLOCK = 4096  # positions that are permuted at once: a batch of 64 alone costs 30 times as much per sample
_LANE_BLOCK = 1024  # the same, for each lane


class EpochOrder(Protocol):
    """The order of one epoch."""

    def block(self, first: int, last: int, places: slice) -> Indices:
        """Return the samples at some places of whole global batches, int64, shape (last - first, places).

        Args:
            first: First step.
            last: One past the last step; all of them have whole batches.
            places: `slice(start, stop)` of [0, batch_size).
        """
        ...

    def rest(self) -> Indices:
        """Return the samples after the last whole batch, fewer than a batch."""
        ...


class Ordering(Protocol):
    """How all epochs of a run are ordered."""

    @property
    def size(self) -> int:
        """Samples that an epoch delivers."""
        ...

    def epoch(self, epoch: int) -> EpochOrder:
        """Return the order of one epoch."""
        ...

    def steps_at_once(self, share: int) -> int:
        """Return how many steps are best computed at once, for a rank that gets `share` samples of a batch."""
        ...

    def state(self, samples: int) -> dict[str, Any]:
        """Return what a saved position depends on, for JSON.

        Args:
            samples: Samples that the run has delivered until the position.
        """
        ...


class FlatOrdering:
    """Orders that know no shards: batch g is the positions [g * batch_size, (g + 1) * batch_size) of an `Order`."""

    def __init__(self, size: int, mode: OrderMode, *, seed: int, batch_size: int) -> None:
        self.size = size
        self._mode = mode
        self._seed = seed
        self._batch_size = batch_size

    def epoch(self, epoch: int) -> EpochOrder:
        """See `Ordering`."""
        return _FlatEpoch(Order(self.size, self._seed, epoch, self._mode), self._batch_size)

    def steps_at_once(self, share: int) -> int:
        """See `Ordering`."""
        return max(1, _BLOCK // share)

    def state(self, samples: int) -> dict[str, Any]:
        """See `Ordering`."""
        return {"order": self._mode}


class _FlatEpoch:
    def __init__(self, order: Order, batch_size: int) -> None:
        self._order = order
        self._batch_size = batch_size

    def block(self, first: int, last: int, places: slice) -> Indices:
        starts = np.arange(first, last, dtype=np.int64) * self._batch_size
        positions = starts[:, np.newaxis] + np.arange(places.start, places.stop)
        return self._order.at(positions.ravel()).reshape(positions.shape)

    def rest(self) -> Indices:
        return self._order.indices(self._order.n // self._batch_size * self._batch_size, self._order.n)


class StreamOrdering:
    """Shards permuted and mixed by windows, in lanes: batch g takes batch_size / C samples of each lane, lane by lane.

    A rank that gets a C / W-th of the lanes reads the shards of these lanes only.

    Args:
        shard_starts: int64, shape (shards + 1,), from 0 to n.
        seed: Of the run.
        batch_size: A multiple of `lanes`.
        lanes: C, see `lanes.usable_lanes`.
        window: K, shards in a window of a lane.
    """

    def __init__(self, shard_starts: Indices, *, seed: int, batch_size: int, lanes: int, window: int) -> None:
        self.size = int(shard_starts[-1])
        self.lanes = lanes
        self.window = window
        self._seed = seed
        self._each = batch_size // lanes
        self._cut = cut_lanes(shard_starts, lanes, seed=seed)
        self._shards = xxh3_64(np.ascontiguousarray(shard_starts, dtype="<i8").data).hexdigest()

    def epoch(self, epoch: int) -> _StreamEpoch:
        """See `Ordering`; lanes are made when they are asked for."""
        return _StreamEpoch(self, epoch)

    def lane(self, epoch: int, lane: int) -> LaneStream:
        """Return the order of one lane in one epoch; costs O(shards of the lane)."""
        first, counts = self._cut.pieces(lane)
        return LaneStream(first, counts, window=self.window, key=stream_key(self._seed, epoch, lane))

    def steps_at_once(self, share: int) -> int:
        """See `Ordering`."""
        return max(1, _BLOCK // share, _LANE_BLOCK // self._each)

    def state(self, samples: int) -> dict[str, Any]:
        """See `Ordering`."""
        return {"order": "stream", "lanes": self.lanes, "window": self.window, "shards": self._shards}


class _StreamEpoch:
    def __init__(self, ordering: StreamOrdering, epoch: int) -> None:
        self._ordering = ordering
        self._epoch = epoch
        self._each = ordering._each
        self._lanes: dict[int, LaneStream] = {}

    def block(self, first: int, last: int, places: slice) -> Indices:
        each = self._each
        found = np.empty((last - first, places.stop - places.start), dtype=np.int64)
        for lane in range(places.start // each, -(-places.stop // each)):
            begin = max(places.start - lane * each, 0)
            end = min(places.stop - lane * each, each)
            rows = self._lane(lane).slice(first * each, last * each).reshape(-1, each)
            place = lane * each + begin - places.start
            found[:, place : place + end - begin] = rows[:, begin:end]
        return found

    def rest(self) -> Indices:
        ordering = self._ordering
        done = ordering.size // (ordering.lanes * self._each) * self._each
        lanes = map(self._lane, range(ordering.lanes))
        return np.concatenate([lane.slice(done, len(lane)) for lane in lanes])

    def _lane(self, lane: int) -> LaneStream:
        found = self._lanes.get(lane)
        if found is None:
            found = self._lanes[lane] = self._ordering.lane(self._epoch, lane)
        return found
