"""Filling a shard with a tar: of files as they are, or of samples that a function made."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from loaders.errors import TransformError
from loaders.packing.inputs import CHUNK_BYTES, UNREADABLE, Sums
from loaders.packing.reports import Skipped
from loaders.packing.sinks import WINDOW_BYTES
from loaders.packing.tasks import MEMBER_SCHEMA
from loaders.packing.transforms import Member, place_members, run_transform
from loaders.sharding import cuts
from versioning.packs import sums_of
from versioning.tarlayout import TarLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from loaders.packing.inputs import Inputs
    from loaders.packing.sinks import ShardSink
    from loaders.packing.tasks import ShardTask
    from versioning import StoredObject

    OpenSink = Callable[[int], ShardSink]


class Filled(NamedTuple):
    """A tar that is not published.

    Attributes:
        sink: Has its bytes.
        pack: What it is called.
        members: Table of `tasks.MEMBER_SCHEMA`.
        samples: How many are in it.
        dropped: How many the transform dropped.
        skipped: Inputs that were left out.
    """

    sink: ShardSink
    pack: StoredObject
    members: pa.Table
    samples: int
    dropped: int
    skipped: list[Skipped]


def fill_with_files(task: ShardTask, inputs: Inputs, open_sink: OpenSink) -> Filled:
    """Fill a tar with the files of a task as they are. Errors as in `ShardMaker.make`."""
    kept = np.arange(len(task.rows))
    skipped: list[Skipped] = []
    while True:
        rows = task.rows.take(kept) if skipped else task.rows
        names: list[Any] = rows["name"].to_pylist()
        layout = TarLayout.of(names, rows["size"].to_numpy())
        sink = open_sink(layout.size)
        try:
            sums = _read_all(rows, inputs, layout, sink)
            pack = sink.finish()
            break
        except UNREADABLE as error:
            # all that cannot be read at once, and the tar anew without it: this is rare
            sink.close()
            wrong = inputs.unreadable(rows)
            if not wrong or len(skipped) + len(wrong) > task.skip_errors:
                raise
            del error
        skipped += [Skipped(rows["path"][row].as_py(), str(reason)) for row, reason in wrong]
        kept = np.delete(kept, [row for row, _ in wrong])
    samples = len(np.unique(rows["sample"].to_numpy()))
    return Filled(sink, pack, _members(kept, layout, sums), samples, 0, skipped)


def _read_all(rows: pa.Table, inputs: Inputs, layout: TarLayout, sink: ShardSink) -> Sums:
    found = Sums([], [])
    for first, last in _windows(layout):
        part = layout.part(first, last)
        memory = sink.window(part.size)
        part.write_frame(memory)
        inputs.read_into(rows.slice(first, last - first), memory, part.offsets.tolist(), found)
        sink.advance()
    return found


def _windows(layout: TarLayout) -> list[tuple[int, int]]:
    """Cut members into ranges of about `WINDOW_BYTES`; a tar without any has its end."""
    ends = np.cumsum(layout.sizes + 1024)
    return list(cuts(ends, 0, len(ends), WINDOW_BYTES)) or [(0, 0)]


def fill_with_samples(
    task: ShardTask, inputs: Inputs, open_sink: OpenSink, function: Callable[[dict[str, Any]], Any]
) -> Filled:
    """Fill a tar with what a function makes of the samples of a task. Errors as in `ShardMaker.make`."""
    made = _Samples(task, inputs, function)
    starts = np.append(np.flatnonzero(np.diff(task.rows["sample"].to_numpy(), prepend=-1)), len(task.rows))
    ends = np.cumsum(task.rows["size"].to_numpy())[starts[1:] - 1]
    for first, last in cuts(ends, 0, len(ends), CHUNK_BYTES):
        made.add([(int(starts[number]), int(starts[number + 1])) for number in range(first, last)])
    layout = TarLayout.of(made.names, np.array([len(data) for data in made.data], np.int64))
    sink = open_sink(layout.size)
    for first, last in _windows(layout):
        part = layout.part(first, last)
        memory = sink.window(part.size)
        part.write_frame(memory)
        for data, offset in zip(made.data[first:last], part.offsets.tolist(), strict=True):
            memory[offset : offset + len(data)] = data
        sink.advance()
    pairs = [sums_of(data) for data in made.data]
    sums = Sums([oid for oid, _ in pairs], [crc for _, crc in pairs])
    members = _members(np.array(made.rows, np.int64), layout, sums, paths=made.paths, is_same=made.is_same)
    return Filled(sink, sink.finish(), members, made.count, made.dropped, made.skipped)


class _Samples:
    """Sends samples through a function and gathers what comes out."""

    def __init__(self, task: ShardTask, inputs: Inputs, function: Callable[[dict[str, Any]], Any]) -> None:
        self.names: list[str] = []
        self.rows: list[int] = []
        self.paths: list[str | None] = []
        self.data: list[bytes] = []
        self.is_same: list[bool] = []
        self.count = 0
        self.dropped = 0
        self.skipped: list[Skipped] = []
        self._task = task
        self._inputs = inputs
        self._function = function

    def add(self, samples: list[tuple[int, int]]) -> None:
        """Take some neighbouring samples, each [first, last) of the task's rows."""
        try:
            data = self._read(samples[0][0], samples[-1][1])
        except UNREADABLE as error:
            if len(samples) == 1:
                self._skip(samples[0][0], error)
                return
            for sample in samples if self._task.skip_errors else ():
                self.add([sample])
            if not self._task.skip_errors:
                raise
            return
        for first, last in samples:
            self._add_one(first, last, data[first - samples[0][0] : last - samples[0][0]])

    def _add_one(self, first: int, last: int, data: list[bytes]) -> None:
        rows = self._task.rows.slice(first, last - first)
        columns: list[list[Any]] = [rows[name].to_pylist() for name in ("path", "field", "name")]
        (paths, fields, names), key = columns, rows["sample_key"][0].as_py()
        if fields[0] is None:  # no member of a sample: it goes past the function
            self._keep(first, names, [Member(0, None, "", data[0])], data)
            return
        try:
            made = run_transform(self._function, key, fields, data)
        except TransformError as error:
            self._skip(first, error)
            return
        if not made:
            self.dropped += 1
            return
        self._keep(first, names, place_members(made, fields, paths, key), data)

    def _keep(self, first: int, names: list[str], members: list[Member], before: list[bytes]) -> None:
        self.count += 1
        for member in members:
            name = names[member.row]
            if member.path is not None:  # beside the sample's first member, whose name is its key and field
                base = name.rpartition("/")[2].partition(".")[0]
                name = f"{name[: len(name) - len(name.rpartition('/')[2])]}{base}.{member.field}"
            self.names.append(name)
            self.rows.append(first + member.row)
            self.paths.append(member.path)
            self.data.append(member.data)
            self.is_same.append(member.path is None and member.data == before[member.row])

    def _read(self, first: int, last: int) -> list[bytes]:
        rows = self._task.rows.slice(first, last - first)
        ends = np.cumsum([0, *rows["size"].to_pylist()]).tolist()
        memory = memoryview(bytearray(ends[-1]))
        self._inputs.read_into(rows, memory, ends[:-1], Sums([], []))
        return [bytes(memory[begin:end]) for begin, end in pairwise(ends)]

    def _skip(self, row: int, error: Exception) -> None:
        if len(self.skipped) >= self._task.skip_errors:
            raise error
        self.skipped.append(Skipped(self._task.rows["path"][row].as_py(), str(error)))


def _members(
    rows: npt.NDArray[np.int64],
    layout: TarLayout,
    sums: Sums,
    *,
    paths: list[str | None] | None = None,
    is_same: list[bool] | None = None,
) -> pa.Table:
    """Describe the members; without paths they have those of their rows, without `is_same` all are as they were."""
    columns: dict[str, Any] = {
        "row": rows,
        "path": pa.nulls(len(rows), pa.string()) if paths is None else paths,
        "size": layout.sizes,
        "oid": pa.Array.from_buffers(pa.binary(32), len(rows), [None, pa.py_buffer(b"".join(sums.oids))]),
        "crc32c": sums.crcs,
        "offset": layout.offsets,
        "is_same": pa.repeat(True, len(rows)) if is_same is None else is_same,
    }
    return pa.table(columns, schema=MEMBER_SCHEMA)
