"""Which samples each rank gets, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from loaders.errors import NoSamplesError, StateMismatchError
from loaders.order import Order, OrderMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STATE_VERSION = 1
_BLOCK = 4096  # positions that are permuted at once: a batch of 64 alone costs 30 times as much per sample


class FixedSamples(Protocol):
    """What a sampler needs to know of its samples; `ShardDataset` and `SampleIndex` tell it."""

    def __len__(self) -> int:
        """Count the samples."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for the same samples in the same order only."""
        ...


class ElasticBatchSampler:
    """Batches of sample numbers for `DataLoader(dataset, batch_sampler=...)`, the same ones for every world size.

    Global batch g is the positions [g * batch_size, (g + 1) * batch_size) of the epoch's order. Rank r of W takes the
    r-th of W equal, contiguous parts of it, so the ranks together see the same global batches whatever W is.

    Every rank takes the same number of steps with batches of the same size. What is left after the last whole global
    batch is dropped (`drop_last=True`) or split in the same way, where up to W - 1 samples from the beginning of the
    epoch's order are repeated to make the parts equal: with one rank nothing is.

    It knows the next step to deliver (`step`) but does not count: a DataLoader with workers asks for batches long
    before it delivers them. `ResumableLoader` counts; without it, call `set_epoch` before each epoch, as with torch's
    DistributedSampler. It has no `state_dict` on purpose: whatever looks for one would take it for a count.

    Args:
        dataset: What the numbers index.
        batch_size: Samples of one *global* batch, a multiple of `world_size`.
        seed: With the epoch number, the seed of the order.
        order: See `OrderMode`.
        rank: This process, in [0, world_size).
        world_size: Number of processes that share each global batch.
        drop_last: Drop the incomplete batch at the end of an epoch.

    Raises:
        ValueError: If the numbers do not fit together.
        NoSamplesError: If an epoch would deliver nothing.
    """

    def __init__(
        self,
        dataset: FixedSamples,
        batch_size: int,
        *,
        seed: int = 0,
        order: OrderMode = "full",
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        _check_sizes(len(dataset), batch_size, rank=rank, world_size=world_size, drop_last=drop_last)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self._order = Order(len(dataset), seed, 0, order)
        self._fingerprint = dataset.fingerprint
        self._step = 0

    def __len__(self) -> int:
        """Count the steps of one whole epoch: the same on every rank and after a resume."""
        whole, rest = divmod(self._order.n, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's batches from `step` to the end of `epoch`; later changes of them do not matter to it."""
        order = self._order
        steps_at_once = max(1, _BLOCK // self.batch_size)
        for first in range(self._step, len(self), steps_at_once):
            last = min(first + steps_at_once, len(self))
            base = first * self.batch_size
            block = order.indices(base, min(last * self.batch_size, order.n))
            for step in range(first, last):
                part = block[step * self.batch_size - base : (step + 1) * self.batch_size - base]
                yield self._share(part.tolist(), order)

    def _share(self, batch: list[int], order: Order) -> list[int]:
        size = -(-len(batch) // self.world_size)
        missing = size * self.world_size - len(batch)
        if missing:
            first = order.indices(0, min(missing, order.n))
            batch += np.resize(first, missing).tolist()  # with fewer samples than ranks they go round and round
        return batch[self.rank * size : (self.rank + 1) * size]

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._order.epoch

    @property
    def step(self) -> int:
        """Batches of this epoch that were delivered already; the next iteration starts there."""
        return self._step

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; where it is the current one, stay at `step`, so a resumed loop goes on."""
        if epoch != self.epoch:
            self.seek(epoch, 0)

    def seek(self, epoch: int, step: int) -> None:
        """Go to a step of an epoch; a step past the last one is the start of the next epoch.

        Raises:
            ValueError: If the step is not in [0, len(self)].
        """
        if not 0 <= step <= len(self):
            raise ValueError(f"step {step} is outside of an epoch of {len(self)} steps")
        epoch, step = (epoch + 1, 0) if step == len(self) else (epoch, step)
        self._order = Order(self._order.n, self._order.seed, epoch, self._order.mode)
        self._step = step

    def position(self) -> dict[str, Any]:
        """Return where the next iteration starts, as a few numbers that JSON can hold; the same on every rank."""
        return {**self._identity(), "epoch": self.epoch, "step": self._step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was saved, at the same or another world size, in O(1).

        Raises:
            StateMismatchError: If it was saved for other samples, another order or batch size; nothing is changed.
        """
        for name, expected in self._identity().items():
            if state.get(name) != expected:
                raise StateMismatchError(
                    f"the saved state cannot be resumed here: its {name} is {state.get(name)!r}, here it is"
                    f" {expected!r}; make the sampler as it was, or start the epoch anew",
                    field=name,
                    expected=expected,
                    actual=state.get(name),
                )
        self.seek(int(state["epoch"]), int(state["step"]))

    def _identity(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "samples": self._fingerprint,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "order": self._order.mode,
            "seed": self._order.seed,
        }


def _check_sizes(n: int, batch_size: int, *, rank: int, world_size: int, drop_last: bool) -> None:
    if batch_size < 1 or world_size < 1 or batch_size % world_size:
        raise ValueError(f"a global batch of {batch_size} samples cannot be shared equally by {world_size} ranks")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in [0, {world_size})")
    if n == 0:
        raise NoSamplesError("the data set has no samples; check the prefix, the key rule and `where`")
    if drop_last and n < batch_size:
        raise NoSamplesError(
            f"{n} samples do not fill one global batch of {batch_size}, and drop_last drops it; pass drop_last=False"
        )
