"""What an epoch will need, found by going through it with the real order and reading nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from loaders.ordering.choosing import FixedSamples, OrderName, sample_bytes_of, shard_starts_of
from loaders.ordering.epochs import StreamOrdering
from loaders.ordering.tails import Ranks, check_sizes
from loaders.plan_drawing import Curve, draw
from loaders.sampler import ElasticBatchSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from loaders.ordering.shuffling import Indices
    from loaders.ordering.tails import Tail

_MOST_SAMPLES = 1 << 24


class SamplerOptions(TypedDict, total=False):
    """Options of `ElasticBatchSampler`; see there."""

    seed: int
    order: OrderName
    tail: Tail | None
    lanes: int | None
    window: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """What the ranks, the nodes or the lanes need, each for itself; "most" is that of the one that needs most.

    Attributes:
        kind: `rank`, `node` or `lane`.
        count: How many there are.
        shards_most: Shards that it reads from in an epoch.
        shard_bytes_most: Bytes of these shards.
        used_bytes_most: Bytes of the samples that it delivers.
        live_most: Shards in use at a time: read from already, and needed again.
        live_mean: The same, mean over steps and groups.
        burst_most: Shards that are new in one step, after the first.
        cache_bytes_most: The smallest cache of whole shards from which nothing is fetched twice: the bytes of the
            shards in use, at the worst step. With less, even eviction by next use (Belady) fetches again.
        first_batch_bytes_most: Bytes of the shards that the first batch needs.
    """

    kind: str
    count: int
    shards_most: int
    shard_bytes_most: int
    used_bytes_most: int
    live_most: int
    live_mean: float
    burst_most: int
    cache_bytes_most: int
    first_batch_bytes_most: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What an epoch will need.

    Attributes:
        samples: Samples of an epoch.
        simulated: Samples of whole batches that were gone through; fewer than `samples` if there are very many.
        steps: Steps of an epoch.
        shards: Shards of the data set.
        order: What a saved state says of the order.
        groups: For ranks, nodes, and lanes where there are any.
        first_batch_bytes: Bytes of the samples of the first global batch.
        sample_entropy: Bits: of the distances between samples that follow each other, as in Mosaic's simulator.
        shard_entropy: Bits: the same, of their shards.
        classes_mean: Distinct labels in a global batch; None without labels.
        classes_least: In the worst batch.
        curves: For the picture: per step, live and new shards of the node that needs most, and distinct labels.
    """

    samples: int
    simulated: int
    steps: int
    shards: int
    order: Mapping[str, Any]
    groups: tuple[Group, ...]
    first_batch_bytes: int
    sample_entropy: float
    shard_entropy: float
    classes_mean: float | None
    classes_least: int | None
    curves: tuple[Curve, ...]

    def to_json(self) -> str:
        """Return all numbers as a JSON object, without the curves."""
        return json.dumps(self.numbers())

    def numbers(self) -> dict[str, Any]:
        """Return all numbers, for JSON, without the curves."""
        return {name: value for name, value in asdict(self).items() if name != "curves"}

    def plot(self, path: str | Path) -> None:
        """Draw the curves as an SVG file.

        Raises:
            OSError: If it cannot be written.
        """
        title = f"{self.samples} samples, {self.shards} shards, {self.order['order']}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(draw(self.curves, title=title))


class _Epoch(NamedTuple):
    """The simulated epoch: row g is global batch g."""

    samples: Indices  # (steps, batch_size)
    shards: npt.NDArray[np.int32]  # of each of them
    shard_bytes: Indices
    sample_bytes: Indices


class _Use(NamedTuple):
    """When one group uses its shards, and how much there is of it."""

    shards: Indices
    first: Indices  # step
    last: Indices
    used_bytes: int


def plan(
    dataset: FixedSamples,
    batch_size: int,
    *,
    world_size: int = 1,
    ranks_per_node: int = 8,
    epoch: int = 0,
    labels: npt.ArrayLike | None = None,
    max_samples: int = _MOST_SAMPLES,
    **options: Unpack[SamplerOptions],
) -> Plan:
    """Go through an epoch with the real order and say what it needs: bytes, shards at a time, cache, how mixed it is.

    Args:
        dataset: What will be trained on; it knows `shard_starts`, and best `sample_bytes` (else each sample counts 1).
        batch_size: Of a global batch.
        world_size: Number of ranks; divides the batch.
        ranks_per_node: Ranks that share a cache; neighbours.
        epoch: Which one.
        labels: The class of each sample, whole numbers from 0 or anything that numpy can sort.
        max_samples: Go no further than so many.
        **options: Of `ElasticBatchSampler`.

    Raises:
        ValueError: If the numbers do not fit together, or the data set knows no shards.
        NoSamplesError: If there is no whole batch.
    """
    sampler = ElasticBatchSampler(dataset, batch_size, **options)
    check_sizes(sampler.ordering.size, Ranks(0, world_size, batch_size), sampler.tail)
    starts = shard_starts_of(dataset)
    if starts is None:
        raise ValueError("the data set has no shard_starts; without shards there is nothing to plan")
    found = _simulate(sampler, starts, _sizes(dataset), epoch=epoch, max_samples=max_samples)
    owners = _owners(sampler, batch_size, world_size=world_size, ranks_per_node=ranks_per_node)
    uses = {kind: [_use(found, places) for places in groups] for kind, groups in owners.items()}
    classes = (
        None if labels is None else _distinct(np.unique(np.asarray(labels), return_inverse=True)[1][found.samples])
    )
    state = sampler.ordering.state(0)
    return Plan(
        samples=sampler.ordering.size,
        simulated=found.samples.size,
        steps=len(sampler),
        shards=int(np.count_nonzero(np.diff(starts))),
        order={name: value for name, value in state.items() if name not in ("shards", "sources")},
        groups=tuple(_group(kind, each, found) for kind, each in uses.items()),
        first_batch_bytes=int(found.sample_bytes[found.samples[0]].sum()),
        sample_entropy=round(entropy(found.samples.ravel()), 3),
        shard_entropy=round(entropy(found.shards.ravel()), 3),
        classes_mean=None if classes is None else round(float(classes.mean()), 2),
        classes_least=None if classes is None else int(classes.min()),
        curves=_curves(uses["node"], found, classes),
    )


def entropy(numbers: npt.NDArray[np.signedinteger]) -> float:
    """Return the bits of the distances between numbers that follow each other: 0 in order, most where all are mixed."""
    counts = np.bincount(np.abs(np.diff(numbers)))
    share = counts[counts > 0] / max(len(numbers) - 1, 1)
    return abs(float(-(share * np.log2(share)).sum()))


def _sizes(dataset: FixedSamples) -> Indices:
    sizes = sample_bytes_of(dataset)
    return np.ones(len(dataset), dtype=np.int64) if sizes is None else sizes


def _simulate(sampler: ElasticBatchSampler, starts: Indices, sizes: Indices, *, epoch: int, max_samples: int) -> _Epoch:
    batch = sampler.batch_size
    steps = min(sampler.ordering.size // batch, max(1, max_samples // batch))
    if not steps:
        raise ValueError(
            f"an epoch of {sampler.ordering.size} samples has no whole batch of {batch}; plan a smaller one"
        )
    order = sampler.ordering.epoch(epoch)
    at_once = sampler.ordering.steps_at_once(batch)
    firsts = range(0, steps, at_once)
    rows = np.concatenate([order.block(first, min(first + at_once, steps), slice(0, batch)) for first in firsts])
    shard_of = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return _Epoch(rows, shard_of[rows], np.diff(ends[starts]), sizes)


def _owners(
    sampler: ElasticBatchSampler, batch: int, *, world_size: int, ranks_per_node: int
) -> dict[str, list[slice]]:
    """Return which places of a batch belong to each rank, node and lane."""

    def cut(count: int) -> list[slice]:
        return [slice(number * batch // count, (number + 1) * batch // count) for number in range(count)]

    share = batch // world_size * ranks_per_node
    nodes = [slice(start, min(start + share, batch)) for start in range(0, batch, share)]
    found = {"rank": cut(world_size), "node": nodes}
    if isinstance(sampler.ordering, StreamOrdering):
        found["lane"] = cut(sampler.ordering.lanes)
    return found


def _use(found: _Epoch, places: slice) -> _Use:
    mine = found.shards[:, places]
    flat = mine.ravel()
    step = np.repeat(np.arange(len(mine)), mine.shape[1])
    first = np.full(len(found.shard_bytes), -1)
    last = np.full(len(found.shard_bytes), -1)
    last[flat] = step  # numpy lets the last of equal indices win
    first[flat[::-1]] = step[::-1]
    shards = np.flatnonzero(last >= 0)
    return _Use(shards, first[shards], last[shards], int(found.sample_bytes[found.samples[:, places]].sum()))


def _live(use: _Use, steps: int, weights: Indices | None = None) -> npt.NDArray[np.float64]:
    """Return how many shards are in use in each step, or how much of something they weigh."""
    come = np.bincount(use.first, weights=weights, minlength=steps + 1)
    gone = np.bincount(use.last + 1, weights=weights, minlength=steps + 1)
    live: npt.NDArray[np.float64] = np.cumsum(come - gone)[:steps]
    return live


def _group(kind: str, uses: Sequence[_Use], found: _Epoch) -> Group:
    steps = len(found.samples)
    live = [_live(use, steps) for use in uses]

    def most(value: Callable[[_Use], float]) -> int:
        return round(max(map(value, uses)))

    def weights(use: _Use) -> Indices:
        return found.shard_bytes[use.shards]

    return Group(
        kind=kind,
        count=len(uses),
        shards_most=most(lambda use: len(use.shards)),
        shard_bytes_most=most(lambda use: weights(use).sum()),
        used_bytes_most=most(lambda use: use.used_bytes),
        live_most=round(max(each.max() for each in live)),
        live_mean=round(float(np.mean(live)), 2),
        burst_most=most(lambda use: np.bincount(use.first, minlength=2)[1:].max()),
        cache_bytes_most=most(lambda use: _live(use, steps, weights(use)).max()),
        first_batch_bytes_most=most(lambda use: weights(use)[use.first == 0].sum()),
    )


def _distinct(labels: Indices) -> Indices:
    """Count the distinct values of each row."""
    ordered = np.sort(labels, axis=1)
    counts: Indices = (np.diff(ordered, axis=1) != 0).sum(axis=1) + 1
    return counts


def _curves(nodes: Sequence[_Use], found: _Epoch, classes: Indices | None) -> tuple[Curve, ...]:
    steps = len(found.samples)
    node = max(nodes, key=lambda use: _live(use, steps).max())
    curves = [
        Curve("shards in use, on the node that needs most", _live(node, steps).tolist()),
        Curve("new shards in a step", np.bincount(node.first, minlength=steps)[:steps].tolist()),
        Curve("bytes of shards in use", _live(node, steps, found.shard_bytes[node.shards]).tolist()),
    ]
    if classes is not None:
        curves.append(Curve("distinct classes in a batch", classes.tolist()))
    return tuple(curves)
