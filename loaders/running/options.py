"""What may be asked of a loader beside its data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loaders.ordering.choosing import OrderName
    from loaders.ordering.tails import Tail

Mode = Literal["thread", "process", "sync"]
"""Who makes batches: threads of this process, processes of their own, or the loop itself."""

StartMethod = Literal["forkserver", "spawn"]


class LoaderOptions(TypedDict, total=False):
    """The order of samples, as `ElasticBatchSampler` takes it, and how far to work ahead, as `RunOptions` says.

    Without `rank` and `world_size` they come from the environment, where torchrun and Accelerate leave them; see
    `rank_options`.
    """

    seed: int
    order: OrderName
    drop_last: bool
    tail: Tail | None
    lanes: int | None
    window: int | None
    rank: int | None
    world_size: int | None
    prefetch: int | None
    prefetch_bytes: int
    read_ahead: int
    timeout: float
    start_method: StartMethod


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a `Loader` works ahead; no result depends on it.

    Attributes:
        prefetch: Batches that are begun before they are asked for. None: two for each worker process; with threads,
            two more than there are.
        prefetch_bytes: Of these, at most (1 GiB); one batch is always made.
        read_ahead: Batches ahead of these that are announced to the cache, where the data set has one, as long as it
            lacks some of what is announced (32); 0: none.
        timeout: Seconds that the loop waits for one batch before it raises (600).
        start_method: Of worker processes. `fork` copies locks that other threads hold, and is not offered.
    """

    prefetch: int | None = None
    prefetch_bytes: int = 1 << 30
    read_ahead: int = 32
    timeout: float = 600.0
    start_method: StartMethod = "forkserver"

    def __post_init__(self) -> None:
        if self.start_method not in get_args(StartMethod):
            raise ValueError(
                f"start_method is {self.start_method!r}; expected forkserver or spawn (a fork copies locks that other"
                ' threads hold); where the data set cannot be pickled, use mode="thread"'
            )
        if self.prefetch is not None and self.prefetch < 1:
            raise ValueError(f"prefetch is {self.prefetch}; expected at least 1")
        if not self.timeout or self.timeout <= 0 or min(self.prefetch_bytes, self.read_ahead) < 0:
            raise ValueError(
                f"timeout {self.timeout}, prefetch_bytes {self.prefetch_bytes}, read_ahead {self.read_ahead}:"
                " expected nothing negative, and some time"
            )


_OF_TORCH = {
    "batch_sampler": "it is `sampler` here",
    "collate_fn": "it is `collate` here",
    "generator": "the order depends on `seed` alone",
    "multiprocessing_context": "it is `start_method` here",
    "num_workers": "it is `workers` here, threads unless mode is 'process'",
    "persistent_workers": "processes are kept anyway",
    "pin_memory": "`device` pins and copies",
    "prefetch_factor": "it is `prefetch` here, in batches of all workers together",
    "shuffle": "it is `order` here: 'full' shuffles, 'none' does not",
}
"""What users of torch's DataLoader look for."""


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], RunOptions]:
    """Return those of the order, and how to work ahead.

    Raises:
        TypeError: If there is no such option.
    """
    for name in options:
        if name not in LoaderOptions.__annotations__:
            hint = _OF_TORCH.get(name, f"known are {', '.join(LoaderOptions.__annotations__)}")
            raise TypeError(f"a Loader has no option {name!r}: {hint}")
    names = {field.name for field in fields(RunOptions)}
    order = {name: value for name, value in options.items() if name not in names}
    return order, RunOptions(**{name: value for name, value in options.items() if name in names})
