"""Fields of one size, decoded straight into their row of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from loaders.drawing import draw_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from loaders.running.collating import Collate


@runtime_checkable
class SlotDecoder(Protocol):
    """A decoder whose arrays all have one shape, so that it can write them where they are wanted.

    Any decoder of `ShardDataset(decode={field: decoder})` may be one. `Loader` calls `into`; whoever reads single
    samples calls it as a function, as every decoder.

    With an attribute `draws` that is true, `into` gets a third argument: a number that depends on seed, epoch and
    sample only, for random crops and the like.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each array."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of each array."""
        ...

    def __call__(self, data: memoryview) -> Any:
        """Decode one field into an array of its own."""
        ...

    def into(self, data: memoryview, out: npt.NDArray[Any]) -> None:
        """Decode one field into `out`, C order, of this shape and dtype; it has undefined content before."""
        ...


class RawArray:
    """A decoder of arrays that are stored as their plain bytes, C order.

    Args:
        shape: Of each array.
        dtype: Of each array; little-endian where that matters.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def __call__(self, data: memoryview) -> npt.NDArray[Any]:
        """Return the array, a copy."""
        out = np.empty(self.shape, self.dtype)
        self.into(data, out)
        return out

    def into(self, data: memoryview, out: npt.NDArray[Any]) -> None:
        """Copy the array.

        Raises:
            ValueError: If the bytes are not as many as the shape takes.
        """
        if len(data) != out.nbytes:
            raise ValueError(f"{len(data)} bytes; an array of {self.shape}, {self.dtype}, has {out.nbytes}")
        out.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)


class SlotPlan:
    """Which fields of a data set are decoded in place.

    Args:
        dataset: To read from; it gives these fields as they are stored and transforms nothing.
        slots: The decoder of each such field.
        transform: Called with each sample, after its fields are decoded.
        seed: Of what decoders draw.
    """

    def __init__(
        self,
        dataset: Any,
        slots: dict[str, SlotDecoder],
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.slots = slots
        self._transform = transform
        self._seed = seed

    def fill(
        self,
        samples: list[Any],
        arrays: dict[str, npt.NDArray[Any]],
        places: Sequence[int],
        numbers: Sequence[int],
        epoch: int,
    ) -> list[Any]:
        """Decode the fields of samples into the rows `places` of the arrays, and return the samples."""
        if not self.slots:
            return samples
        for sample, place, number in zip(samples, places, numbers, strict=True):
            for field, slot in self.slots.items():
                if field in sample:
                    out = arrays[field][place]
                    self._decode(slot, sample, field, out, draw_of(self._seed, epoch, number))
                    sample[field] = out
        return samples if self._transform is None else [self._transformed(sample) for sample in samples]

    def _decode(self, slot: Any, sample: dict[str, Any], field: str, out: npt.NDArray[Any], draw: int) -> None:
        try:
            slot.into(sample[field], out, *((draw,) if getattr(slot, "draws", False) else ()))
        except Exception as error:
            error.add_note(f"in the decoder of sample {sample.get('__key__')}, field {field}")
            raise

    def _transformed(self, sample: dict[str, Any]) -> Any:
        assert self._transform is not None
        key = sample.get("__key__")
        try:
            return self._transform(sample)
        except Exception as error:
            error.add_note(f"in the transform of sample {key}")
            raise

    def collate(
        self, collate: Collate, arrays: dict[str, npt.NDArray[Any]], places: list[int], samples: list[Any]
    ) -> Any:
        """Make a batch; a collate function with `with_rows` gets the arrays, so that it need not stack their rows."""
        with_rows = getattr(collate, "with_rows", None)
        if not arrays or with_rows is None:
            return collate(samples)
        return with_rows(samples, Rows(list(arrays.values()), places))


class Rows:
    """Knows which arrays are rows of a batch's array already.

    Args:
        arrays: One row a place.
        places: The rows that are used, ascending.
    """

    def __init__(self, arrays: list[npt.NDArray[Any]], places: list[int]) -> None:
        self._arrays = arrays
        self._places = places

    def whole(self, column: Sequence[Any]) -> npt.NDArray[Any] | None:
        """Return the array of which the values are the rows, in their order; None if they are others."""
        for array in self._arrays:
            if all(map(_is_row, column, [array] * len(column), self._places)):
                return array if len(self._places) == len(array) else array[self._places]
        return None


def _is_row(value: Any, array: npt.NDArray[Any], place: int) -> bool:
    if not isinstance(value, np.ndarray) or value.shape != array.shape[1:] or value.dtype != array.dtype:
        return False
    mine, row = value.__array_interface__["data"][0], array.__array_interface__["data"][0] + place * array.strides[0]
    return bool(mine == row and value.flags.c_contiguous)


def plan_slots(dataset: Any, *, seed: int) -> SlotPlan:
    """Return which fields of a data set are decoded in place: those whose decoder can, where the data set lets us."""
    decoders = getattr(dataset, "decoders", None)
    slots = {field: one for field, one in decoders.items() if isinstance(one, SlotDecoder)} if decoders else {}
    if not slots:
        return SlotPlan(dataset, {})
    return SlotPlan(dataset.undecoded(slots), slots, dataset.transform, seed=seed)
