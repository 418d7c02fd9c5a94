"""Where a migration copies from: the files of a version, or the objects below a URI."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import google_crc32c

from cache_runtime import Client
from dataset_controller.secrets import with_secret
from ds.dataset import Dataset
from ds.errors import OperationError
from ds.operations.commits import input_uri
from sources import Location, ObjectRef, Origins, open_store, split_uri
from versioning import locations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dataset_controller.operations import Place
    from ds.settings import Settings
    from sources import Store

_PIECE_BYTES = 8 << 20


class Item(NamedTuple):
    """One file that is copied.

    Attributes:
        path: Relative to the place.
        where: Its bytes.
        version: Of the object at its source, "" of a file of a dataset.
        oid: Hash of the content, if it is known.
        crc32c: Checksum of the content, if it is known.
        mtime_ns: When a source object was written.
    """

    path: str
    where: Location
    version: str = ""
    oid: bytes | None = None
    crc32c: int | None = None
    mtime_ns: int | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.where.length


class Origin(Protocol):
    """Where data comes from."""

    @property
    def inputs(self) -> list[str]:
        """What lineage says of it."""
        ...

    @property
    def commit(self) -> str | None:
        """The version, of a dataset."""
        ...

    @property
    def client(self) -> Client:
        """Reads it, through no cache."""
        ...

    def items(self) -> Iterator[Item]:
        """Yield what is there; may be asked again."""
        ...


def origin_of(place: Place, settings: Settings) -> Origin:
    """Open the place that data comes from.

    Raises:
        DatasetNotFoundError, RevisionNotFoundError: If there is no such version.
        SourceConfigError: If its options or its secret are wrong.
    """
    return _VersionOrigin(place, settings) if place.dataset is not None else _StoreOrigin(place, settings)


def open_place(place: Place, settings: Settings) -> tuple[Store, str]:
    """Open the store of a URI, and return it with the prefix of the place. Raises as `open_store`."""
    assert place.uri is not None
    store = open_store(place.uri, with_secret(place.options, place.secret_ref, settings.secrets))
    key = split_uri(place.uri).key.strip("/")
    return store, f"{key}/" if key else ""


class _VersionOrigin:
    """Files of a version."""

    def __init__(self, place: Place, settings: Settings) -> None:
        assert place.dataset is not None
        self._dataset = Dataset(place.dataset.name, settings=settings)
        self._commit = self._dataset.resolve(place.revision or "main")
        self.commit: str | None = self._commit
        self._top = place.path
        self.inputs = [input_uri(self._dataset, self._commit)]
        self.client = Client(self._dataset.opened.origins, None)

    def items(self) -> Iterator[Item]:
        """Yield the files of the version."""
        repository = self._dataset.repository
        for table in repository.tree_of(self._commit).scan_at(self._top.rstrip("/"), columns=None):
            where = locations(table, repository.root)
            columns = zip(*(table.column(name).to_pylist() for name in ("path", "oid", "crc32c")), strict=True)
            for (path, oid, crc32c), location in zip(columns, where, strict=True):
                relative = path[len(self._top) :] if path.startswith(self._top) else path.rpartition("/")[2]
                yield Item(relative, location, oid=oid, crc32c=crc32c)


class _StoreOrigin:
    """Objects below a URI."""

    def __init__(self, place: Place, settings: Settings) -> None:
        self._store, self._prefix = open_place(place, settings)
        self.commit: str | None = None
        self.inputs: list[str] = []
        origins = Origins()
        origins.add(self._prefix, self._store)
        self.client = Client(origins, None)

    def items(self) -> Iterator[Item]:
        """Yield the objects, as they are now."""
        for found in self._store.list(self._prefix):
            path = found.key.removeprefix(self._prefix)
            if path and not path.endswith("/"):  # a mark of an empty directory holds nothing
                ref = ObjectRef(self._store.id, found.key, found.version, found.size)
                yield Item(path, Location(ref, 0, found.size), version=found.version, mtime_ns=found.mtime_ns)


def copied(item: Item, client: Client, write: Callable[[memoryview], object]) -> int:
    """Read a file piece by piece, and return its CRC-32C, which is the one that is known of it.

    Raises:
        OperationError: If its bytes are others.
        SourceError: If its store fails.
    """
    checksum = 0
    for offset in range(0, item.size, _PIECE_BYTES):
        length = min(_PIECE_BYTES, item.size - offset)
        data = client.read(Location(item.where.object, item.where.offset + offset, length))
        checksum = google_crc32c.extend(checksum, bytes(data))
        write(data)
    if item.crc32c is not None and checksum != item.crc32c:
        raise OperationError(f"{item.path}: its bytes are not those that were committed; see ds fsck")
    return checksum
