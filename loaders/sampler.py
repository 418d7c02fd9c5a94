"""Which samples each rank gets, step by step."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, get_args

import numpy as np
import numpy.typing as npt

from loaders.drawing import Drawn
from loaders.errors import StateMismatchError
from loaders.ordering.choosing import FixedSamples, OrderName, OrdersItself, Wish, choose_ordering
from loaders.ordering.tails import Ranks, Share, Tail, check_sizes, choose_tail, last_places, last_share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaders.ordering.epochs import EpochOrder, Ordering
    from loaders.ordering.shuffling import Indices

STATE_VERSION = 2
_KEPT_EPOCHS = 2


class RankOptions(TypedDict):
    """The arguments of a sampler that say which process this is."""

    rank: int
    world_size: int


def rank_options(environ: Mapping[str, str]) -> RankOptions:
    """Return `rank` and `world_size` as torchrun and Accelerate set them: RANK and WORLD_SIZE.

    `ElasticBatchSampler(dataset, 256, **rank_options(os.environ))`. Without them this process is the only one.

    Raises:
        ValueError: If one of them is no number, or only one is set.
    """
    found = {name: environ[name] for name in ("RANK", "WORLD_SIZE") if name in environ}
    if not found:
        return {"rank": 0, "world_size": 1}
    try:
        return {"rank": int(found["RANK"]), "world_size": int(found["WORLD_SIZE"])}
    except (KeyError, ValueError):
        raise ValueError(
            f"expected RANK and WORLD_SIZE as numbers in the environment, found {found}; start the job with torchrun,"
            " or pass rank and world_size"
        ) from None


class ElasticBatchSampler:
    """Batches of sample numbers for `DataLoader(dataset, batch_sampler=...)`, the same ones for every world size.

    Global batch g is a list of `batch_size` samples that depends on seed, epoch and g only. Rank r of W takes the r-th
    of W equal, contiguous parts of it, so the ranks together see the same global batches whatever W is.

    Every rank takes the same number of steps. What is left after the last whole global batch is padded by default, so
    that the parts are equal; see `Tail` and `mask_at`.

    It knows the next step to deliver (`step`) but does not count: a DataLoader with workers asks for batches long
    before it delivers them. `ResumableLoader` counts; without it, call `set_epoch` before each epoch, as with torch's
    DistributedSampler. It has no `state_dict` on purpose: whatever looks for one would take it for a count.

    Args:
        dataset: What the numbers index.
        batch_size: Samples of one *global* batch, a multiple of `world_size`.
        seed: With the epoch number, the seed of the order.
        order: See `OrderName`. `auto` chooses anew for each epoch, and the state keeps what was chosen.
        rank: This process, in [0, world_size).
        world_size: Number of processes that share each global batch.
        drop_last: Drop the incomplete batch at the end of an epoch: `tail="drop"`.
        tail: What becomes of that batch; see `Tail`. None: what `drop_last` says.
        lanes: With `stream`, at most so many lanes (64): a rank reads the shards of its own lanes only, where the world
            size divides the number of lanes. Fewer are made where the batch size or the number of shards asks for it.
        window: With `stream`, the shards that are mixed at a time, in each lane. None: eight in all lanes together.

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
        order: OrderName = "full",
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        tail: Tail | None = None,
        lanes: int | None = None,
        window: int | None = None,
    ) -> None:
        self.tail = choose_tail(tail, drop_last=drop_last)
        # numpy's integers would make a state that JSON cannot hold
        self._ranks = Ranks(operator.index(rank), operator.index(world_size), operator.index(batch_size))
        check_sizes(len(dataset), self._ranks, self.tail)
        self._dataset = dataset
        self._wish = Wish(order, operator.index(seed), self._ranks.batch_size, lanes, window)
        self._ordering = choose_ordering(dataset, self._wish)
        check_sizes(self._ordering.size, self._ranks, self.tail)
        self._epochs: dict[int, EpochOrder] = {}
        self._epoch = 0
        self._step = 0

    def __len__(self) -> int:
        """Count the steps of one whole epoch: the same on every rank and after a resume."""
        rest = self._ordering.size % self.batch_size
        return self._whole + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's batches from `step` to the end of `epoch`; later changes of them do not matter to it."""
        seed, epoch = self._wish.seed, self._epoch
        order, whole, ranks = self._order(epoch), self._whole, self._ranks
        at_once = self._ordering.steps_at_once(ranks.share)
        steps = len(self)
        for first in range(self._step, whole, at_once):
            for row in order.block(first, min(first + at_once, whole), ranks.places):
                yield Drawn(row.tolist(), seed, epoch)
        if steps > whole:
            yield Drawn(self._last(order).samples.tolist(), seed, epoch)

    def batch_at(self, epoch: int, step: int) -> list[int]:
        """Return this rank's batch at a step of an epoch; a pure function, wherever iterations are.

        Costs O(window) for a batch anywhere, and little for one near the one before.

        Raises:
            ValueError: If the step is not in [0, len(self)).
        """
        return Drawn(self._share_at(epoch, step).samples.tolist(), self._wish.seed, epoch)

    def mask_at(self, epoch: int, step: int) -> npt.NDArray[np.bool_]:
        """Return which samples of this rank's batch are delivered for the first time, bool; the others are repeats.

        Raises:
            ValueError: If the step is not in [0, len(self)).
        """
        self._check_step(step)
        size, real = self._ranks.share, self._ranks.share
        if step >= self._whole:
            rest = self._ordering.size % self.batch_size
            start, stop = last_places(rest, self.tail, self._ranks)
            size, real = stop - start, min(max(rest - start, 0), stop - start)
        return np.arange(size) < real

    @property
    def batch_size(self) -> int:
        """Samples of a whole global batch."""
        return self._ranks.batch_size

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self._ranks.rank

    @property
    def world_size(self) -> int:
        """Number of processes that share each global batch."""
        return self._ranks.world_size

    @property
    def drop_last(self) -> bool:
        """Whether samples after the last whole batch are dropped."""
        return self.tail == "drop"

    @property
    def ordering(self) -> Ordering:
        """How the current epoch is ordered."""
        return self._ordering

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration delivers."""
        return self._epoch

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
        epoch, step = operator.index(epoch), operator.index(step)
        if not 0 <= step <= len(self):
            raise ValueError(f"step {step} is outside of an epoch of {len(self)} steps")
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; epochs count from 0")
        epoch, step = (epoch + 1, 0) if step == len(self) else (epoch, step)
        if self._chooses_anew and step == 0 and epoch != self._epoch:
            self._use(choose_ordering(self._dataset, self._wish))
        self._epoch, self._step = epoch, step

    def position(self) -> dict[str, Any]:
        """Return where the next iteration starts, as a few numbers that JSON can hold; the same on every rank."""
        delivered = self._epoch * self._ordering.size + min(self._step * self.batch_size, self._ordering.size)
        state = {**self._identity(), **self._ordering.state(delivered)}
        return {**state, "epoch": self._epoch, "step": self._step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where a state was saved, at the same or another world size, in O(1).

        An order, lanes or a window that were not asked for are those of the state.

        Raises:
            StateMismatchError: If it was saved for other samples, another order or batch size; nothing is changed.
        """
        saved = _upgraded(state)
        _compare(saved, self._identity())
        epoch, step = _count(saved, "epoch"), _count(saved, "step")
        ordering = self._ordering
        delivered = epoch * ordering.size + min(step * self.batch_size, ordering.size)
        if not ordering.state(delivered).items() <= dict(saved).items():
            wish = self._wish_of(saved)
            ordering = ordering if wish == self._wish else choose_ordering(self._dataset, wish)
            _compare(saved, ordering.state(delivered))
        if epoch < 0 or not 0 <= step < len(self):
            raise StateMismatchError(
                f"the saved state names step {step} of epoch {epoch}; an epoch has {len(self)} steps; it is damaged:"
                " take an older one",
                field="step" if epoch >= 0 else "epoch",
                actual=step if epoch >= 0 else epoch,
            )
        if ordering is not self._ordering:
            self._use(ordering)
        self._epoch, self._step = epoch, step

    def _wish_of(self, saved: Mapping[str, Any]) -> Wish:
        """Return this sampler's wish, with what it leaves open taken from a state."""
        wish = self._wish
        if wish.order == "auto":
            wish = replace(
                wish, order=next((name for name in get_args(OrderName) if name == saved.get("order")), "auto")
            )
        if wish.order == "stream":
            lanes = saved.get("lanes") if wish.lanes is None else wish.lanes
            wish = replace(wish, lanes=lanes, window=saved.get("window") if wish.window is None else wish.window)
        return wish

    @property
    def _chooses_anew(self) -> bool:
        """Whether each epoch may have another order; sources of a mixture are amid epochs of their own then."""
        return self._wish.order == "auto" and not isinstance(self._dataset, OrdersItself)

    def _use(self, ordering: Ordering) -> None:
        self._ordering = ordering
        self._epochs = {}

    @property
    def _whole(self) -> int:
        return self._ordering.size // self.batch_size

    def _order(self, epoch: int) -> EpochOrder:
        found = self._epochs.get(epoch)
        if found is None:
            found = self._ordering.epoch(epoch)
            last = list(self._epochs.items())[1 - _KEPT_EPOCHS :]
            self._epochs = {**dict(last), epoch: found}  # not changed in place: a thread may be reading it
        return found

    def _share_at(self, epoch: int, step: int) -> Share:
        self._check_step(step)
        order = self._order(epoch)
        if step >= self._whole:
            return self._last(order)
        return Share(order.block(step, step + 1, self._ranks.places)[0], self._ranks.share)

    def _check_step(self, step: int) -> None:
        if not 0 <= step < len(self):
            raise ValueError(f"step {step} is outside of an epoch of {len(self)} steps")

    def _last(self, order: EpochOrder) -> Share:
        rest = order.rest()

        def beginning(count: int) -> Indices:
            if not self._whole:
                return rest[:count]
            first: Indices = order.block(0, 1, slice(0, min(count, self.batch_size)))[0]
            return first

        return last_share(rest, self.tail, self._ranks, beginning=beginning)

    def _identity(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "samples": self._dataset.fingerprint,
            "batch_size": self.batch_size,
            "tail": self.tail,
            "seed": self._wish.seed,
        }


def _upgraded(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read states of version 1, which said `drop_last` for the tail; their orders are as they were."""
    if not isinstance(state, Mapping):
        raise StateMismatchError(
            f"the saved state is of type {type(state).__name__}; expected what `state_dict` returned", field="state"
        )
    if state.get("version") != 1:
        return state
    return {**state, "version": STATE_VERSION, "tail": "drop" if state.get("drop_last") else "pad"}


def _count(state: Mapping[str, Any], name: str) -> int:
    found: Any = state.get(name)
    try:
        return operator.index(found)
    except TypeError:
        raise StateMismatchError(
            f"the saved state has {found!r} for its {name}, expected a number; it is damaged: take an older one",
            field=name,
            actual=found,
        ) from None


def _compare(state: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name, expected in here.items():
        if state.get(name) != expected:
            raise StateMismatchError(
                f"the saved state cannot be resumed here: its {name} is {state.get(name)!r}, here it is"
                f" {expected!r}; make the sampler as it was, or start the epoch anew",
                field=name,
                expected=expected,
                actual=state.get(name),
            )
