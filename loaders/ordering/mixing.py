"""The order of a mixture: one stream of slots for the whole run, cut into epochs; each source has epochs of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from xxhash import xxh3_64, xxh3_64_intdigest

from loaders.order import Order, OrderMode, stream_key
from loaders.ordering.epochs import StreamOrdering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loaders.ordering.quotas import Quotas
    from loaders.ordering.shuffling import Indices

_BLOCK = 4096
_MOST_BLOCKS = 16  # with many sources each gives few samples to a block
_KEPT_EPOCHS = 2


class _Sequence(Protocol):
    """The order of one source in one of its epochs: `Order` and `LaneStream`."""

    def at(self, positions: Indices) -> Indices:
        """Return the samples at some positions, ascending."""
        ...


@dataclass(frozen=True, eq=False)
class Source:
    """One source of a mixture.

    Attributes:
        name: Decides its order, so that another source changes nothing here.
        size: Samples.
        mode: How each of its epochs is ordered.
        shard_starts: For `stream`.
        window: For `stream`, shards in a window.
    """

    name: str
    size: int
    mode: OrderMode | str
    shard_starts: Indices | None = None
    window: int = 1


class MixtureOrdering:
    """Epoch e is the slots [e * size, (e + 1) * size) of the run; a source goes on where the epoch before left it.

    Args:
        sources: At least one.
        quotas: The source of each slot.
        size: Slots of an epoch.
        seed: Of the run.
        batch_size: Of a global batch.
        described: What a saved position depends on beside the counts: order and window.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        quotas: Quotas,
        *,
        size: int,
        seed: int,
        batch_size: int,
        described: dict[str, Any],
    ) -> None:
        self.size = size
        self._sources = sources
        self._quotas = quotas
        self._batch_size = batch_size
        self._described = described
        self._orders = [_SourceOrder(source, seed) for source in sources]
        sizes = [source.size for source in sources]
        self._firsts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)])
        starts = [source.shard_starts for source in sources if source.shard_starts is not None]
        self._shards = {"shards": xxh3_64(np.concatenate(starts).astype("<i8").data).hexdigest()} if starts else {}

    def epoch(self, epoch: int) -> _MixtureEpoch:
        """See `Ordering`."""
        return _MixtureEpoch(self, epoch * self.size, self._batch_size)

    def steps_at_once(self, share: int) -> int:
        """See `Ordering`."""
        return max(1, _BLOCK * min(len(self._sources), _MOST_BLOCKS) // share)

    def state(self, samples: int) -> dict[str, Any]:
        """See `Ordering`; `sources` is what each source has given, which other weights in the past would change."""
        counts = self._quotas.counts(samples).tolist()
        names = [source.name for source in self._sources]
        given = dict(zip(names, counts, strict=True))
        return {**self._described, **self._shards, "epoch_size": self.size, "sources": given}

    def samples(self, slots: Indices) -> Indices:
        """Return what fills some slots, ascending: numbers in the concatenation of the sources."""
        chosen = self._quotas.at(slots)
        found = np.empty(len(slots), dtype=np.int64)
        for number, order in enumerate(self._orders):
            mine = np.flatnonzero(chosen.source == number)
            if mine.size:
                found[mine] = order.at(chosen.before[mine]) + self._firsts[number]
        return found


class _SourceOrder:
    """A source repeated for ever: its n-th sample is number n % size in the order of its epoch n // size."""

    def __init__(self, source: Source, seed: int) -> None:
        self._source = source
        self._seed = stream_key(seed, xxh3_64_intdigest(source.name.encode()))
        self._kept: dict[int, _Sequence] = {}
        self._stream: StreamOrdering | None = None
        if source.shard_starts is not None:
            starts = source.shard_starts
            self._stream = StreamOrdering(starts, seed=self._seed, batch_size=1, lanes=1, window=source.window)

    def at(self, numbers: Indices) -> Indices:
        """Return the samples of some ascending numbers."""
        epochs, positions = np.divmod(numbers, self._source.size)
        changes = np.flatnonzero(np.diff(epochs)) + 1
        parts = [
            self._sequence(int(epochs[start])).at(part)
            for start, part in zip([0, *changes.tolist()], np.split(positions, changes), strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _sequence(self, epoch: int) -> _Sequence:
        found = self._kept.get(epoch)
        if found is None:
            found = self._new_sequence(epoch)
            last = list(self._kept.items())[1 - _KEPT_EPOCHS :]
            self._kept = {**dict(last), epoch: found}
        return found

    def _new_sequence(self, epoch: int) -> _Sequence:
        if self._stream is not None:
            return self._stream.lane(epoch, 0)
        return Order(self._source.size, self._seed, epoch, self._source.mode)  # type: ignore[arg-type]  # checked there


class _MixtureEpoch:
    def __init__(self, ordering: MixtureOrdering, first: int, batch_size: int) -> None:
        self._ordering = ordering
        self._first = first
        self._batch_size = batch_size

    def block(self, first: int, last: int, places: slice) -> Indices:
        starts = np.arange(first, last, dtype=np.int64) * self._batch_size + self._first
        slots = starts[:, np.newaxis] + np.arange(places.start, places.stop)
        return self._ordering.samples(slots.ravel()).reshape(slots.shape)

    def rest(self) -> Indices:
        size = self._ordering.size
        whole = size // self._batch_size * self._batch_size
        return self._ordering.samples(np.arange(self._first + whole, self._first + size, dtype=np.int64))
