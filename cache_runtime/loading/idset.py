"""A set of object ids that takes their 16 bytes each, for as many objects as a version may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ids: TypeAlias = NDArray[np.bytes_]

_BYTES = 16


class IdSet:
    """Sorted runs of ids, each at least twice as long as the next: log2 of the count searches for a look-up.

    A Python set takes six times as much.
    """

    def __init__(self) -> None:
        self._runs: list[Ids] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def __contains__(self, object_id: bytes) -> bool:
        wanted = np.bytes_(object_id.rstrip(b"\0"))  # as NumPy gives them back
        for run in self._runs:
            at = int(np.searchsorted(run, wanted))
            if at < len(run) and run[at] == wanted:
                return True
        return False

    def add(self, ids: Sequence[bytes]) -> list[bool]:
        """Add ids, some thousand at a time; say of each whether it was new, of equal ones the first."""
        if not ids:
            return []
        batch: Ids = np.array(
            ids, dtype=f"S{_BYTES}"
        )  # NumPy drops zeros at the end, and compares as if they were there
        unique, first = np.unique(batch, return_index=True)
        known = np.zeros(len(unique), bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            known |= run[at] == unique
        new = np.zeros(len(batch), bool)
        new[first[~known]] = True
        self._push(unique[~known])
        found: list[bool] = new.tolist()
        return found

    def _push(self, run: Ids) -> None:
        if len(run):
            self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # of two sorted halves: a merge
            self._runs.append(merged)
