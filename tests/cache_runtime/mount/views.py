"""A version in memory, written without regard to speed; and files that are read from a directory."""

from __future__ import annotations

import bisect
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache_runtime.mount.operations import Opened
from cache_runtime.mount.protocol import OpenFlag
from cache_runtime.mount.view import Children, FileAt, Found, Place
from sources import Location, ObjectRef, StoreId, Version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cache_runtime.mount.operations import Kernel, Opening, Part

COMMIT = "c0" * 32
TIME_NS = 1_700_000_000_123_456_789


class MemoryView:
    """Files by path, with sizes and times; their bytes are below a directory."""

    def __init__(
        self, files: Mapping[str, tuple[int, int]], root: Path = Path("/"), *, commit: str = COMMIT, page: int = 1000
    ) -> None:
        self._paths = sorted(files, key=str.encode)
        self._keys = [path.encode() for path in self._paths]
        self._files = files
        self._root = root
        self._page = page
        self.commit = commit
        self.rows = len(files)
        self.size = sum(size for size, _ in files.values())

    @classmethod
    def of(cls, root: Path, *, commit: str = COMMIT, page: int = 1000) -> MemoryView:
        files = {}
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory) / name
                seen = path.stat()
                files[str(path.relative_to(root))] = (seen.st_size, seen.st_mtime_ns)
        return cls(files, root, commit=commit, page=page)

    def _prefix(self, place: Place) -> bytes:
        if place.level == 1:
            return b""
        return b"".join(part + b"/" for part in self._keys[place.row].split(b"/")[: place.level - 1])

    def _end(self, prefix: bytes) -> int:
        return bisect.bisect_left(self._keys, prefix[:-1] + b"0") if prefix else self.rows  # "0" comes after "/"

    def _found(self, place: Place) -> Found:
        if place.level:
            return Found(place, 0, TIME_NS)
        return Found(place, *self._files[self._paths[place.row]])

    def find(self, directory: Place, name: bytes) -> Found | None:
        whole = self._prefix(directory) + name
        row = bisect.bisect_left(self._keys, whole)
        if row < self.rows and self._keys[row] == whole:
            return self._found(Place(row, 0))
        row = bisect.bisect_left(self._keys, whole + b"/")
        if row < self.rows and self._keys[row].startswith(whole + b"/"):
            return self._found(Place(row, directory.level + 1))
        return None

    def stat(self, place: Place) -> Found:
        return self._found(place)

    def children(self, directory: Place, row: int) -> Children:
        prefix = self._prefix(directory) if self.rows else b""
        row, end = max(row, directory.row), self._end(prefix)
        names: list[bytes] = []
        founds: list[Found] = []
        while row < end and len(names) < self._page:
            name, slash, _ = self._keys[row][len(prefix) :].partition(b"/")
            names.append(name)
            founds.append(self._found(Place(row, directory.level + 1 if slash else 0)))
            row = self._end(prefix + name + slash) if slash else row + 1
        return Children(
            names,
            np.array([found.place.row for found in founds], "i8"),
            np.array([found.place.level for found in founds], "u2"),
            np.array([found.size for found in founds], "i8"),
            np.array([found.mtime_ns for found in founds], "i8"),
            row if row < end else None,
        )

    def file(self, row: int) -> FileAt:
        path = self._paths[row]
        size = self._files[path][0]
        key = str(self._root / path).lstrip("/")
        digest = row.to_bytes(32, "big") if row % 2 == 0 else None
        return FileAt(path, Location(ObjectRef(StoreId("file://"), key, Version("v"), size), 0, size), digest)

    def files(self, row: int, count: int) -> list[FileAt]:
        return [self.file(number) for number in range(row, min(row + count, self.rows))]

    def largest(self, row: int, count: int) -> int:
        return max(self._files[path][0] for path in self._paths[row : row + count])


class PlainFiles:
    """Reads what a location names from the disk, at once."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel
        self.upgraded: set[int] = set()
        self._handles: dict[int, int] = {}
        self.opened = 0

    def open(self, opening: Opening, unique: int) -> Opened | None:
        handle = os.open("/" + opening.file.location.object.key, os.O_RDONLY | os.O_CLOEXEC)
        self._handles[handle] = handle
        self.opened += 1
        return Opened(handle, OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)

    def read(self, handle: int, offset: int, size: int, unique: int) -> bytes | None:
        if handle not in self._handles:
            raise OSError(errno.EBADF, "no such handle")
        return os.pread(handle, size, offset)

    def knows(self, node: int) -> bool:
        return False

    def read_unopened(self, node: int, find: Callable[[], Opening], part: Part, unique: int) -> bytes | None:
        with open("/" + find().file.location.object.key, "rb") as file:
            return os.pread(file.fileno(), part.size, part.offset)

    def read_unopened_later(self, find: Callable[[], Opening], part: Part, unique: int) -> None:
        kernel = self.kernel
        assert kernel is not None
        kernel.reply(unique, self.read_unopened(0, find, part, unique) or b"")

    def release(self, handle: int) -> None:
        if self._handles.pop(handle, None) is not None:
            os.close(handle)

    def interrupt(self, unique: int) -> None:
        pass

    def status(self) -> dict[str, object]:
        return {"handles": len(self._handles), "opened": self.opened}

    def close(self) -> None:
        for handle in list(self._handles):
            self.release(handle)
