"""Objects on disk behind a store that logs each read, also those of other processes."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from cache_runtime.store.blockfiles import file_path
from cache_runtime.store.index import open_index
from cache_runtime.store.layout import FILE
from cache_runtime.store.shares import Grade
from cache_runtime.store.sidecars import sidecar_path
from cache_runtime.store.slabs import slab_path
from sources import FileStore, Location, ObjectRef, Origins, SourceUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_runtime.store.layout import Unit
    from sources import StoreId, Version

MIB = 1 << 20


class LoggingStore:
    """A FileStore that appends a line to a log for each read; keys in `broken` cannot be read. Pickles."""

    def __init__(self, root: Path, log: Path) -> None:
        self._files = FileStore(root)
        self._log = log
        self.broken: set[str] = set()

    @property
    def id(self) -> StoreId:
        return self._files.id

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        with open(self._log, "a") as log:
            log.write(f"{key} {start} {length}\n")
        if key in self.broken:
            raise SourceUnavailableError(f"file:///{key}: broken by the test")
        return self._files.read(key, start=start, length=length, version=version)


class Lake:
    """A directory of objects with known bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "reads.log"
        self.log.touch()
        (root / "objects").mkdir()
        self.files = FileStore(root)
        self.store = LoggingStore(root, self.log)
        self.origins = Origins()
        self.origins.add("", self.store)
        self.bytes: dict[bytes, bytes] = {}
        self.refs: list[ObjectRef] = []

    def add(self, name: str, size: int) -> ObjectRef:
        """Write an object whose bytes follow from its name."""
        return self.write(name, random.Random(name).randbytes(size))

    def write(self, name: str, data: bytes) -> ObjectRef:
        path = self.root / "objects" / name
        path.write_bytes(data)
        stat = self.files.stat(os.fspath(path)[1:])
        ref = ObjectRef(self.files.id, stat.key, stat.version, stat.size)
        self.bytes[ref.id] = data
        self.refs.append(ref)
        return ref

    def expected(self, location: Location) -> bytes:
        return self.bytes[location.object.id][location.offset : location.offset + location.length]

    def reads(self) -> list[str]:
        """All origin reads so far, `key start length` each."""
        return self.log.read_text().splitlines()


def whole(ref: ObjectRef) -> Location:
    return Location(ref, 0, ref.size)


def disk_usage(directory: Path) -> int:
    """Bytes that a directory takes on disk: at least so many at one moment, also while files come and go.

    Files only grow. So those that still exist after all were measured have existed together, at that size or larger.
    """
    sizes = {}
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):  # evicted while we look
            if path.is_file():
                sizes[path] = path.lstat().st_blocks * 512
    return sum(size for path, size in sizes.items() if path.exists())


def inconsistencies(directory: Path) -> list[str]:
    """What does not fit together in a cache that was just opened and that nobody uses now."""
    path, wrong = os.fspath(directory), []
    with open_index(os.path.join(path, "index.lmdb")).reading() as tables:
        units = dict(tables.units())
        shares = tables.share_rows()
        parts = {unit: dict(tables.parts(unit)) for unit in units}
        if tables.counter(b"used") != sum(row.charged for row in units.values()):
            wrong.append("used is not the sum of the charges")
        for number, share in shares.items():
            for grade, charged in zip(Grade, (share.guest, share.normal, share.pinned), strict=True):
                if charged != sum(row.charged for row in units.values() if (row.share, row.grade) == (number, grade)):
                    wrong.append(f"what is charged to share {number} is not the sum of its {grade.name} units")
        if not {row.share for row in units.values() if row.charged} <= shares.keys():
            wrong.append("a unit is charged to a share that is not there")
        for unit, numbers in parts.items():
            for object_id in numbers.values() if units[unit].kind != FILE else [units[unit].object_id]:
                entry = tables.entry(object_id)
                if entry is not None and entry.unit not in units:
                    wrong.append(f"an object is in unit {entry.unit}, which is gone")
    names = {
        name: unit
        for unit, row in units.items()
        for name in (
            [make(path, unit, row.object_id) for make in (file_path, sidecar_path)]
            if row.kind == FILE
            else [slab_path(path, unit)]
        )
    }
    tops = ("slabs", "files", "checksums")
    found = {os.fspath(file) for top in tops for file in (directory / top).rglob("*") if file.is_file()}
    wrong += [f"{name} has no unit" for name in found - names.keys()]
    wrong += [
        f"{name} is not there"
        for name in names.keys() - found
        if parts[names[name]] and not name.startswith(f"{path}/checksums/")
    ]
    taken: Counter[Unit] = Counter()
    for name in found & names.keys():
        taken[names[name]] += os.stat(name).st_blocks * 512
    return wrong + [f"unit {unit} takes more than is charged" for unit in taken if taken[unit] > units[unit].charged]
