"""Changes that wait for a commit, in one local file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

from sources.lazy import LazyModule
from versioning.changes import ChangeSet
from versioning.columns import as_mask, concat, single, where
from versioning.commits import CommitId, check_commit_id
from versioning.entries import ENTRY_SCHEMA
from versioning.errors import InvalidNameError, StageError
from versioning.localfiles import LockedFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BASE = b"forebay.stage.base"
_FORMAT = b"forebay.stage.format"
_DELETED = pa.field("deleted", pa.bool_(), nullable=False)
_parquet: Any = LazyModule("pyarrow.parquet")


@dataclass(frozen=True, eq=False)
class Staged:
    """What a stage held when it was read.

    Attributes:
        changes: The changes.
        base: The commit that they were made against; None: an empty dataset.
        token: Names this very content; see `Stage.clear`.
    """

    changes: ChangeSet
    base: CommitId | None
    token: str


class Stage:
    """Changes that wait for a commit to one branch of one repository. Safe for several processes.

    Args:
        path: The file; its directory is created by the first update. A lock file lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LockedFile(path)

    def read(self) -> Staged:
        """Return what is staged; nothing if there is no file.

        Raises:
            StageError: If the file is damaged.
            StageUnavailableError: If it cannot be read.
        """
        data = self._file.read()
        if data is None:
            return Staged(ChangeSet.of(), None, "")
        return _decode(data, str(self.path))

    def update(self, changes: ChangeSet, *, base: CommitId | None) -> Staged:
        """Add changes to what is staged; where both name a path, the new ones win.

        Args:
            changes: What to add.
            base: The commit that they were made against. While something is staged the first one's base stays, so
                that a commit still sees what others changed since then.

        Raises:
            StageError: If the file is damaged.
            StageUnavailableError: If it cannot be written, or is locked for half a minute.
        """
        with self._file.locked():
            before = self.read()
            return self._write(before.changes.merged_with(changes), before.base if before.changes else base)

    def rewrite(self, change: Callable[[ChangeSet], ChangeSet], *, base: CommitId | None) -> Staged:
        """Replace what is staged by what a function makes of it.

        Args:
            change: Given the staged changes, returns the new ones. Called once, with the stage locked.
            base: The commit that the result is made against.

        Raises:
            StageError: As `update`.
        """
        with self._file.locked():
            return self._write(change(self.read().changes), base)

    def _write(self, changes: ChangeSet, base: CommitId | None) -> Staged:
        if not changes:  # most commands look into the stage, and most find nothing there
            self._file.remove()
            return Staged(changes, None, "")
        data = _encode(changes, base)
        self._file.publish(data)
        return Staged(changes, base, _token(data))

    def clear(self, token: str | None = None) -> bool:
        """Forget what is staged.

        Args:
            token: Of the content that was committed; if somebody staged more since, nothing is forgotten.

        Returns:
            Whether the stage is empty now.
        """
        with self._file.locked():
            if token is not None and self.read().token != token:
                return False
            self._file.remove()
        return True


def _token(data: bytes) -> str:
    return blake3(data).hexdigest()


def _encode(changes: ChangeSet, base: CommitId | None) -> bytes:
    gone = changes.deleted
    blank = {field.name: _blank(field, len(gone)) for field in ENTRY_SCHEMA}
    deleted = pa.table({**blank, "path": gone}, schema=ENTRY_SCHEMA)
    rows = concat([changes.upserts, deleted], ENTRY_SCHEMA)
    flags = np.arange(rows.num_rows) >= changes.upserts.num_rows
    table = rows.append_column(_DELETED, pa.array(flags))
    table = table.replace_schema_metadata({_FORMAT: b"1", _BASE: (base or "").encode()})
    sink = pa.BufferOutputStream()
    _parquet.write_table(table, sink, compression="zstd", use_dictionary=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _blank(field: Any, count: int) -> Any:
    if field.nullable:
        return pa.nulls(count, field.type)
    return pa.array(["" if pa.types.is_string(field.type) else 0] * count, field.type)


def _decode(data: bytes, path: str) -> Staged:
    try:
        table = _parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        metadata = table.schema.metadata or {}
        if metadata.get(_FORMAT) != b"1":
            raise StageError(path, reason="it is no stage of this version")
        gone = as_mask(table.column("deleted"))
        upserts = where(table, ~gone).select(ENTRY_SCHEMA.names).cast(ENTRY_SCHEMA)
        upserts.validate(full=True)
        changes = ChangeSet.of_table(upserts, single(where(table, gone).column("path")).cast(pa.string()))
        base = metadata[_BASE].decode()
        return Staged(changes, check_commit_id(base) if base else None, _token(data))
    except StageError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError, InvalidNameError) as error:
        raise StageError(path, reason=f"it is damaged ({error})") from error
