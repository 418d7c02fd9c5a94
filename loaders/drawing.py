"""Random crops and the like: a number for each sample and epoch, the same wherever and whenever it is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    from collections.abc import Iterable

_DRAWS = 0x64726177  # keeps a decoder's draws apart from the other uses of the seed


class Drawn(list[int]):
    """The samples of a batch, and what their random decoders draw from.

    A list, so that it passes through a DataLoader and its workers to `ShardDataset.__getitems__` as any batch does.

    Attributes:
        seed: Of the sampler.
        epoch: That the batch belongs to.
    """

    __slots__ = ("epoch", "seed")

    def __init__(self, numbers: Iterable[int], seed: int, epoch: int) -> None:
        super().__init__(numbers)
        self.seed = seed
        self.epoch = epoch

    def __reduce__(self) -> tuple[object, ...]:
        return Drawn, (list(self), self.seed, self.epoch)


def draws_of(numbers: Iterable[int]) -> list[int]:
    """Return the draw of each sample of a batch; of a list that is not `Drawn`, those of seed and epoch 0."""
    seed, epoch = (numbers.seed, numbers.epoch) if isinstance(numbers, Drawn) else (0, 0)
    return [draw_of(seed, epoch, number) for number in numbers]


def draw_of(seed: int, epoch: int, number: int) -> int:
    """Return the number that a decoder draws for a sample in an epoch, 64 bits."""
    words = (_DRAWS, seed % (1 << 64), epoch, number)
    return xxh3_64_intdigest(b"".join(word.to_bytes(8, "little") for word in words))
