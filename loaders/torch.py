"""What needs torch itself: an iterable data set, and an order that torchdata's `StatefulDataLoader` saves and restores.

torch's own DataLoader and our `Loader` need neither.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from loaders.errors import StateMismatchError
from loaders.running.collating import choose_collate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loaders.running.collating import Collate, CollateName
    from loaders.running.making import Samples
    from loaders.sampler import ElasticBatchSampler


class StatefulBatchSampler:
    """The batches of an `ElasticBatchSampler`, in an iterator that can be saved and restored at any step.

        sampler = StatefulBatchSampler(ElasticBatchSampler(dataset, 256))
        loader = StatefulDataLoader(dataset, batch_sampler=sampler, num_workers=4)

    `StatefulDataLoader` takes the iterator's state with every batch that it asks for and keeps the one of the batch
    that it delivered, so a resume costs O(1) and the epoch is part of it. It wants the same number of workers then; the
    world size may differ.

    An iteration moves on to the next epoch when it is at its end.

    Args:
        sampler: The order; not to be used by another loader.
    """

    def __init__(self, sampler: ElasticBatchSampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        """Count the steps of one whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield what is left of the current epoch."""
        return _Steps(self.sampler)

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return self.sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """See `ElasticBatchSampler.set_epoch`."""
        self.sampler.set_epoch(epoch)


class _Steps:
    """Steps of one epoch: `first`, `first + stride`, ...

    It never moves its sampler before its end: a DataLoader asks for batches long before it delivers them.
    """

    def __init__(self, sampler: ElasticBatchSampler, *, offset: int = 0, stride: int = 1) -> None:
        self._sampler = sampler
        self._stride = stride
        self._epoch = sampler.epoch
        self._step = sampler.step + offset
        self._numbers = iter(sampler) if stride == 1 and not offset else None

    def __iter__(self) -> _Steps:
        return self

    def __next__(self) -> list[int]:
        if self._step >= len(self._sampler):
            if self._sampler.epoch == self._epoch:
                self._sampler.seek(self._epoch, len(self._sampler))
            raise StopIteration
        step, self._step = self._step, self._step + self._stride
        if self._numbers is not None:
            return next(self._numbers)
        return self._sampler.batch_at(self._epoch, step)

    def state_dict(self) -> dict[str, Any]:
        """Return where it is, for JSON."""
        steps = len(self._sampler)
        at = copy.copy(self._sampler)
        at.seek(self._epoch, min(self._step, steps))
        return {**at.position(), "ended": self._step >= steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was saved.

        Raises:
            StateMismatchError: If it was saved for other samples, another order or batch size.
        """
        if "ended" not in state:
            raise StateMismatchError("the saved state is not one of this iterator", field="ended", expected="a bool")
        self._sampler.restore({name: value for name, value in state.items() if name != "ended"})
        self._epoch, self._step = self._sampler.epoch, self._sampler.step
        self._numbers = iter(self._sampler) if self._stride == 1 else None
        if state["ended"]:  # the sampler is at the next epoch already, and this iterator has nothing to give
            self._epoch, self._step = self._epoch - 1, len(self._sampler)


class IterableShards(IterableDataset[Any]):
    """Whole batches, for a `DataLoader(IterableShards(...), batch_size=None)`, which shares them between its workers.

    Worker w of N makes each N-th batch, and a DataLoader takes from its workers in turn: the order is the sampler's,
    whatever the number of workers. With `StatefulDataLoader` it resumes, with as many workers as before.

    Call `set_epoch` before each epoch, as with torch's DistributedSampler: iterations end in workers, of which this
    object does not hear. Persistent workers, and a loader without any, move on by themselves.

    Args:
        dataset: Gives samples by number.
        sampler: The order; not to be used by another loader.
        collate: Makes a batch of a list of samples; see `choose_collate`.
    """

    def __init__(
        self, dataset: Samples, sampler: ElasticBatchSampler, *, collate: Collate | CollateName | None = None
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.sampler = sampler
        self._collate = choose_collate(collate)
        # Persistent workers have a sampler of their own; this is how they hear of the epoch: (changes, epoch, step).
        self._told = _shared(torch.zeros(3, dtype=torch.int64))
        self._heard = 0

    def __len__(self) -> int:
        """Count the batches of one whole epoch."""
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """See `ElasticBatchSampler.set_epoch`; of the next iteration, in persistent workers too."""
        self.sampler.set_epoch(epoch)
        self._told[1], self._told[2] = self.sampler.epoch, self.sampler.step
        self._told[0] += 1
        self._heard = int(self._told[0])

    def __iter__(self) -> Iterator[Any]:
        """Yield this worker's batches of what is left of the epoch."""
        changes, epoch, step = self._told.tolist()
        if changes != self._heard:
            self._heard = changes
            self.sampler.seek(epoch, step)
        worker = get_worker_info()
        if worker is None:
            return _Batches(self.dataset, self._collate, _Steps(self.sampler))
        steps = _Steps(self.sampler, offset=worker.id, stride=worker.num_workers)
        return _Batches(self.dataset, self._collate, steps)


def _shared(tensor: Any) -> Any:
    return tensor.share_memory_()


class _Batches:
    def __init__(self, dataset: Samples, collate: Collate, steps: _Steps) -> None:
        self._dataset = dataset
        self._collate = collate
        self._steps = steps

    def __iter__(self) -> _Batches:
        return self

    def __next__(self) -> Any:
        return self._collate(self._dataset.__getitems__(next(self._steps)))

    def state_dict(self) -> dict[str, Any]:
        return self._steps.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps.load_state_dict(state)
