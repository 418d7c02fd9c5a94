"""The end of an epoch: what is left after the last whole global batch. Every rank takes the same number of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from loaders.errors import NoSamplesError

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaders.ordering.shuffling import Indices

Tail = Literal["drop", "pad", "fill", "exact"]
"""What becomes of the samples after the last whole global batch.

`drop`: nothing. `pad`: one more batch, with up to W - 1 samples repeated, so that the ranks get equally many. `fill`:
one more batch of the whole size, for whoever needs one shape. `exact`: one more batch that repeats nothing; the ranks'
parts differ by one sample, and may be empty. What is repeated comes from the beginning of the epoch, and the mask says
so.
"""


class Share(NamedTuple):
    """A rank's part of a batch: `real` samples, then repeats."""

    samples: Indices
    real: int


class Ranks(NamedTuple):
    """Who shares the batches, and how large they are."""

    rank: int
    world_size: int
    batch_size: int

    @property
    def share(self) -> int:
        """Samples of a whole batch that each rank gets."""
        return self.batch_size // self.world_size

    @property
    def places(self) -> slice:
        """The places of a whole batch that this rank gets."""
        return slice(self.rank * self.share, (self.rank + 1) * self.share)


def choose_tail(tail: Tail | None, *, drop_last: bool) -> Tail:
    """Return the tail that both arguments mean.

    Raises:
        ValueError: If they contradict each other, or there is no such tail.
    """
    if tail is None:
        return "drop" if drop_last else "pad"
    if tail not in get_args(Tail):
        raise ValueError(f"unknown tail {tail!r}; known: {', '.join(get_args(Tail))}")
    if drop_last and tail != "drop":
        raise ValueError(f"drop_last=True drops what tail={tail!r} delivers; pass one of them")
    return tail


def last_share(rest: Indices, tail: Tail, ranks: Ranks, *, beginning: Callable[[int], Indices]) -> Share:
    """Return a rank's part of the last, incomplete batch.

    Args:
        rest: All samples that are left, at least one.
        tail: Not `drop`.
        ranks: Who asks.
        beginning: Gives the first samples of the epoch; fewer if it has fewer.
    """
    start, stop = last_places(len(rest), tail, ranks)
    part = rest[start:stop]
    missing = stop - max(start, len(rest))
    if missing > 0:  # this rank gets repeats: those from `skipped` on
        skipped = max(start - len(rest), 0)
        again = np.resize(beginning(skipped + missing), skipped + missing)  # few samples go round and round
        return Share(np.concatenate([part, again[skipped:]]), len(part))
    return Share(part, len(part))


def last_places(rest: int, tail: Tail, ranks: Ranks) -> tuple[int, int]:
    """Return which places of the last batch a rank gets; those from `rest` on are repeats."""
    rank, world_size, batch_size = ranks
    if tail == "exact":
        return rank * rest // world_size, (rank + 1) * rest // world_size
    share = batch_size // world_size if tail == "fill" else -(-rest // world_size)
    return rank * share, (rank + 1) * share


def check_sizes(size: int, ranks: Ranks, tail: Tail) -> None:
    """Refuse numbers that do not fit together.

    Raises:
        ValueError: If a batch cannot be shared equally, or there is no such rank.
        NoSamplesError: If an epoch would deliver nothing.
    """
    rank, world_size, batch_size = ranks
    if batch_size < 1 or world_size < 1 or batch_size % world_size:
        raise ValueError(f"a global batch of {batch_size} samples cannot be shared equally by {world_size} ranks")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in [0, {world_size})")
    if size == 0:
        raise NoSamplesError("the data set has no samples; check the prefix, the key rule and `where`")
    if tail == "drop" and size < batch_size:
        raise NoSamplesError(
            f"{size} samples do not fill one global batch of {batch_size}, and drop_last drops it;"
            " pass drop_last=False, or another tail"
        )
