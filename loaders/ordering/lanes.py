"""Lanes: a fixed cut of the shards, so that a rank reads the same few of them whatever the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from loaders.order import stream_key
from loaders.ordering.shuffling import Indices, coarse_order

DEFAULT_LANES = 64
DEFAULT_WINDOW = 8  # shards of all lanes together
_SHARDS_PER_LANE = 4
_SAMPLES_PER_WINDOW = 1024  # shorter windows cost more than their samples, and hardly shuffle
_LANE_KEY = 0x6C616E65  # keeps the hashes apart from those of an epoch


@dataclass(frozen=True, eq=False)
class LaneCut:
    """Samples in lanes. Each lane has n // C or n // C + 1 of them; a shard that lies across a cut is in both lanes.

    Attributes:
        first: int64, shape (pieces,): first sample of each piece; a piece is a shard, or a part of one.
        counts: int32 if that is enough, shape (pieces,): samples of each piece, at least 1.
        lane_starts: int64, shape (C + 1,): the pieces [lane_starts[c], lane_starts[c + 1]) make lane c.
    """

    first: Indices
    counts: npt.NDArray[np.signedinteger]
    lane_starts: Indices

    def __len__(self) -> int:
        return len(self.lane_starts) - 1

    def pieces(self, lane: int) -> tuple[Indices, npt.NDArray[np.signedinteger]]:
        """Return first samples and counts of the pieces of one lane."""
        part = slice(int(self.lane_starts[lane]), int(self.lane_starts[lane + 1]))
        return self.first[part], self.counts[part]


def cut_lanes(shard_starts: Indices, lanes: int, *, seed: int) -> LaneCut:
    """Deal out shards into lanes, cut to the sample; in O(shards), the same for all epochs of a seed.

    The shards are put in a hashed order, so that neighbours in storage, which may be alike, go to different ranks.

    Args:
        shard_starts: int64, shape (shards + 1,), from 0 to n; empty shards are left out.
        lanes: At most n.
        seed: Of the run, not of the epoch.
    """
    counts = np.diff(shard_starts)
    first = shard_starts[:-1]
    if not counts.all():
        first, counts = first[counts > 0], counts[counts > 0]
    if lanes == 1:
        return LaneCut(first, _narrow(counts), np.array([0, len(first)], dtype=np.int64))
    order = coarse_order(len(first), stream_key(seed, _LANE_KEY))
    first, counts = first[order], counts[order]
    ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    n = int(ends[-1])
    bounds = np.array([lane * n // lanes for lane in range(lanes + 1)], dtype=np.int64)
    at = np.searchsorted(ends, bounds)
    inside = ends[at] != bounds  # these cuts lie inside of a shard
    edges = np.insert(ends, at[inside], bounds[inside])
    shard = np.insert(np.arange(len(first)), at[inside], at[inside] - 1)
    starts = first[shard] + edges[:-1] - ends[shard]
    return LaneCut(starts, _narrow(np.diff(edges)), np.searchsorted(edges, bounds))


def _narrow(counts: Indices) -> npt.NDArray[np.signedinteger]:
    """Halve the bytes where they fit: an epoch starts by gathering counts at random, which waits for memory."""
    return counts.astype(np.int32) if counts.max() < 1 << 31 else counts


def usable_lanes(lanes: int, *, batch_size: int, shards: int) -> int:
    """Return how many lanes there can be: a divisor of `lanes` and of the batch, with four shards for each lane.

    One lane is plain striping: each rank reads all shards.
    """
    common = gcd(lanes, batch_size)
    return max(d for d in range(1, common + 1) if common % d == 0 and (d == 1 or d * _SHARDS_PER_LANE <= shards))


def usual_window(lanes: int, *, samples: int, shards: int) -> int:
    """Return the default window of a lane in shards: eight in all lanes together, and at least 1024 samples."""
    by_samples = -(-_SAMPLES_PER_WINDOW * shards // samples)
    return max(1, -(-DEFAULT_WINDOW // lanes), min(by_samples, shards))
