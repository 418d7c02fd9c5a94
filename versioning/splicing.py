"""Putting changes into the rows of a node; what stays as it is is not copied, nor hashed once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from versioning.columns import as_bytes, compute, concat, first_not_below, is_in, is_sorted, single, where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from versioning.chunking import CutRule
    from versioning.columns import Mask

_FEW = 64  # so many changes of one node are put in place one by one


class Run(NamedTuple):
    """Sorted rows of a level that will be cut into nodes.

    Attributes:
        rows: Their columns may be in several pieces.
        silent: Which of them end no node by their hash, as far as that is known.
    """

    rows: pa.Table
    silent: Mask

    @classmethod
    def of_node(cls, rows: pa.Table, rule: CutRule) -> Run:
        """Return the rows of one node: it would have ended before its last row if a hash had said so."""
        silent = np.zeros(rows.num_rows, dtype=np.bool_)
        silent[rule.minimum - 1 : -1] = True
        return cls(rows, silent)

    def then(self, later: Run) -> Run:
        """Return these rows and the ones behind them."""
        if not self.rows.num_rows:
            return later
        return Run(pa.concat_tables([self.rows, later.rows]), np.concatenate([self.silent, later.silent]))

    def last(self, count: int) -> Run:
        """Return the last rows."""
        start = self.rows.num_rows - count
        return Run(self.rows.slice(start), self.silent[start:])


class _Piece(NamedTuple):
    """Some of the old rows, or of those that are put in place."""

    is_new: bool
    start: int
    length: int


def spliced(run: Run, upserts: pa.Table, deleted: Any) -> Run:
    """Return sorted rows with some replaced, added and deleted; deleting what is not there changes nothing."""
    if not upserts.num_rows and not len(deleted):
        return run
    if upserts.num_rows + len(deleted) <= _FEW:
        return _with_few(run, upserts, deleted)
    touched = pa.concat_arrays([single(upserts.column("path")), single(deleted)])
    kept = ~is_in(run.rows.column("path"), touched)
    rows = concat([where(run.rows, kept), upserts], run.rows.schema)
    silent = np.concatenate([run.silent[kept], np.zeros(upserts.num_rows, dtype=np.bool_)])
    paths = rows.column("path")
    if is_sorted(single(paths)):
        return Run(rows, silent)
    order = compute.array_sort_indices(single(paths))
    return Run(rows.take(order), silent[order.to_numpy()])


def _with_few(run: Run, upserts: pa.Table, deleted: Any) -> Run:
    """Put few changes between slices of the rows: nothing is sorted, nothing copied yet."""
    keys = as_bytes(run.rows.column("path"))
    puts = [(key, number) for number, key in enumerate(as_bytes(upserts.column("path")).to_pylist())]
    start, pieces, replaced = 0, [], []
    for key, number in sorted([*puts, *((key, -1) for key in as_bytes(deleted).to_pylist())]):
        position = first_not_below(keys, key, start)
        pieces.append(_Piece(False, start, position - start))
        if number >= 0:
            pieces.append(_Piece(True, number, 1))
        start = position
        if position < len(keys) and keys[position].as_py() == key:
            replaced += [position] if number >= 0 else []
            start += 1
    pieces.append(_Piece(False, start, len(keys) - start))
    new = np.zeros(upserts.num_rows, dtype=np.bool_)
    silent = np.concatenate([(new if each.is_new else run.silent)[each.start :][: each.length] for each in pieces])
    if len(replaced) == upserts.num_rows and len(silent) == len(keys):
        return Run(_replaced(run.rows, upserts, replaced, pieces), silent)
    sides = run.rows, upserts
    return Run(pa.concat_tables([sides[each.is_new].slice(each.start, each.length) for each in pieces]), silent)


def _replaced(rows: pa.Table, upserts: pa.Table, positions: Sequence[int], pieces: Sequence[_Piece]) -> pa.Table:
    """Return rows with those at some positions replaced; columns in which nothing is different stay where they are."""
    at = pa.array(positions, pa.int64())
    columns: list[Any] = []
    for old, new in zip(rows.columns, upserts.columns, strict=True):
        if old.take(at).equals(new):
            columns.append(old)
            continue
        sides = single(old), single(new)
        columns.append(pa.chunked_array([sides[each.is_new].slice(each.start, each.length) for each in pieces]))
    return pa.Table.from_arrays(columns, schema=rows.schema)
