"""Changes of a branch that become one commit, or nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from versioning.adding import BLOB_BYTES, add_files
from versioning.changes import ChangeSet
from versioning.columns import is_in, where
from versioning.entries import Entry
from versioning.errors import InvalidNameError, NothingToCommitError, PathNotFoundError, TransactionOverError
from versioning.names import check_path, check_ref_name
from versioning.packs import PackedMember
from versioning.packwriter import PackWriter

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from versioning.commits import CommitId
    from versioning.repository import Repository


class Transaction:
    """Changes that become one commit when its `with` block ends well; after an error there nothing is committed.

    Bytes wait in a temporary file and go into packs; what was uploaded before an error is left to garbage collection.
    If others changed the same paths of the branch since it was begun, the commit is refused. For files larger than
    memory, and for writes that must outlive this process, see `ds.transaction`. Not thread-safe.

    Args:
        repository: Where.
        branch: The branch; one that does not exist is created.
        message: Of the commit.
        author: Of the commit, "Ada <ada@example.org>".
        meta: Free JSON about the version.

    Attributes:
        base: The commit that it was begun on; None: an empty dataset.
        committed: The commit that it became; None before, and if nothing changed.
    """

    def __init__(
        self,
        repository: Repository,
        branch: str,
        *,
        message: str,
        author: str,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        check_ref_name(branch, what="branch")
        self.base = repository.head(branch)
        self.committed: CommitId | None = None
        self._repository = repository
        self._branch = branch
        self._message, self._author, self._meta = message, author, meta
        self._tree = repository.tree_of(self.base) if self.base else None
        self._pending: dict[str, Entry | PackedMember | Path | None] = {}  # None: deleted
        self._extra: dict[str, str | None] = {}
        self._packs = PackWriter(repository)
        self._is_over = False

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_over:
            return
        if error is None:
            self.commit()
        else:
            self.discard()

    def add(
        self, path: str, content: bytes | str | os.PathLike[str] | Entry, *, meta: Mapping[str, Any] | None = None
    ) -> None:
        """Put a file in place.

        Args:
            path: In the dataset, without a first slash.
            content: Its bytes; or the path of a local file, which is read when the transaction commits; or an entry,
                whose bytes are in the repository or a source already.
            meta: JSON about this file; of an entry, its own stays by default.

        Raises:
            InvalidNameError: For what cannot be a path, or meta that is no JSON.
            TransactionOverError: If it was committed or discarded.
        """
        self._check_usable()
        check_path(path)
        self._extra[path] = _json(meta) if meta is not None else None
        if isinstance(content, Entry):
            self._pending[path] = replace(content, path=path, meta=self._extra[path] or content.meta)
        elif isinstance(content, bytes):
            self._pending[path] = self._packs.add(path, content)
        else:
            self._pending[path] = Path(content)

    def remove(self, path: str) -> None:
        """Delete a file, or all files below a directory.

        Raises:
            PathNotFoundError: If there is neither.
        """
        for found in self._at(path):
            self._pending[found] = None

    def move(self, old: str, new: str) -> None:
        """Move a file or a directory; no byte is copied.

        Raises:
            PathNotFoundError: If there is no `old`.
            InvalidNameError: For what cannot be a path.
        """
        found = list(self._at(old))
        check_path(new)
        if new.startswith(f"{old}/"):
            raise InvalidNameError(new, what="new path", reason=f"it lies below {old} itself")
        moved: dict[str, Entry | PackedMember | Path | None] = {}
        for path in found:
            content = self._content(path)
            target = f"{new}{path[len(old.rstrip('/')) :]}"
            moved[target] = replace(content, path=target) if isinstance(content, Entry) else content
            self._extra[target] = self._extra.pop(path, None)
            self._pending[path] = None
        self._pending.update(moved)

    def commit(self) -> CommitId | None:
        """Commit; return the commit, None if nothing changed. Leaving the `with` block does it too.

        Raises:
            UnreadableFileError: If a local file cannot be read; nothing was committed.
            ConflictError: If others changed the same paths since it was begun.
            LostRaceError: If others kept being first.
        """
        self._check_usable()
        self._is_over = True
        try:
            changes = self._changes()
        finally:
            self._packs.close()
        if not changes:
            return None
        try:
            self.committed = self._repository.commit_changes(
                self._branch, changes, message=self._message, author=self._author, base=self.base, meta=self._meta
            )
        except NothingToCommitError:
            return None
        return self.committed

    def discard(self) -> None:
        """Throw everything away."""
        self._is_over = True
        self._packs.close()

    def _changes(self) -> ChangeSet:
        packs = self._packs.finish()
        ready: list[Entry] = []
        files: list[tuple[str, Path]] = []
        for path, content in self._pending.items():
            if isinstance(content, Entry):
                ready.append(content)
            elif isinstance(content, PackedMember):
                ready.append(packs.entry(path, content, meta=self._extra.get(path)))
            elif content is not None:
                files.append((path, content))
        gone = [path for path, content in self._pending.items() if content is None]
        added = add_files(self._repository, sorted(files), blob_size=BLOB_BYTES) if files else ChangeSet.of()
        return self._without_moves(ChangeSet.of(ready, gone).merged_with(self._with_meta(added)))

    def _without_moves(self, changes: ChangeSet) -> ChangeSet:
        """Leave out bytes that the branch has already, only elsewhere; entries are put where they say."""
        again = self._repository.diff_changes(self.base, changes).only("L").table.column("path").to_pylist()
        same = [path for path in again if not isinstance(self._pending.get(str(path)), Entry)]
        if not same:
            return changes
        kept = ~is_in(changes.upserts.column("path"), pa.array(same, pa.string()))
        return ChangeSet(where(changes.upserts, kept), changes.deleted)

    def _with_meta(self, added: ChangeSet) -> ChangeSet:
        from_files = [path for path, content in self._pending.items() if isinstance(content, Path)]
        if not any(self._extra.get(path) for path in from_files):
            return added
        rows = added.upserts.to_pylist()
        column = [self._extra.get(row["path"]) for row in rows]
        at = added.upserts.schema.get_field_index("meta")
        return ChangeSet.of_table(added.upserts.set_column(at, added.upserts.schema.field(at), [column]))

    def _at(self, path: str) -> Iterator[str]:
        """Yield the files that a path names, as the transaction sees them: itself, or those below it."""
        self._check_usable()
        check_path(path.rstrip("/"))
        top = path.rstrip("/")
        names = {found for found, content in self._pending.items() if content is not None and _is_at(found, top)}
        if self._tree is not None:
            if self._tree.get(top) is not None:
                names.add(top)
            for table in self._tree.scan(f"{top}/", columns=["path"]):
                names.update(map(str, table.column("path").to_pylist()))
        names -= {found for found, content in self._pending.items() if content is None}
        if not names:
            raise PathNotFoundError(path, where=f"{self._branch} and this transaction")
        yield from sorted(names)

    def _content(self, path: str) -> Entry | PackedMember | Path | None:
        if path in self._pending:
            return self._pending[path]
        return self._tree.get(path) if self._tree is not None else None

    def _check_usable(self) -> None:
        if self._is_over:
            raise TransactionOverError(self._branch)


def _is_at(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _json(meta: Mapping[str, Any]) -> str:
    try:
        return json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidNameError(str(meta), what="file's meta", reason=str(error)) from error
