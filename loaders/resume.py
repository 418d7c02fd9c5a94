"""Counting what a training loop got, so that it can go on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from loaders.errors import IterationError
from loaders.sampler import ElasticBatchSampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import numpy.typing as npt

Batch_co = TypeVar("Batch_co", covariant=True)


class BatchLoader(Protocol[Batch_co]):
    """What is asked of a loader; `torch.utils.data.DataLoader` is one."""

    def __iter__(self) -> Iterator[Batch_co]:
        """Yield the batches that its sampler names, in its order."""
        ...

    @property
    def batch_sampler(self) -> Any:
        """The sampler that it was made with."""
        ...


class ResumableLoader(Generic[Batch_co]):
    """A DataLoader that knows how much of the epoch was delivered.

    The state counts batches as this iterator hands them out, in the process that trains. What workers have
    prefetched is not counted, so it is neither lost nor repeated by a resume.

        loader = ResumableLoader(DataLoader(dataset, batch_sampler=ElasticBatchSampler(dataset, 256), num_workers=4))
        loader.load_state_dict(saved)            # where there is one
        while loader.epoch < epochs:
            for batch in loader:
                train(batch)
                save(loader.state_dict())        # this batch counts as delivered

    One iteration goes to the end of the epoch and moves on to the next. After a `break` the next iteration goes on
    after the last batch that was delivered; `set_epoch` leaves the rest of an epoch out.

    Args:
        loader: A `DataLoader(dataset, batch_sampler=ElasticBatchSampler(...))`, with any number of workers.

    Raises:
        TypeError: If the loader's batch sampler is another one.
    """

    def __init__(self, loader: BatchLoader[Batch_co]) -> None:
        sampler = loader.batch_sampler
        if not isinstance(sampler, ElasticBatchSampler):
            raise TypeError(
                f"the loader's batch_sampler is {type(sampler).__name__}, which cannot be resumed;"
                " pass DataLoader(dataset, batch_sampler=ElasticBatchSampler(dataset, batch_size))"
            )
        self._loader = loader
        self._sampler = sampler
        self._last = (sampler.epoch, 0)
        self._turn = 0  # of iterations: only the last one counts

    def __len__(self) -> int:
        """Count the steps of one whole epoch."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch_co]:
        """Yield what is left of the current epoch.

        Raises:
            IterationError: If another iteration began, or the position was changed, while this one went on.
        """
        self._turn = turn = self._turn + 1
        epoch, step = self._sampler.epoch, self._sampler.step
        for batch in self._loader:
            if turn != self._turn:
                raise IterationError(
                    "the loader was iterated anew, or its position changed, inside of this iteration; use one loader"
                    " for each loop"
                )
            self._last = (epoch, step)
            step += 1
            self._sampler.seek(epoch, step)
            yield batch

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._sampler.epoch

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Which samples of the batch that was delivered last are no repeats; see `ElasticBatchSampler.mask_at`."""
        return self._sampler.mask_at(*self._last)

    def set_epoch(self, epoch: int) -> None:
        """See `ElasticBatchSampler.set_epoch`; it ends an iteration of another epoch."""
        if epoch != self.epoch:
            self._turn += 1
        self._sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return a few numbers that name the next batch; call it between two batches, on any rank."""
        return self._sampler.position()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was saved; before iterating. Errors as in `ElasticBatchSampler.restore`."""
        self._sampler.restore(state)
        self._turn += 1
