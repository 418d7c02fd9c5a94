"""Which file goes where in which shard. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from loaders.errors import DuplicateFieldError
from loaders.grouping import split_paths
from loaders.order import Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaders.grouping import KeyRule

pc: Any = pyarrow.compute  # its functions exist only at run time

SHARD_BYTES = 64 << 20
"""Usual size of a shard: large enough that requests are few, small enough that a node can hold many."""
_TAR_BLOCK = 512

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """How samples are put into shards; recorded in the commit's meta as `forebay.pack`.

    Attributes:
        shuffle: Put the samples in a random order, so that no shard holds one class only; otherwise by sample key.
        seed: Of that order.
        shard_size: Most bytes of a shard, unless one sample alone is larger: no sample is split.
        key: What joins files into samples, see `KeyRule`. It also names the members: by their path, or for `stem` by
            their base name, so that what reads tars finds the same samples.
    """

    shuffle: bool = False
    seed: int = 0
    shard_size: int = SHARD_BYTES
    key: KeyRule = "path"

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"shard_size is {self.shard_size}; expected at least 1 byte")


@dataclass(frozen=True, slots=True, eq=False)
class ShardPlan:
    """The order of all files and where it is cut.

    Attributes:
        rows: int64, numbers of the entries in writing order.
        names: Member names in that order.
        shards: [start, stop) of each shard in that order.
        ends: int64, bytes of the files up to and with each, in that order.
    """

    rows: _Rows
    names: list[str]
    shards: list[tuple[int, int]]
    ends: _Rows

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def chunks(self, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
        """Cut [start, stop) into ranges of at most `limit` bytes, or one larger file."""
        return _cuts(self.ends, start, stop, limit)


def plan_shards(entries: pa.Table, layout: ShardLayout) -> ShardPlan:
    """Order entries sample by sample and cut them into shards.

    The order depends on paths and layout only. Files that are no member of a sample stand alone, under their path.

    Args:
        entries: With path and size, sorted by path.
        layout: Order, size and naming.

    Raises:
        DuplicateFieldError: If two paths have the same key and field.
    """
    paths = _whole(entries["path"]).cast(pa.large_string())
    keys, fields = split_paths(paths, rule=layout.key)
    by_sample = _sorted_rows(pc.coalesce(keys, paths), pc.fill_null(fields, ""))
    begins = _sample_begins(pc.coalesce(keys, paths).take(by_sample))
    _check_fields(paths, by_sample, begins, fields, layout.key)
    rows, begins = _ordered(by_sample.to_numpy(), begins, layout)
    sizes = _whole(entries["size"]).to_numpy()[rows]
    in_tar = _TAR_BLOCK + -(-sizes // _TAR_BLOCK) * _TAR_BLOCK
    stops = np.append(begins, len(rows))
    sample_ends = np.append(0, np.cumsum(in_tar))[stops[1:]]
    cuts = _cuts(sample_ends, 0, len(begins), layout.shard_size)
    return ShardPlan(
        rows=rows,
        names=_member_names(paths.take(rows), keys.is_valid().take(rows), layout.key),
        shards=[(int(stops[first]), int(stops[last])) for first, last in cuts],
        ends=np.cumsum(sizes),
    )


def _whole(column: Any) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _sorted_rows(keys: Any, fields: Any) -> Any:
    return pc.sort_indices(
        pa.table({"key": keys, "field": fields}), sort_keys=[("key", "ascending"), ("field", "ascending")]
    ).cast(pa.int64())


def _sample_begins(keys: Any) -> _Rows:
    if not len(keys):
        return np.empty(0, dtype=np.int64)
    other = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.append(True, other))


def _check_fields(paths: Any, by_sample: Any, begins: _Rows, fields: Any, rule: KeyRule) -> None:
    ordered = fields.take(by_sample)
    if len(ordered) < 2:
        return
    same = pc.fill_null(pc.equal(ordered.slice(1), ordered.slice(0, len(ordered) - 1)), False)
    doubles = np.setdiff1d(np.flatnonzero(same.to_numpy(zero_copy_only=False)) + 1, begins)
    if not doubles.size:
        return
    second = int(doubles[0])
    first_path, second_path = (paths[by_sample[second - i].as_py()].as_py() for i in (1, 0))
    field = ordered[second].as_py()
    raise DuplicateFieldError(
        f"{first_path} and {second_path} are both field {field!r} of one sample under key rule {rule!r}"
        f" ({doubles.size} such pairs); pack with key rule 'path'",
        field=field,
        paths=(first_path, second_path),
    )


def _ordered(rows: _Rows, begins: _Rows, layout: ShardLayout) -> tuple[_Rows, _Rows]:
    """Put whole samples in the layout's order; return (rows, begins)."""
    if not layout.shuffle or not len(begins):
        return rows, begins
    order = Order(len(begins), layout.seed).indices(0, len(begins))
    counts = np.diff(begins, append=len(rows))[order]
    stops = np.cumsum(counts)
    moved = np.repeat(begins[order] - (stops - counts), counts) + np.arange(len(rows))
    return rows[moved], stops - counts


def _cuts(ends: _Rows, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) of things that end at `ends` into ranges of at most `limit`, or one larger thing."""
    while start < stop:
        before = int(ends[start - 1]) if start else 0
        last = min(stop, max(start + 1, int(np.searchsorted(ends, before + limit, side="right"))))
        yield start, last
        start = last


def _member_names(paths: Any, is_member: Any, rule: KeyRule) -> list[str]:
    if rule == "stem":
        paths = pc.if_else(is_member, pc.replace_substring_regex(paths, r"(?s)^.*/", ""), paths)
    names: list[str] = paths.to_pylist()
    return names
