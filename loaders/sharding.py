"""Which file goes where in which shard. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from loaders.errors import DuplicateFieldError
from loaders.keys import check_key_rule, describe_key_rule, names_by_path, split_paths
from loaders.order import Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaders.keys import KeyRule

pc: Any = pyarrow.compute  # its functions exist only at run time

SHARD_BYTES = 64 << 20
"""Usual size of a shard: large enough that requests are few, small enough that a node can hold many."""
TAR_BLOCK = 512

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """How samples are put into shards; recorded in the commit's meta as `forebay.pack`.

    Attributes:
        shuffle: Put the samples in a random order, so that no shard holds one class only; otherwise by sample key.
        seed: Of that order.
        shard_size: Most bytes of a shard, unless one sample alone is larger: no sample is split.
        key: What joins files into samples, see `KeyRule`. It also names the members: by their path, for `stem` by their
            base name, else by key and field, so that what reads tars finds the same samples. (A tar reader ends a key
            at the first dot of its base name: let a rule of your own make keys without.)
    """

    shuffle: bool = False
    seed: int = 0
    shard_size: int = SHARD_BYTES
    key: KeyRule = "path"

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"shard_size is {self.shard_size}; expected at least 1 byte")
        check_key_rule(self.key)

    def record(self) -> dict[str, Any]:
        """Return it as JSON, for the commit's meta."""
        fields = {"shuffle": self.shuffle, "seed": self.seed, "shard_size": self.shard_size}
        return {**fields, "key": describe_key_rule(self.key)}


@dataclass(frozen=True, slots=True, eq=False)
class ShardPlan:
    """The order of all files and where it is cut.

    Attributes:
        rows: int64, numbers of the entries in writing order.
        names: Member names in that order.
        shards: [start, stop) of each shard in that order.
        ends: int64, bytes of the files up to and with each, in that order.
        begins: int64, where each sample begins in that order.
        keys: Of the sample of each file, in that order; a file that is no member of a sample has its path.
        fields: Of each file, in that order; null where it is no member of a sample.
    """

    rows: _Rows
    names: list[str]
    shards: list[tuple[int, int]]
    ends: _Rows
    begins: _Rows
    keys: Any
    fields: Any

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def chunks(self, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
        """Cut [start, stop) into ranges of at most `limit` bytes, or one larger file."""
        return cuts(self.ends, start, stop, limit)


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
    owners = pc.coalesce(keys, paths)
    by_sample = _sorted_rows(owners, pc.fill_null(fields, ""))
    begins = _sample_begins(owners.take(by_sample), fields.take(by_sample))
    _check_fields(paths, by_sample, begins, fields, layout.key)
    rows, begins = _ordered(by_sample.to_numpy(), begins, layout)
    sizes = _whole(entries["size"]).to_numpy()[rows]
    in_tar = TAR_BLOCK + -(-sizes // TAR_BLOCK) * TAR_BLOCK
    stops = np.append(begins, len(rows))
    sample_ends = np.append(0, np.cumsum(in_tar))[stops[1:]]
    shards = cuts(sample_ends, 0, len(begins), layout.shard_size)
    fields = fields.take(rows)
    return ShardPlan(
        rows=rows,
        names=_member_names(paths.take(rows), owners.take(rows), fields, layout.key),
        shards=[(int(stops[first]), int(stops[last])) for first, last in shards],
        ends=np.cumsum(sizes),
        begins=begins,
        keys=owners.take(rows),
        fields=fields,
    )


def _whole(column: Any) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _sorted_rows(keys: Any, fields: Any) -> Any:
    return pc.sort_indices(
        pa.table({"key": keys, "field": fields}), sort_keys=[("key", "ascending"), ("field", "ascending")]
    ).cast(pa.int64())


def _sample_begins(keys: Any, fields: Any) -> _Rows:
    """Return where samples begin; a file that is no member of one, though it has the name of its key, is alone."""
    if not len(keys):
        return np.empty(0, dtype=np.int64)
    other = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1)).to_numpy(zero_copy_only=False)
    alone = fields.is_null().to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.append(True, other | alone[1:] | alone[:-1]))


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
        f"{first_path} and {second_path} are both field {field!r} of one sample under key rule"
        f" {describe_key_rule(rule)!r}"
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


def cuts(ends: _Rows, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) of things that end at `ends` into ranges of at most `limit`, or one larger thing."""
    while start < stop:
        before = int(ends[start - 1]) if start else 0
        last = min(stop, max(start + 1, int(np.searchsorted(ends, before + limit, side="right"))))
        yield start, last
        start = last


def _member_names(paths: Any, keys: Any, fields: Any, rule: KeyRule) -> list[str]:
    if rule == "stem":
        paths = pc.if_else(fields.is_valid(), pc.replace_substring_regex(paths, r"(?s)^.*/", ""), paths)
    elif not names_by_path(rule):
        named = pc.binary_join_element_wise(keys, fields, pa.scalar(".", pa.large_string()))
        paths = pc.coalesce(named, paths)
    names: list[str] = paths.to_pylist()
    return names
