"""What is checked out in a working copy: one row per file, with what its stat was when its bytes were known."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from versioning.columns import (
    as_filter,
    as_positions,
    compute,
    concat,
    is_in,
    positions_in,
    single,
    single_chunks,
    take,
    where,
)
from versioning.commits import CommitId, check_commit_id
from versioning.errors import WorkingCopyIndexError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from versioning.columns import Column, Mask

UNSETTLED = -1
"""As `ctime_ns`: the bytes may have been written again in the tick in which they were looked at; hash them again."""

INDEX_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("directory", pa.string(), nullable=False),  # "" or ending in "/"
        pa.field("name", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("ctime_ns", pa.int64(), nullable=False),
        pa.field("inode", pa.int64(), nullable=False),
        pa.field("oid", pa.binary(32), nullable=False),
    )
)
"""Sorted by directory, then name: in the order in which a walk meets them."""

_HEAD = b"forebay.worktree.head"
_FORMAT = b"forebay.worktree.format"
_ipc: Any = pyarrow.ipc


@dataclass(frozen=True)
class Head:
    """What a working copy shows.

    Attributes:
        branch: The branch that a commit goes to; None: a commit is checked out by itself.
        commit: The commit that is checked out; None before the first.
        sparse: Patterns of the paths that are checked out; none: all are.
    """

    branch: str | None = "main"
    commit: CommitId | None = None
    sparse: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Index:
    """The files of a working copy as they were when it last looked: those of a commit, and what was staged since.

    Attributes:
        head: What is checked out.
        rows: Table of `INDEX_SCHEMA`.
    """

    head: Head = field(default_factory=Head)
    rows: pa.Table = field(default_factory=INDEX_SCHEMA.empty_table)

    def __len__(self) -> int:
        return self.rows.num_rows

    @cached_property
    def paths(self) -> Any:
        """Full path of each row."""
        return single(compute.binary_join_element_wise(self.rows.column("directory"), self.rows.column("name"), ""))

    @cached_property
    def directories(self) -> dict[str, tuple[int, int]]:
        """First and end row of each directory that holds files itself."""
        found = self.rows.column("directory")
        if not len(self):
            return {}
        array = single(found)
        changes = as_starts(array)
        ends = [*changes[1:].tolist(), len(self)]
        names = array.take(as_positions(changes)).to_pylist()
        return {name: (start, end) for name, start, end in zip(names, changes.tolist(), ends, strict=True)}

    @cached_property
    def children(self) -> dict[str, set[str]]:
        """Names of the directories below each directory; all of them hold files somewhere."""
        found: dict[str, set[str]] = {"": set()}
        for directory in self.directories:
            below = directory
            while below:
                above, _, name = below[:-1].rpartition("/")
                above = f"{above}/" if above else ""
                known = found.setdefault(above, set())
                if name in known:
                    break
                known.add(name)
                below = above
        return found

    def positions(self, paths: Column) -> NDArray[np.int64]:
        """Return for each path the position of its row, or -1."""
        if not len(paths):
            return np.zeros(0, np.int64)
        at = positions_in(self.paths, paths)  # one look-up per row, but the hash table is that of the few
        rows = np.flatnonzero(at >= 0)
        found = np.full(len(paths), -1, np.int64)
        found[at[rows]] = rows
        return found

    def at(self, path: str) -> Mask:
        """Say for each row whether it is this file or lies below this directory; "" is all."""
        if not path:
            return np.ones(len(self), np.bool_)
        below = compute.starts_with(self.rows.column("directory"), f"{path}/")
        same: Mask = np.asarray(compute.or_(compute.equal(self.paths, path), below))
        return same

    def edited(self, upserts: pa.Table | None = None, deleted: Column | None = None, head: Head | None = None) -> Index:
        """Return the index with rows replaced, added or deleted.

        Args:
            upserts: Table of `INDEX_SCHEMA`, each path once, in any order.
            deleted: Paths; may name rows of `upserts`, which stay.
            head: A new head.
        """
        rows, new = self.rows, upserts if upserts is not None else INDEX_SCHEMA.empty_table()
        at = self.positions(Index(rows=new).paths)
        if deleted is not None and len(deleted):
            gone = is_in(self.paths, single(deleted).cast(pa.string()))
            gone[at[at >= 0]] = False
        else:
            gone = np.zeros(len(self), np.bool_)
        rows = where(_replaced(rows, new, at), ~gone)
        if (at < 0).any():
            rows = concat([rows, where(new, at < 0).cast(INDEX_SCHEMA)], INDEX_SCHEMA)
            order = compute.sort_indices(rows, sort_keys=[("directory", "ascending"), ("name", "ascending")])
            rows = take(rows, order)
        return Index(head or self.head, single_chunks(rows))

    def with_head(self, **changes: Any) -> Index:
        """Return the index with another head."""
        return Index(replace(self.head, **changes), self.rows)


def _replaced(rows: pa.Table, new: pa.Table, at: NDArray[np.int64]) -> pa.Table:
    """Return the rows with those at some positions replaced by others of the same paths; -1 replaces none."""
    order = np.argsort(at, kind="stable")[np.count_nonzero(at < 0) :]
    if not len(order):
        return rows
    replaced = np.zeros(rows.num_rows, np.bool_)
    replaced[at[order]] = True
    mask, chosen = as_filter(replaced), single_chunks(take(new, order))
    for position, field_ in enumerate(INDEX_SCHEMA):
        if field_.name not in {"directory", "name"}:
            values = compute.replace_with_mask(single(rows.column(position)), mask, chosen.column(position).chunk(0))
            rows = rows.set_column(position, field_, values)
    return rows


def listed(values: Any) -> list[Any]:
    """Return a column without nulls as a list."""
    found: list[Any] = values.to_pylist()
    return found


def as_starts(values: Any) -> NDArray[np.int64]:
    """Return where runs of equal values begin in an array that has no null."""
    if not len(values):
        return np.zeros(0, np.int64)
    changes = compute.not_equal(values.slice(1), values.slice(0, len(values) - 1))
    return np.concatenate([[0], np.flatnonzero(np.asarray(changes)) + 1])


def index_rows(
    paths: Sequence[str], stats: Iterable[os.stat_result], oids: Sequence[bytes], settled: Iterable[bool]
) -> pa.Table:
    """Make rows of an index."""
    split = [path.rpartition("/") for path in paths]
    found = list(stats)
    columns: dict[str, Any] = {
        "directory": [above + slash for above, slash, _ in split],
        "name": [name for _, _, name in split],
        "size": [stat.st_size for stat in found],
        "mtime_ns": [stat.st_mtime_ns for stat in found],
        "ctime_ns": [stat.st_ctime_ns if ok else UNSETTLED for stat, ok in zip(found, settled, strict=True)],
        "inode": [_signed(stat.st_ino) for stat in found],
        "oid": list(oids),
    }
    return pa.table(columns, schema=INDEX_SCHEMA)


def rows_of_files(entries: pa.Table, stats: pa.Table, *, before: int) -> pa.Table:
    """Make rows of an index for files that were read.

    Args:
        entries: Table of `ENTRY_SCHEMA`.
        stats: Table of `versioning.adding.STAT_SCHEMA`, row by row of the same files.
        before: A file whose times do not lie before this one may be written again without a trace.
    """
    split = compute.extract_regex(entries.column("path"), pattern=r"^(?P<directory>(?s:.*/)?)(?P<name>[^/]*)$")
    mtime_ns, ctime_ns = (stats.column(name) for name in ("mtime_ns", "ctime_ns"))
    settled = compute.less(compute.max_element_wise(mtime_ns, ctime_ns), before)
    columns: dict[str, Any] = {
        "directory": compute.struct_field(split, 0),
        "name": compute.struct_field(split, 1),
        "size": stats.column("size"),
        "mtime_ns": mtime_ns,
        "ctime_ns": compute.if_else(settled, ctime_ns, UNSETTLED),
        "inode": single(stats.column("inode")).view(pa.int64()),
        "oid": entries.column("oid"),
    }
    return pa.table(columns, schema=INDEX_SCHEMA)


def _signed(inode: int) -> int:
    return inode - (1 << 64) if inode >> 63 else inode


def read_index(path: Path) -> Index:
    """Read an index; none at all is an empty one.

    Raises:
        WorkingCopyIndexError: If the file is damaged.
    """
    try:
        with pa.memory_map(str(path)) as mapped:
            table = _ipc.open_file(mapped).read_all()
        metadata = table.schema.metadata or {}
        if metadata.get(_FORMAT) != b"1":
            raise WorkingCopyIndexError(str(path), reason="another version of ds wrote it")
        content = json.loads(metadata[_HEAD])
        commit = check_commit_id(content["commit"]) if content["commit"] else None
        head = Head(content["branch"], commit, tuple(content["sparse"]))
        return Index(head, single_chunks(table.replace_schema_metadata(None).cast(INDEX_SCHEMA)))
    except FileNotFoundError:
        return Index()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, WorkingCopyIndexError):
            raise
        raise WorkingCopyIndexError(str(path), reason=f"it is damaged ({error})") from error


def write_index(path: Path, index: Index) -> None:
    """Replace an index file as a whole, durably.

    Raises:
        OSError: If it cannot be written; the old one stays.
    """
    head = index.head
    content = json.dumps({"branch": head.branch, "commit": head.commit, "sparse": list(head.sparse)})
    table = index.rows.replace_schema_metadata({_FORMAT: b"1", _HEAD: content.encode()})
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, _ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        _sync(temporary)  # a rename may survive a power cut that the bytes do not
        os.rename(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
