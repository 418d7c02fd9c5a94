"""From a list of samples to a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from loaders.errors import CollateError

if TYPE_CHECKING:
    from loaders.running.slots import Rows

Collate = Callable[[list[Any]], Any]
"""Makes a batch of samples."""

CollateName = Literal["torch", "numpy", "list"]
"""`torch`: as `torch.utils.data.default_collate`. `numpy`: the same with arrays. `list`: the samples, as they are."""


def choose_collate(wanted: Collate | CollateName | None) -> Collate:
    """Return the function that makes batches; None: `torch` where torch is installed, else `numpy`.

    Raises:
        ValueError: If there is no such name.
    """
    if callable(wanted):
        return wanted
    name = wanted or ("torch" if find_spec("torch") else "numpy")
    if name not in get_args(CollateName):
        raise ValueError(f"unknown collate {name!r}; known: {', '.join(get_args(CollateName))}, or pass a function")
    return list if name == "list" else Stacking(name)


class Stacking:
    """Stacks samples: mappings, tuples and lists by their members, numbers and arrays along a new first axis.

    Strings, bytes and None stay lists. A batch of no samples is an empty list. What torch has a rule for and this has
    not (registered types, mappings of other classes) is left to `torch.utils.data.default_collate`.

    Args:
        kind: `torch` for tensors, `numpy` for arrays.
    """

    def __init__(self, kind: Literal["torch", "numpy"]) -> None:
        self.kind = kind

    def __call__(self, samples: list[Any]) -> Any:
        """Return the batch.

        Raises:
            CollateError: If the samples do not have the same fields, or values of the same shape.
        """
        return self.with_rows(samples, None)

    def with_rows(self, samples: list[Any], rows: Rows | None) -> Any:
        """Return the batch; values that are rows of a batch's array already are not copied."""
        return self._column(samples, rows, "sample") if samples else []

    def _column(self, column: Sequence[Any], rows: Rows | None, name: str) -> Any:
        first = column[0]
        if type(first) is dict:
            return self._mappings(column, rows, name)
        if isinstance(first, tuple):
            members = self._members(column, rows, name)
            if hasattr(first, "_fields"):
                return type(first)(*members)
            return members if self.kind == "torch" else tuple(members)  # torch makes lists of tuples
        if isinstance(first, list):
            return self._members(column, rows, name)
        if isinstance(first, (str, bytes, bytearray, memoryview)) or first is None:
            return list(column)
        return self._values(column, rows, name)

    def _mappings(self, column: Sequence[dict[Any, Any]], rows: Rows | None, name: str) -> dict[Any, Any]:
        names = column[0].keys()
        for one in column:
            if one.keys() != names:
                raise CollateError(
                    f"{name}: one has the fields {_listed(names)}, another {_listed(one.keys())};"
                    " choose the `fields` that all have, or pass a collate function"
                )
        return {key: self._column([one[key] for one in column], rows, f"{name}[{key!r}]") for key in names}

    def _members(self, column: Sequence[Sequence[Any]], rows: Rows | None, name: str) -> list[Any]:
        lengths = {len(one) for one in column}
        if len(lengths) > 1:
            raise CollateError(
                f"{name}: lengths {sorted(lengths)[:8]} in one batch; make them equal, or pass a collate function"
            )
        return [
            self._column([one[place] for one in column], rows, f"{name}[{place}]") for place in range(lengths.pop())
        ]

    def _values(self, column: Sequence[Any], rows: Rows | None, name: str) -> Any:
        try:
            if isinstance(column[0], np.ndarray):
                found = None if rows is None else rows.whole(column)
                stacked = np.stack(column) if found is None else found
                return stacked if self.kind == "numpy" else _tensor(stacked)
            return _array(column) if self.kind == "numpy" else _by_torch(column)
        except (ValueError, RuntimeError, TypeError) as error:
            shapes = sorted({str(getattr(one, "shape", type(one).__name__)) for one in column})
            raise CollateError(
                f"{name}: values of {', '.join(shapes[:8])} cannot be stacked ({error});"
                " give them one shape in the transform, or pass a collate function"
            ) from error


def _array(column: Sequence[Any]) -> Any:
    array = np.asarray(column)
    if array.dtype.hasobject:
        raise TypeError(f"numpy has no type for {type(column[0]).__name__}")
    return array


def _tensor(array: Any) -> Any:
    import torch

    if array.dtype.kind in "SUOVmM":
        raise TypeError(f"torch has no type for {array.dtype}")
    return torch.from_numpy(array)


def _by_torch(column: Sequence[Any]) -> Any:
    from torch.utils.data import default_collate

    return default_collate(list(column))


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))
