"""Several data sets as one, in proportions that hold in every batch."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from xxhash import xxh3_128

from cache_runtime import Announced
from loaders.drawing import Drawn
from loaders.errors import NoSamplesError
from loaders.ordering.choosing import choose_mode, sample_bytes_of, shard_starts_of
from loaders.ordering.lanes import usual_window
from loaders.ordering.mixing import MixtureOrdering, Source
from loaders.ordering.quotas import Quotas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from loaders.ordering.choosing import FixedSamples, Wish
    from loaders.ordering.shuffling import Indices

Stop = Literal["first_exhausted", "all_exhausted"]
"""When an epoch ends: before the first source would begin anew, or when each has been through once."""


class Mixture:
    """A data set that draws from others by weight, for `ElasticBatchSampler`.

        mixture = Mixture({"web": (web, 0.7), "code": (code, 0.3)})
        loader = DataLoader(mixture, batch_sampler=ElasticBatchSampler(mixture, 256, order="stream"))

    The source of each slot is the one that is owed most, so every batch has the proportions, to a sample or so, and
    nothing is drawn at random. A source that has been through begins anew in another order; it goes on, across epochs
    of the mixture, where it was. Sample numbers count through the sources one after the other.

    Args:
        sources: Data sets by name, each with its weight: any scale, 0 where a schedule sets it later.
        stop: How long an epoch is; see `Stop`.
        epoch_size: Samples of an epoch, instead of `stop`.
        schedule: Weights from a number of delivered samples on (counted from the beginning of the run): ascending, with
            the names that change. Before the first entry those of `sources` hold.

    Raises:
        ValueError: If weights or schedule make no sense.
        NoSamplesError: If a source or an epoch is empty.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[FixedSamples, float]],
        *,
        stop: Stop = "first_exhausted",
        epoch_size: int | None = None,
        schedule: Sequence[tuple[int, Mapping[str, float]]] = (),
    ) -> None:
        if stop not in get_args(Stop):
            raise ValueError(f"unknown stop {stop!r}; known: {', '.join(get_args(Stop))}")
        self.names = tuple(sources)
        for name, source in sources.items():
            if not isinstance(source, tuple) or len(source) != 2:
                raise ValueError(f"source {name!r} is a {type(source).__name__}; expected a pair: (data set, weight)")
        self._datasets = [dataset for dataset, _ in sources.values()]
        self._sizes = [len(dataset) for dataset in self._datasets]
        self._check_sources()
        weights = {name: weight for name, (_, weight) in sources.items()}
        self.quotas = Quotas(_phases(weights, schedule))
        self.epoch_size = self._size_of_epoch(stop) if epoch_size is None else epoch_size
        if self.epoch_size < 1:
            raise NoSamplesError(f"an epoch of {self.epoch_size} samples delivers nothing; pass a larger epoch_size")
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])

    def _check_sources(self) -> None:
        if not self.names:
            raise NoSamplesError("a mixture of no data sets has no samples")
        for name, dataset, size in zip(self.names, self._datasets, self._sizes, strict=True):
            if isinstance(dataset, Mixture):
                raise ValueError(f"source {name!r} is a mixture itself; name its sources here instead")
            if not size:
                raise NoSamplesError(f"source {name!r} of the mixture has no samples; leave it out")

    def _size_of_epoch(self, stop: Stop) -> int:
        if stop == "first_exhausted":
            return self.quotas.slots_within(self._sizes)
        return self.quotas.slots_to_cover(self._sizes)

    def __len__(self) -> int:
        """Count the samples of all sources; an epoch delivers `epoch_size`."""
        return int(self._starts[-1])

    @property
    def fingerprint(self) -> str:
        """Equal for the same samples of the same sources; weights are told by what each source gave, see the state."""
        hasher = xxh3_128()
        for name, dataset, size in zip(self.names, self._datasets, self._sizes, strict=True):
            hasher.update(f"{name}\0{size}\0{dataset.fingerprint}\0".encode())
        return hasher.hexdigest()

    @property
    def shard_starts(self) -> Indices | None:
        """Where shards begin, source after source; None if a source does not know."""
        found = [shard_starts_of(dataset) for dataset in self._datasets]
        parts = [starts[:-1] + base for starts, base in zip(found, self._starts, strict=False) if starts is not None]
        return None if len(parts) < len(found) else np.append(np.concatenate(parts), len(self))

    @property
    def sample_bytes(self) -> Indices | None:
        """Bytes of each sample; None if a source does not know."""
        found = [sample_bytes_of(dataset) for dataset in self._datasets]
        known = [sizes for sizes in found if sizes is not None]
        return np.concatenate(known) if len(known) == len(found) else None

    def source_of(self, index: int) -> tuple[str, int]:
        """Return the source of a sample number and the sample's number there.

        Raises:
            IndexError: If there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} is outside of a mixture of {len(self)} samples")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.names[number], index - int(self._starts[number])

    def peers_of(self, index: int) -> range:
        """Return the numbers of all samples of the same source: one of them may take the place of a bad one."""
        number = self.names.index(self.source_of(index)[0])
        return range(int(self._starts[number]), int(self._starts[number + 1]))

    def prefetch(self, indices: Sequence[int]) -> Future[int] | None:
        """Announce samples to the caches of their sources; see `ShardDataset.prefetch`, whose bound is for each source.

        Raises:
            IndexError: If there is no such sample.
        """
        asked = []
        for number, _, wanted in self._by_source(indices):
            prefetch = getattr(self._datasets[number], "prefetch", None)
            future: Future[int] | None = None if prefetch is None else prefetch(wanted)
            if future is not None:
                asked.append(future)
        return _Sum(asked) if asked else None

    def __getitem__(self, index: int) -> Any:
        """Return one sample; a negative index counts from the end. Errors as in the source, and IndexError."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return some samples in the order asked for, in one call for each source."""
        found: list[Any] = [None] * len(indices)
        for number, places, wanted in self._by_source(indices):
            for place, sample in zip(places, _samples(self._datasets[number], wanted), strict=True):
                found[place] = sample
        return found

    def _by_source(self, indices: Sequence[int]) -> Iterator[tuple[int, list[int], list[int]]]:
        """Yield each source that is meant, the places of `indices` that mean it, and its own numbers of them."""
        numbers = np.asarray(indices, dtype=np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        wrong = np.flatnonzero((numbers < 0) | (numbers >= len(self)))
        if wrong.size:
            raise IndexError(f"sample {indices[wrong[0]]} is outside of a mixture of {len(self)} samples")
        source = np.searchsorted(self._starts, numbers, side="right") - 1
        for number in np.unique(source).tolist():
            places = np.flatnonzero(source == number)
            wanted: list[int] = (numbers[places] - self._starts[number]).tolist()
            if isinstance(indices, Drawn):
                wanted = Drawn(wanted, indices.seed, indices.epoch)
            yield number, places.tolist(), wanted

    def ordering(self, wish: Wish) -> MixtureOrdering:
        """Return how epochs are ordered, for `ElasticBatchSampler`; `auto` is one order for all sources.

        Raises:
            ValueError: If the order is `stream`, and a source knows no shards.
        """
        mode = wish.order if wish.order != "auto" else self._usual_mode()
        return MixtureOrdering(
            [self._source(number, mode, wish) for number in range(len(self.names))],
            self.quotas,
            size=self.epoch_size,
            seed=wish.seed,
            batch_size=wish.batch_size,
            described={"order": mode, "window": wish.window} if mode == "stream" else {"order": mode},
        )

    def _source(self, number: int, mode: str, wish: Wish) -> Source:
        name, size = self.names[number], self._sizes[number]
        if mode != "stream":
            return Source(name, size, mode)
        starts = shard_starts_of(self._datasets[number])
        if starts is None:
            raise ValueError(f"order 'stream' needs shard_starts, and source {name!r} has none; use 'full' or 'runs'")
        shards = int(np.count_nonzero(np.diff(starts)))
        return Source(name, size, mode, starts, wish.window or usual_window(1, samples=size, shards=shards))

    def _usual_mode(self) -> str:
        modes = {choose_mode(dataset) for dataset in self._datasets}
        return next(mode for mode in ("stream", "runs", "full") if mode in modes)


class _Sum(Announced):
    """What some futures give together, once all of them are done; cancelling it cancels those that can be."""

    def __init__(self, parts: Sequence[Future[int]]) -> None:
        super().__init__()
        self._parts = parts
        self._lock = Lock()
        self._left = len(parts)
        for part in parts:
            part.add_done_callback(self._note)

    def cancel(self) -> bool:
        """See `Future.cancel`; it is cancelled when all of its parts are done, and one of them was."""
        cancelled = [part.cancel() for part in self._parts]
        return any(cancelled)

    def passed(self) -> None:
        """See `Announced.passed`."""
        for part in self._parts:
            if isinstance(part, Announced):
                part.passed()

    def _note(self, _part: Future[int]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        if any(part.cancelled() for part in self._parts):
            super().cancel()
            return
        error = next((error for part in self._parts if (error := part.exception()) is not None), None)
        if error is None:
            self.set_result(sum(part.result() for part in self._parts))
        else:
            self.set_exception(error)


def _phases(
    weights: Mapping[str, float], schedule: Sequence[tuple[int, Mapping[str, float]]]
) -> list[tuple[int, list[float]]]:
    """Return all weights of each phase, in the order of the sources."""
    now = dict(weights)
    phases: dict[int, list[float]] = {0: list(now.values())}
    for start, changed in schedule:
        unknown = set(changed) - set(weights)
        if unknown:
            raise ValueError(f"the schedule names {sorted(unknown)}; the sources are {list(weights)}")
        if start in phases and start != 0:
            raise ValueError(f"the schedule has two entries for sample {start}")
        now.update(changed)
        phases[start] = list(now.values())
    return list(phases.items())


def _samples(dataset: Any, numbers: list[int]) -> Sequence[Any]:
    if hasattr(dataset, "__getitems__"):
        samples: Sequence[Any] = dataset.__getitems__(numbers)
        return samples
    return [dataset[number] for number in numbers]
