"""The embedded control plane's memory: what was applied on this machine, in LMDB."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lmdb

from dataset_controller.errors import CatalogError, DatasetInUseError, DatasetNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dataset_controller.model import CacheRuntime, Dataset, Resource

_MAP_BYTES = 1 << 30  # address space, not disk: room for a million datasets
# A process may open an LMDB environment once at a time, and a fork must not copy an open one.
_opening = threading.Lock()
os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release)


@dataclass(frozen=True)
class Record:
    """An applied object.

    Attributes:
        resource: As declared.
        generation: Counts the changes of its spec, from 1.
    """

    resource: Resource
    generation: int


class Catalog:
    """Applied objects by kind and name, and the branch that each dataset is on.

    Any number of processes may use one catalog; each change is one LMDB transaction.
    Nothing stays open between two, so that an object of this class survives a fork.

    Args:
        directory: Created if it is missing, readable by its owner alone: options may hold credentials.

    Raises:
        CatalogError: If the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with self._transaction():
            pass  # what is wrong with the directory is told here

    @property
    def secrets(self) -> Path:
        """Directory of the secrets that objects may name; see `secrets.with_secret`."""
        return self._directory / "secrets"

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Any]:
        """Begin a transaction; on an error nothing of it stays."""
        try:
            with _opening:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                file = str(self._directory / "catalog.lmdb")
                with (
                    lmdb.open(file, map_size=_MAP_BYTES, subdir=False, mode=0o600) as environment,
                    environment.begin(write=write) as transaction,
                ):
                    yield transaction
        except (OSError, lmdb.Error) as error:
            if isinstance(error, CatalogError):
                raise
            raise CatalogError(
                f"cannot use {self._directory} as Forebay's home: {error}; mend that, or set FOREBAY_HOME to another"
            ) from error

    def put(self, resources: list[Resource]) -> None:
        """Record objects, all or none; a changed spec gets the next generation."""
        with self._transaction(write=True) as transaction:
            for resource in resources:
                key = _key(resource.kind, resource.metadata.name)
                before = _decode(transaction.get(key))
                if before is not None and before.resource == resource:
                    continue
                generation = before.generation + 1 if before else 1
                transaction.put(key, _encode(Record(resource, generation)))

    def find(self, kind: str, name: str) -> Record | None:
        """Look an object up."""
        with self._transaction() as transaction:
            return _decode(transaction.get(_key(kind, name)))

    def dataset(self, name: str) -> Dataset:
        """Return a dataset.

        Raises:
            DatasetNotFoundError: If it was never applied here.
        """
        record = self.find("Dataset", name)
        if record is None:
            raise DatasetNotFoundError(name, self.names("Dataset"))
        assert record.resource.kind == "Dataset"
        return record.resource

    def runtime_of(self, dataset: Dataset) -> CacheRuntime | None:
        """Return the cache runtime that a dataset refers to, None if it names none."""
        if dataset.spec.cache is None:
            return None
        record = self.find("CacheRuntime", dataset.spec.cache.runtime_ref.name)
        if record is None:
            return None
        assert record.resource.kind == "CacheRuntime"
        return record.resource

    def names(self, kind: str) -> list[str]:
        """List the names of a kind, sorted."""
        prefix = _key(kind, "")
        names = []
        with self._transaction() as transaction, transaction.cursor() as cursor:
            if cursor.set_range(prefix):
                for key in cursor.iternext(values=False):
                    if not bytes(key).startswith(prefix):
                        break
                    names.append(bytes(key)[len(prefix) :].decode())
        return names

    def delete_dataset(self, name: str) -> None:
        """Forget a dataset; its repository, sources and cached blocks stay as they are.

        Raises:
            DatasetNotFoundError: If it is not there.
            DatasetInUseError: If an operation refers to it.
        """
        for user in self.names("document"):
            document = self.read_document(user) or {}
            if name in document.get("datasets", ()):
                raise DatasetInUseError(f"dataset {name!r} is used by {user}; delete that first: ds delete {user}")
        with self._transaction(write=True) as transaction:
            found = transaction.delete(_key("Dataset", name))
            transaction.delete(_key("document", f"Dataset/{name}"))
            transaction.delete(_key("head", name))
        if not found:
            raise DatasetNotFoundError(name, self.names("Dataset"))

    def delete_runtime(self, name: str) -> None:
        """Forget a cache runtime that no dataset refers to.

        Raises:
            DatasetNotFoundError: If it is not there.
            DatasetInUseError: If a dataset refers to it.
        """
        if self.find("CacheRuntime", name) is None:
            raise DatasetNotFoundError(name, self.names("CacheRuntime"))
        for dataset in map(self.dataset, self.names("Dataset")):
            if dataset.spec.cache and dataset.spec.cache.runtime_ref.name == name:
                raise DatasetInUseError(
                    f"cache runtime {name!r} is used by dataset {dataset.metadata.name!r}; delete that first"
                )
        with self._transaction(write=True) as transaction:
            transaction.delete(_key("CacheRuntime", name))
            transaction.delete(_key("document", f"CacheRuntime/{name}"))

    def read_document(self, key: str) -> dict[str, Any] | None:
        """Return a document of the control plane, None if there is none."""
        with self._transaction() as transaction:
            found = transaction.get(_key("document", key))
        return None if found is None else json.loads(bytes(found))

    def change_document(
        self, key: str, change: Callable[[dict[str, Any] | None], dict[str, Any] | None]
    ) -> dict[str, Any] | None:
        """Replace a document by what a function makes of it, in one transaction; None deletes it."""
        with self._transaction(write=True) as transaction:
            found = transaction.get(_key("document", key))
            made = change(None if found is None else json.loads(bytes(found)))
            if made is None:
                transaction.delete(_key("document", key))
            else:
                transaction.put(_key("document", key), json.dumps(made).encode())
        return made

    def head(self, dataset: str) -> str:
        """Return the branch that a dataset is on; "main" until it was switched."""
        with self._transaction() as transaction:
            found = transaction.get(_key("head", dataset))
        return bytes(found).decode() if found else "main"

    def set_head(self, dataset: str, branch: str) -> None:
        """Switch a dataset to a branch."""
        with self._transaction(write=True) as transaction:
            transaction.put(_key("head", dataset), branch.encode())


def _key(kind: str, name: str) -> bytes:
    return f"{kind}/{name}".encode()


def _encode(record: Record) -> bytes:
    resource = record.resource.model_dump(mode="json", by_alias=True)
    return json.dumps({"resource": resource, "generation": record.generation}).encode()


def _decode(value: bytes | None) -> Record | None:
    if value is None:
        return None
    from dataset_controller.model import KINDS  # it takes a while, and most commands ask for names alone

    try:
        data: dict[str, Any] = json.loads(bytes(value))
        return Record(KINDS[data["resource"]["kind"]].model_validate(data["resource"]), data["generation"])
    except (ValueError, KeyError) as error:
        raise CatalogError(
            "an object was applied by another version of forebay; delete it and apply it again"
        ) from error
