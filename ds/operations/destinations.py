"""Where a migration copies to: a branch of a dataset, or below a URI. What is there already is not copied again."""

from __future__ import annotations

import mmap
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

import versioning
from cache_runtime import Client
from ds.dataset import Dataset
from ds.errors import OperationError
from ds.operations.commits import changes_of_diff, mark_of, publish
from ds.operations.places import Item, copied, open_place
from sources import Location, ObjectRef, Origins, SourceNotFoundError
from sources.stores import BeginObject
from versioning import ENTRY_SCHEMA, ChangeSet, NothingToCommitError
from versioning.maintenance import leased

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dataset_controller.operations import DataMigrate, Place
    from ds.settings import Settings
    from sources import ObjectStat
    from versioning import CommitId, Tree

_MEMORY_BYTES = 32 << 20


class Destination(Protocol):
    """Where data goes to."""

    def has(self, item: Item) -> bool:
        """Say whether a file is there already, as it is at its source."""
        ...

    def take(self, items: Sequence[Item], client: Client) -> None:
        """Copy files, and look whether they are there then."""
        ...

    def finish(self, inputs: list[str]) -> CommitId | None:
        """Let what was copied be seen, and return the commit if there is one."""
        ...


def destination_of(operation: DataMigrate, settings: Settings) -> Destination:
    """Open the place that data goes to. Raises as `origin_of`."""
    place = operation.spec.target
    return _Branch(operation, place, settings) if place.dataset is not None else _Below(place, settings)


class _Below:
    """Objects below a URI."""

    def __init__(self, place: Place, settings: Settings) -> None:
        self._store, self._prefix = open_place(place, settings)
        origins = Origins()
        origins.add(self._prefix, self._store)
        self._client = Client(origins, None)
        self._known: dict[str, ObjectStat] = {}
        with suppress(SourceNotFoundError):  # a directory that nobody made yet
            self._known = {found.key: found for found in self._store.list(self._prefix)}

    def has(self, item: Item) -> bool:
        """Say whether it is there: by its checksum, else by size and time as `rsync` does."""
        found = self._known.get(self._prefix + item.path)
        if found is None or found.size != item.size:
            return False
        if item.crc32c is not None:
            return self._checksum(found) == item.crc32c
        return item.mtime_ns is not None and found.mtime_ns is not None and found.mtime_ns > item.mtime_ns

    def take(self, items: Sequence[Item], client: Client) -> None:
        """Copy files whole, read each back, and compare."""
        for item in items:
            key = self._prefix + item.path
            checksum = self._put(key, item, client)
            try:
                there = self._store.stat(key)
            except SourceNotFoundError:
                there = None
            if there is None or there.size != item.size or self._checksum(there) != checksum:
                raise OperationError(f"{key} was written, and is not there as it was written; the next run tries again")

    def finish(self, inputs: list[str]) -> CommitId | None:
        """Do nothing: each object is seen since it was written."""
        del inputs
        return None

    def _put(self, key: str, item: Item, client: Client) -> int:
        if item.size <= _MEMORY_BYTES:
            data = bytearray()
            checksum = copied(item, client, data.extend)
            self._store.put(key, bytes(data))
            return checksum
        if isinstance(self._store, BeginObject):
            made = self._store.begin(self._prefix or key.rpartition("/")[0] + "/", uncached=True)
            try:
                checksum = copied(item, client, made.write)
                made.publish(key)
            finally:
                made.close()
            return checksum
        with tempfile.TemporaryFile() as spool:
            checksum = copied(item, client, spool.write)
            spool.flush()
            with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                self._store.put(key, mapped)
        return checksum

    def _checksum(self, there: ObjectStat) -> int:
        ref = ObjectRef(self._store.id, there.key, there.version, there.size)
        return copied(Item("", Location(ref, 0, there.size)), self._client, lambda data: None)


class _Branch:
    """A branch of a dataset: its files become objects of the repository.

    What is copied is committed to a branch of the operation's own, so that a run that is killed loses one batch; the
    target branch moves once, at the end.
    """

    def __init__(self, operation: DataMigrate, place: Place, settings: Settings) -> None:
        assert place.dataset is not None
        self._operation = operation
        self._dataset = Dataset(place.dataset.name, settings=settings)
        self._branch = place.revision or "main"
        self._top = place.path
        self._work = f"forebay-migrate-{operation.metadata.name}"
        repository = self._dataset.repository
        head = repository.head(self._work)
        self._base = repository.head(self._branch) if head is None else self._begun_at(head)
        self._head = head or self._base

    def _begun_at(self, head: CommitId) -> CommitId | None:
        """Return what the work of an earlier run was begun on."""
        found: CommitId | None = head
        while found is not None:
            commit = self._dataset.repository.commit(found)
            if not commit.meta.get("forebay.part"):
                return found
            found = commit.parents[0] if commit.parents else None
        return None

    @property
    def _tree(self) -> Tree | None:
        return None if self._head is None else self._dataset.repository.tree_of(self._head)

    def has(self, item: Item) -> bool:
        """Say whether the branch has it: by its hash, or by the version of the source object that it was."""
        tree = self._tree
        found = tree.get(self._top + item.path) if tree is not None else None
        if found is None or found.size != item.size:
            return False
        if item.oid is not None:
            return found.oid == item.oid
        if item.crc32c is not None:
            return found.crc32c == item.crc32c
        return bool(item.version) and found.source == item.version

    def take(self, items: Sequence[Item], client: Client) -> None:
        """Store files in the repository; they are hashed as they are stored."""
        repository = self._dataset.repository
        with (
            tempfile.TemporaryDirectory(prefix="forebay-migrate-") as spool,
            leased(repository.store, repository.prefix, f"DataMigrate {self._operation.metadata.name}"),
        ):
            files = []
            for number, item in enumerate(items):
                local = Path(spool, str(number))
                with local.open("wb") as file:
                    copied(item, client, file.write)
                files.append((self._top + item.path, str(local)))
            added = versioning.add_files(repository, sorted(files))
            changes = _with_sources(added, {self._top + item.path: item for item in items})
            with suppress(NothingToCommitError):
                self._head = repository.commit_changes(
                    self._work,
                    changes,
                    message=f"Part of DataMigrate {self._operation.metadata.name}",
                    author=self._dataset.author,
                    base=self._head,
                    meta={**mark_of(self._operation), "forebay.part": True},
                )

    def finish(self, inputs: list[str]) -> CommitId | None:
        """Commit all of it to the target branch at once."""
        repository = self._dataset.repository
        if self._head is None or self._head == self._base:
            return self._head
        changes = changes_of_diff(repository.diff(self._base, self._head))
        message = f"DataMigrate {self._operation.metadata.name}: {len(changes.upserts):,} files"
        made = publish(
            self._dataset,
            self._branch,
            changes,
            operation=self._operation,
            base=self._base,
            inputs=inputs,
            message=message,
        )
        repository.delete_branch(self._work, author=self._dataset.author)
        self._head = self._base = made
        return made


def _with_sources(added: ChangeSet, items: dict[str, Item]) -> ChangeSet:
    """Note of each file which version of a source object it was: the next run goes by it."""
    table = added.upserts
    paths = [str(path) for path in table.column("path").to_pylist()]
    columns: dict[str, Any] = {
        "source": pa.array([items[path].version or None for path in paths], pa.string()),
        "mtime_ns": pa.array([items[path].mtime_ns for path in paths], pa.int64()),
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), ENTRY_SCHEMA.field(name), values)
    return ChangeSet.of_table(table)
