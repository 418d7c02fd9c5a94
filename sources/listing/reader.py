"""Hands batches out in order and checks what only shows there: that ranges fit together."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

import pyarrow as pa

from sources.listing.keys import OrderBroken, restart_point
from sources.listing.segments import KeyRange, Seam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sources.listing.crew import Crew


class OrderedReader:
    """The reader's end of a crew.

    Attributes:
        last: Last key handed out.
        after: The key after which a listing would go on, with the keys in `taken` already handed out.
    """

    def __init__(self, crew: Crew, *, seams: list[Seam], least_rows: int) -> None:
        self._crew = crew
        self._seams = seams
        self._least_rows = least_rows
        self.last = ""
        self.after = ""
        self.taken: tuple[str, ...] = ()

    def batches(self, is_broken_at: Callable[[Seam], bool] | None) -> Iterator[pa.RecordBatch]:
        """Yield all batches; small ones are put together.

        Args:
            is_broken_at: Looks closer at a seam where the second range does not begin with what the first one saw.

        Raises:
            OrderBroken: If keys do not ascend, or a range lacks a key; what was yielded is right and complete.
            BaseException: What a worker raised.
        """
        try:
            while True:
                pieces, ended = self._crew.take(self._least_rows)
                for segment in ended:
                    if isinstance(segment, KeyRange) and segment.seam is not None:
                        bisect.insort(self._seams, segment.seam)
                if is_broken_at is not None:
                    self._check(pieces, is_broken_at)
                if not pieces:
                    return
                yield pieces[0] if len(pieces) == 1 else _joined(pieces)
        finally:
            self._crew.stop()

    def _check(self, pieces: list[pa.RecordBatch], is_broken_at: Callable[[Seam], bool]) -> None:
        last, after, taken = self.last, self.after, self.taken
        for piece in pieces:
            keys = piece.column("key")
            first = keys[0].as_py()
            if first <= last and last:
                raise OrderBroken
            while self._seams and self._seams[0].cut < first:
                seam = self._seams.pop(0)
                if first != seam.stop and is_broken_at(seam):
                    raise OrderBroken
            last = keys[-1].as_py()
            after, taken = restart_point(keys, after, taken)
        if not pieces and any(is_broken_at(seam) for seam in self._seams):
            raise OrderBroken
        self.last, self.after, self.taken = last, after, taken


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch
