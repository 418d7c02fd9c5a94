"""The objects that an index points into."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning import locations

if TYPE_CHECKING:
    from sources import ObjectRef
    from versioning import RepositoryRoot

_KEPT_REFS = 65_536  # about 30 MB; packs are far fewer, and a million external files must not stay as Python objects


class ObjectTable:
    """Distinct objects, as columns; an `ObjectRef` is made when asked for, and a bounded number of them is kept.

    Args:
        table: One row an object: store, key, version, object_size.
        root: The repository that rows with an empty store lie in.

    Attributes:
        table: As given.
        root: As given.
        known: Objects that were asked for before, by number. It only ever grows: another thread may replace it, not
            empty it.
    """

    def __init__(self, table: pa.Table, root: RepositoryRoot) -> None:
        self.table = table
        self.root = root
        self.known: dict[int, ObjectRef] = {}
        self._kept = _KEPT_REFS

    def __len__(self) -> int:
        return len(self.table)

    def refs(self, numbers: list[int]) -> list[ObjectRef]:
        """Return the objects of these numbers, one for each, repeats allowed.

        Raises:
            CorruptRepositoryError: If a key cannot be one of the repository.
        """
        refs = self.known
        try:
            return [refs[number] for number in numbers]
        except KeyError:
            refs = self._with(set(numbers))
        return [refs[number] for number in numbers]

    def ref(self, number: int) -> ObjectRef:
        """Return one object.

        Raises:
            CorruptRepositoryError: As `refs`.
        """
        found = self.known.get(number)
        return self.refs([number])[0] if found is None else found

    def numbered(self, numbers: list[int]) -> tuple[list[ObjectRef], list[int]]:
        """Return the objects of these numbers, each once, and for each number its place among them.

        Raises:
            CorruptRepositoryError: As `refs`.
        """
        distinct = dict.fromkeys(numbers)
        refs = self.refs(list(distinct))
        if len(refs) == 1:
            return refs, [0] * len(numbers)
        places = dict(zip(distinct, range(len(refs)), strict=True))
        return refs, [places[number] for number in numbers]

    def _with(self, numbers: set[int]) -> dict[int, ObjectRef]:
        refs = self.known if len(self.known) + len(numbers) <= self._kept else {}
        missing = sorted(numbers - refs.keys())
        nothing = _array([0] * len(missing))
        rows = self.table.take(_array(missing)).append_column("offset", nothing).append_column("size", nothing)
        refs.update(zip(missing, (location.object for location in locations(rows, self.root)), strict=True))
        self.known = refs
        return refs


def _array(numbers: list[int]) -> pa.Array[Any]:
    """Make an array of Arrow's. `pa.array` would import pandas, a third of a second in each worker process."""
    return pa.Int64Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(array("q", numbers))])
