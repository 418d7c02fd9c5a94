"""From what a caller asked for and what a data set knows of itself to an ordering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from loaders.ordering.epochs import FlatOrdering, Ordering, StreamOrdering
from loaders.ordering.lanes import DEFAULT_LANES, usable_lanes, usual_window

if TYPE_CHECKING:
    from loaders.ordering.shuffling import Indices

OrderName = Literal["auto", "stream", "runs", "full", "none"]
"""How an epoch is ordered.

`stream`: shards are permuted and mixed a few at a time, so that each is read once, whole. `full`: every order of
samples is possible. `runs`: runs of 64 neighbours are permuted over the whole data set, then samples inside windows of
64 such runs. `none`: storage order. `auto`: see `choose_mode`.
"""

_SMALL_BYTES = 1 << 30  # stays in the page cache of any machine that trains
_SAMPLES_PER_SHARD = 8  # with fewer, whole shards are hardly larger than samples


class FixedSamples(Protocol):
    """What a sampler needs to know of its samples; `ShardDataset`, `SampleIndex` and `Mixture` tell it.

    They may tell more: `shard_starts` (int64, shape (shards + 1,)), which the order `stream` needs, `sample_bytes`, and
    `is_local`: whether every node has all of it on its own disks, the same answer on every rank.
    """

    def __len__(self) -> int:
        """Count the samples."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for the same samples in the same order only."""
        ...


@runtime_checkable
class OrdersItself(Protocol):
    """A data set whose epochs are not its samples once each, such as a mixture."""

    def ordering(self, wish: Wish) -> Ordering:
        """Return how its epochs are ordered."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asked for.

    Attributes:
        order: See `OrderName`.
        seed: Of the run.
        batch_size: Of a global batch.
        lanes: At most so many lanes; None: 64.
        window: Shards in a window of each lane; None: as many as `usual_window` says.
    """

    order: OrderName
    seed: int
    batch_size: int
    lanes: int | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        if self.order not in get_args(OrderName):
            raise ValueError(f"unknown order mode {self.order!r}; known: {', '.join(get_args(OrderName))}")
        for name, value in (("lanes", self.lanes), ("window", self.window)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")


def choose_ordering(dataset: FixedSamples, wish: Wish) -> Ordering:
    """Return how the epochs of a data set are ordered.

    Raises:
        ValueError: If the order needs shards, and the data set knows none.
    """
    if isinstance(dataset, OrdersItself):
        return dataset.ordering(wish)
    mode = choose_mode(dataset) if wish.order == "auto" else wish.order
    if mode != "stream":
        return FlatOrdering(len(dataset), mode, seed=wish.seed, batch_size=wish.batch_size)
    starts = shard_starts_of(dataset)
    if starts is None:
        raise ValueError("order 'stream' needs the data set's shard_starts, and it has none; use 'full' or 'runs'")
    shards = int(np.count_nonzero(np.diff(starts)))
    lanes = usable_lanes(wish.lanes or DEFAULT_LANES, batch_size=wish.batch_size, shards=shards)
    window = wish.window or usual_window(lanes, samples=int(starts[-1]), shards=shards)
    return StreamOrdering(starts, seed=wish.seed, batch_size=wish.batch_size, lanes=lanes, window=window)


def choose_mode(dataset: FixedSamples) -> Literal["stream", "runs", "full"]:
    """Choose an order by what every rank knows alike: what a node has cached is no such thing.

    `full` where samples are objects of their own or all of them take less than 1 GiB; `runs` where the data set says
    that it is local (`is_local`); else `stream`.
    """
    starts = shard_starts_of(dataset)
    if starts is None or len(dataset) < _SAMPLES_PER_SHARD * (len(starts) - 1):
        return "full"
    sizes = sample_bytes_of(dataset)
    if sizes is not None and int(sizes.sum()) < _SMALL_BYTES:
        return "full"
    return "runs" if getattr(dataset, "is_local", False) else "stream"


def shard_starts_of(dataset: FixedSamples) -> Indices | None:
    """Return where the shards of a data set begin, if it knows."""
    starts = _asked(dataset, "shard_starts")
    return None if starts is None else np.asarray(starts, dtype=np.int64)


def sample_bytes_of(dataset: FixedSamples) -> Indices | None:
    """Return the bytes of each sample, if the data set knows."""
    sizes = _asked(dataset, "sample_bytes")
    return None if sizes is None else np.asarray(sizes, dtype=np.int64)


def _asked(dataset: FixedSamples, name: str) -> Any:
    holder = dataset if hasattr(dataset, name) else getattr(dataset, "records", None)
    found = getattr(holder, name, None)
    return found() if callable(found) else found
