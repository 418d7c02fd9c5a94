"""From the paths of a tree to samples, vectorised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from loaders.columns import fill_null, text, to_arrow, to_mask, to_numbers
from loaders.errors import DuplicateFieldError
from loaders.keys import describe_key_rule, split_paths
from versioning import CorruptRepositoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from loaders.keys import KeyRule

OBJECT_COLUMNS = ["store", "key", "version", "object_size"]
COLUMNS = ["path", "size", "crc32c", *OBJECT_COLUMNS, "offset"]
"""What is read of an entry."""

pc: Any = pyarrow.compute  # its functions exist only at run time

_Array = npt.NDArray[Any]
_Column = Any  # of Arrow; the published types of its functions are narrower than they are


@dataclass(frozen=True, slots=True)
class GroupedMembers:
    """Members in storage order, sample after sample; see `SampleIndex` for the arrays.

    Attributes:
        members: One row a member: path, offset, size, crc32c.
        objects: Every object once, sorted by store, key and version.
    """

    keys: pa.LargeStringArray
    starts: npt.NDArray[np.int64]
    members: pa.Table
    member_object: npt.NDArray[np.int32]
    member_field: npt.NDArray[np.int32]
    fields: tuple[str, ...]
    objects: pa.Table
    skipped: int


def group_members(
    tables: Iterable[pa.Table], *, rule: KeyRule, where: Callable[[str], bool] | None = None
) -> GroupedMembers:
    """Group entries into samples and put them in storage order.

    A sample's place is that of its first member by (object, offset); members with the same place (two paths of the
    same bytes) keep the order of their paths, so the result depends on the entries alone.

    Args:
        tables: Entries with at least `COLUMNS`, sorted by path.
        rule: See `loaders.keys.KeyRule`.
        where: Keep the samples whose key it accepts.

    Raises:
        DuplicateFieldError: If two paths have the same key and field.
        CorruptRepositoryError: If an entry's range is not inside its object.
    """
    table, skipped = _members(tables, rule)
    _check_ranges(table)
    key_code, keys = _encode(table["sample"])
    if where is not None:
        accepted = np.array([where(key) for key in keys.to_pylist()], dtype=np.bool_)
        table = table.filter(to_mask(accepted[key_code]))
        key_code, keys = _encode(table["sample"])
    member_object, objects = _number_objects(table)
    field_code, fields = _number_fields(table["field"])
    by_sample = np.lexsort((field_code, key_code))
    _check_unique(table, by_sample, key_code=key_code, field_code=field_code, rule=rule)
    starts, order, samples = _storage_order(by_sample, key_code, place=_places(table, member_object))
    return GroupedMembers(
        keys=keys.take(to_arrow(samples)),
        starts=starts,
        members=table.select(["path", "offset", "size", "crc32c"]).take(to_arrow(order)),
        member_object=member_object[order],
        member_field=field_code[order],
        fields=fields,
        objects=objects,
        skipped=skipped,
    )


def _members(tables: Iterable[pa.Table], rule: KeyRule) -> tuple[pa.Table, int]:
    """Add key and field to the entries, drop those that are no members, and unify the types."""
    parts = [_typed(pa.table({name: pa.nulls(0) for name in [*COLUMNS, "sample", "field"]}))]
    skipped = 0
    for table in tables:
        key, field = split_paths(table["path"].combine_chunks(), rule=rule)
        named = table.select(COLUMNS).append_column("sample", key).append_column("field", field)
        members = named.filter(key.is_valid())
        skipped += len(named) - len(members)
        parts.append(_typed(members))
    return pa.concat_tables(parts).combine_chunks(), skipped


def _typed(table: pa.Table) -> pa.Table:
    columns = {}
    for name in table.column_names:
        column: _Column = table[name]
        if name == "crc32c":
            columns[name] = fill_null(column.cast(pa.int64()), -1)
        elif name in {"size", "offset", "object_size"}:
            columns[name] = fill_null(column.cast(pa.int64()), 0)
        else:
            columns[name] = column.cast(pa.large_string())
    return pa.table(columns)


def _check_ranges(table: pa.Table) -> None:
    offset, size, object_size = (to_numbers(table[name]) for name in ("offset", "size", "object_size"))
    wrong = np.flatnonzero((offset < 0) | (size < 0) | (offset > object_size - size))
    if wrong.size:
        row = table.slice(int(wrong[0]), 1).to_pylist()[0]
        raise CorruptRepositoryError(
            row["key"], reason=f"{row['path']} names {row['size']} bytes at {row['offset']} of {row['object_size']}"
        )


def _encode(column: _Column) -> tuple[npt.NDArray[np.int32], _Column]:
    encoded = _one_chunk(column).dictionary_encode()
    return to_numbers(encoded.indices), encoded.dictionary


def _one_chunk(column: _Column) -> _Column:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def _number_objects(table: pa.Table) -> tuple[npt.NDArray[np.int32], pa.Table]:
    """Give distinct objects numbers in the order of store, key and version, whatever the paths are."""
    separator = text("\0")
    identity = pc.binary_join_element_wise(table["store"], table["key"], table["version"], separator)
    codes, names = _encode(identity)
    first_row = np.unique(codes, return_index=True)[1]
    order = to_numbers(pc.sort_indices(names))
    number = np.empty(len(names), dtype=np.int32)
    number[order] = np.arange(len(names), dtype=np.int32)
    return number[codes], table.select(OBJECT_COLUMNS).take(to_arrow(first_row[order]))


def _number_fields(column: _Column) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    codes, names = _encode(column)
    fields: list[str] = names.to_pylist()
    order = sorted(range(len(fields)), key=fields.__getitem__)
    number = np.empty(len(fields), dtype=np.int32)
    number[order] = np.arange(len(fields), dtype=np.int32)
    return number[codes], tuple(fields[i] for i in order)


def _places(table: pa.Table, member_object: _Array) -> _Array:
    """Rank the members by (object, offset, path)."""
    by_place = np.lexsort((to_numbers(table["offset"]), member_object))
    place = np.empty(len(by_place), dtype=np.int64)
    place[by_place] = np.arange(len(by_place))
    return place


def _storage_order(by_sample: _Array, key_code: _Array, *, place: _Array) -> tuple[_Array, _Array, _Array]:
    """Return (starts, member rows in order, key codes in order) with the samples sorted by their first place."""
    if not len(by_sample):
        return np.zeros(1, dtype=np.int64), by_sample, by_sample
    begins = np.flatnonzero(np.diff(key_code[by_sample], prepend=-1))
    counts = np.diff(begins, append=len(by_sample))
    samples = np.argsort(np.minimum.reduceat(place[by_sample], begins))
    starts = np.concatenate([[0], np.cumsum(counts[samples])]).astype(np.int64)
    rows = np.repeat(begins[samples] - starts[:-1], counts[samples]) + np.arange(len(by_sample))
    return starts, by_sample[rows], samples


def _check_unique(table: pa.Table, by_sample: _Array, *, key_code: _Array, field_code: _Array, rule: KeyRule) -> None:
    same = (np.diff(key_code[by_sample]) == 0) & (np.diff(field_code[by_sample]) == 0)
    doubles = np.flatnonzero(same)
    if not doubles.size:
        return
    first, second = (table.slice(int(by_sample[doubles[0] + i]), 1).to_pylist()[0] for i in (0, 1))
    raise DuplicateFieldError(
        f"{first['path']} and {second['path']} are both field {first['field']!r} of sample {first['sample']!r} under"
        f" key rule {describe_key_rule(rule)!r} ({doubles.size} such pairs); use key rule 'path', or limit"
        " the prefix or `where`",
        key=first["sample"],
        field=first["field"],
        paths=(first["path"], second["path"]),
    )
