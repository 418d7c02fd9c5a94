"""Any map-style data set, such as one of torch or torchvision, for the samplers and the `Loader`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class MapStyle(Protocol):
    """What `torch.utils.data.Dataset` looks like if it is map-style."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one sample."""
        ...


class PlainDataset:
    """Gives a map-style data set what an elastic order needs: a name for its samples, and reads of some at a time.

    Args:
        dataset: With `__len__` and `__getitem__`; `__getitems__` is used where it has one. With `mode="process"` it has
            to be one that can be pickled.
        name: What these samples are, for example "cifar10-train v2": a saved state resumes only where the name and the
            number of samples are the same. Give another name when the samples or their order change.

    Attributes:
        dataset: As given.
    """

    def __init__(self, dataset: MapStyle, *, name: str) -> None:
        if not name:
            raise ValueError("the name is empty; name the samples and their version, which a saved state is checked by")
        self.dataset = dataset
        self._name = name

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def fingerprint(self) -> str:
        """The name, and how many samples there are."""
        return f"plain:{len(self)}:{self._name}"

    def __getitem__(self, index: int) -> Any:
        """Return one sample, as the data set does."""
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return some samples, in this order."""
        some = getattr(self.dataset, "__getitems__", None)
        return [self.dataset[index] for index in indices] if some is None else list(some(list(indices)))
