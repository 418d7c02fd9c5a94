"""Servers in this process: a key space in byte order, one in directory order, one in none, and a tree."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sources import ObjectStat, SourceNotFoundError, StoreId, Version
from sources.stores import LISTING_SCHEMA, DirectoryPage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


FLAT, TREE, PLAIN = StoreId("sim://flat"), StoreId("sim://tree"), StoreId("sim://plain")


def batch_of(keys: Iterable[str]) -> pa.RecordBatch:
    keys = list(keys)
    columns: list[Any] = [keys, [len(key) for key in keys], [f"etag:{key}" for key in keys], [None] * len(keys)]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, item.type) for column, item in zip(columns, LISTING_SCHEMA, strict=True)],
        schema=LISTING_SCHEMA,
    )


def by_directory(key: str) -> str:
    """Sort key of a server that lists directory by directory: "/" comes before everything else."""
    return key.replace("/", "\0")


@dataclass
class FlatServer:
    """Pages of a key space; counts its requests, and may fail some."""

    keys: list[str]
    page: int = 1000
    order: Callable[[str], str] = str
    skips_directories: bool = False
    fail: Callable[[int], bool] = lambda _number: False
    delay: Callable[[], None] = lambda: None
    id: StoreId = FLAT
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.keys = sorted(self.keys, key=self.order)

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        left = [key for key in self.keys if self._is_behind(key, after) and key.startswith(prefix)]
        for start in range(0, max(1, len(left)), self.page):
            with self._lock:
                self.requests += 1
                number = self.requests
            self.delay()
            if self.fail(number):
                raise ConnectionError("injected")
            if left:
                yield batch_of(left[start : start + self.page])

    def _is_behind(self, key: str, after: str) -> bool:
        if not after:
            return True
        if self.skips_directories and key.startswith(after.rstrip("/") + "/"):
            return False  # SeaweedFS: start-after=in/b skips in/b/ as well
        return self.order(key) > self.order(after)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        raise NotImplementedError

    def stat(self, key: str) -> ObjectStat:
        raise NotImplementedError


def directory_server(keys: Iterable[str], page: int) -> FlatServer:
    """What SeaweedFS does. No key is the directory of another there."""
    found = set(keys)
    parents = {key[:at] for key in found for at, character in enumerate(key) if character == "/"}
    return FlatServer(sorted(found - parents), page, by_directory, skips_directories=True)


@dataclass
class TreeServer:
    """Directories of a file system."""

    keys: list[str]
    vanished: frozenset[str] = frozenset()
    id: StoreId = TREE
    requests: int = 0

    def scan_directory(self, directory: str) -> DirectoryPage:
        self.requests += 1
        inside = [key for key in self.keys if key.startswith(directory)]
        if directory in self.vanished or (not inside and directory):
            raise SourceNotFoundError(f"{self.id}/{directory}", "directory")
        names = [key[len(directory) :] for key in inside]
        files = sorted(directory + name for name in names if "/" not in name)
        directories = sorted({directory + name[: name.index("/") + 1] for name in names if "/" in name})
        return DirectoryPage(batch_of(files), directories)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        raise NotImplementedError

    def stat(self, key: str) -> ObjectStat:
        raise NotImplementedError


@dataclass
class PlainServer:
    """A store that can only list from the beginning."""

    keys: list[str]
    id: StoreId = PLAIN

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        for key in self.keys:
            if key.startswith(prefix):
                yield ObjectStat(key, len(key), Version(f"etag:{key}"), None)

    def stat(self, key: str) -> ObjectStat:
        raise NotImplementedError
