"""One shard as a task, and what became of it: plain data, which goes to any process of any machine.

No task holds an open store or a secret: a worker opens the repository itself, see `Workplace`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from loaders.errors import PackWorkerError
from loaders.packing.reports import Skipped
from versioning import ENTRY_SCHEMA, StoredObject

FORMAT = 1
"""Grows when tasks, results or the bytes of shards change: workers and journals of another one are refused."""

LOCATION = ("size", "oid", "crc32c", "store", "key", "version", "offset", "object_size")
"""What a task says of a file as the commit does."""
_LOCATION_FIELDS: list[Any] = [ENTRY_SCHEMA.field(name) for name in LOCATION]
TASK_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # in the tar
        pa.field("sample", pa.int32(), nullable=False),  # number in the shard; rows of one sample are neighbours
        pa.field("field", pa.string()),  # null: the file is no member of a sample
        pa.field("sample_key", pa.string(), nullable=False),
        *_LOCATION_FIELDS,
    ]
)
MEMBER_SCHEMA: pa.Schema = pa.schema(
    (
        pa.field("row", pa.int32(), nullable=False),  # of the task: whose modification time and labels it has
        pa.field("path", pa.string()),  # null: that of the row
        pa.field("size", pa.int64(), nullable=False),
        pa.field("oid", pa.binary(32), nullable=False),
        pa.field("crc32c", pa.uint32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("is_same", pa.bool_(), nullable=False),  # bytes as those of the row
    )
)
_ABOUT = b"forebay.shard"


@dataclass(frozen=True, slots=True)
class Workplace:
    """How a worker opens the repository and the sources.

    Attributes:
        opener: `module:function`, which is called with the arguments and returns an `OpenedWorkplace`.
        arguments: Plain JSON without secrets: the function takes those from the worker's own surroundings.
    """

    opener: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Equal for equal ones."""
        return json.dumps([self.opener, self.arguments], sort_keys=True)


@dataclass(frozen=True, slots=True)
class TransformRef:
    """A user's function by name.

    Attributes:
        name: `module:function`.
        code: Hash of the file it lies in, which a worker compares with its own.
        version: The user's own words for the version.
    """

    name: str
    code: str
    version: str = ""


@dataclass(frozen=True)
class ShardTask:
    """One shard that is to be written.

    Attributes:
        number: Of the plan, from 0.
        rows: Table of `TASK_SCHEMA`, in the order of the tar.
        workplace: Where the worker finds everything.
        transform: What the samples go through.
        verify: Read back and hash what was written.
        skip_errors: Most inputs that may be left out.
        format: `FORMAT` of whoever made the task.
    """

    number: int
    rows: pa.Table
    workplace: Workplace
    transform: TransformRef | None = None
    verify: bool = False
    skip_errors: int = 0
    format: int = FORMAT

    def __reduce__(self) -> tuple[object, ...]:  # a slice of a table would be pickled with all of the table
        rest = (self.workplace, self.transform, self.verify, self.skip_errors, self.format)
        return _load_task, (self.number, write_table(self.rows), *rest)


def _load_task(number: int, rows: bytes, *rest: Any) -> ShardTask:
    return ShardTask(number, read_table(rows), *rest)


@dataclass(frozen=True)
class ShardResult:
    """One shard that is stored.

    Attributes:
        number: Of the task.
        pack: The object; None if nothing was left to write.
        members: Table of `MEMBER_SCHEMA`, in the order of the tar.
        samples: How many are in it.
        dropped: How many the transform dropped.
        skipped: Inputs that were left out.
    """

    number: int
    pack: StoredObject | None
    members: pa.Table
    samples: int
    dropped: int = 0
    skipped: tuple[Skipped, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        return ShardResult.from_bytes, (self.to_bytes(),)

    def to_bytes(self) -> bytes:
        """Encode it, for a journal or another process."""
        about: dict[str, Any] = {
            "number": self.number,
            "pack": None if self.pack is None else [self.pack.key, self.pack.oid.hex(), self.pack.size],
            "samples": self.samples,
            "dropped": self.dropped,
            "skipped": [asdict(each) for each in self.skipped],
        }
        return write_table(self.members.replace_schema_metadata({_ABOUT: json.dumps(about)}))

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardResult:
        """Decode what `to_bytes` made."""
        members = read_table(data)
        about = json.loads((members.schema.metadata or {})[_ABOUT])
        pack = about["pack"]
        return cls(
            number=about["number"],
            pack=None if pack is None else StoredObject(pack[0], bytes.fromhex(pack[1]), pack[2]),
            members=members.replace_schema_metadata(None),
            samples=about["samples"],
            dropped=about["dropped"],
            skipped=tuple(Skipped(**each) for each in about["skipped"]),
        )


def write_table(table: pa.Table) -> bytes:
    """Encode a table, and of a slice no more than the slice."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def read_table(data: bytes) -> pa.Table:
    """Decode what `write_table` made."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def check_format(task: ShardTask) -> None:
    """Refuse a task of another release.

    Raises:
        PackWorkerError: If this worker would make other bytes of it.
    """
    if task.format != FORMAT:
        raise PackWorkerError(
            f"the task for shard {task.number} has format {task.format}, this worker makes format {FORMAT};"
            " install the same release of forebay on all machines"
        )
