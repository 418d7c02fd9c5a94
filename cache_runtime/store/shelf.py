"""The slabs and files that this process has open."""

from __future__ import annotations

import resource
import threading
from typing import TYPE_CHECKING

from cache_runtime.store.blockfiles import BlockFile, file_path
from cache_runtime.store.slabs import OpenUnit, slab_path

if TYPE_CHECKING:
    from cache_runtime.store.index import Index
    from cache_runtime.store.tables import Entry


_MAX_FILES = 1 << 18  # some 90 MB in each process that reads as many large objects


class Lent:
    """A range of a file of the cache: `length` bytes at `offset` of `fd`, which is open for as long as this lives.

    The descriptor is shared with others: read at offsets (`pread`, `sendfile` with an offset), never seek or close it.

    Attributes:
        offset: Where in the file the range begins.
        length: Its bytes.
    """

    __slots__ = ("_unit", "length", "offset")

    def __init__(self, unit: OpenUnit, offset: int, length: int) -> None:
        self._unit = unit
        self.offset = offset
        self.length = length

    @property
    def fd(self) -> int:
        """Descriptor of the file."""
        return self._unit.fd


class Shelf:
    """Open slabs by unit and files by object id, at most a quarter of the process's descriptors each.

    Attributes:
        slabs: Read it without the lock; entries appear and disappear at any time.
        files: Likewise. A file keeps what was verified when its mapping is dropped, and an unmapped one stays after
            eviction: it holds nothing but memory, and another unit replaces it.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._limit = max(16, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._mapped: dict[bytes, BlockFile] = {}
        self.slabs: dict[int, OpenUnit] = {}
        self.files: dict[bytes, BlockFile] = {}

    def open_slab(self, unit: int) -> OpenUnit:
        """Return a slab, opening it if it is not open; the one opened first makes room.

        Raises:
            FileNotFoundError: If it was evicted.
        """
        with self._lock:
            slab = self.slabs.get(unit)
            if slab is None:
                if len(self.slabs) >= self._limit:
                    del self.slabs[next(iter(self.slabs))]
                slab = self.slabs[unit] = OpenUnit(slab_path(self._directory, unit))
            return slab

    def open_file(self, object_id: bytes, entry: Entry, *, slot: int) -> BlockFile:
        """Return the file of an object as it is known here; nothing is opened or mapped yet."""
        with self._lock:
            file = self.files.get(object_id)
            if file is None or file.unit != entry.unit:
                self._forget(object_id)
                if len(self.files) >= _MAX_FILES:
                    self._forget(next(iter(self.files)))
                path = file_path(self._directory, entry.unit, object_id)
                file = self.files[object_id] = BlockFile(path, unit=entry.unit, size=entry.size, slot=slot)
            return file

    def map_file(self, object_id: bytes, file: BlockFile) -> bool:
        """Map a file if it is not mapped; the one mapped first makes room. False if its size is wrong.

        Raises:
            FileNotFoundError: If it was evicted.
        """
        with self._lock:
            if file.view is not None:
                return True
            if len(self._mapped) >= self._limit:
                self._mapped.pop(next(iter(self._mapped))).unmap()
            if not file.map():
                return False
            self._mapped[object_id] = file
            return True

    def open_lent(self, file: BlockFile) -> OpenUnit:
        """Return a file held open, for as long as it is mapped.

        Raises:
            FileNotFoundError: If it was evicted.
        """
        with self._lock:
            opened = file.lent or OpenUnit(file.path)
            file.lent = None if file.view is None else opened
            return opened

    def drop(self, object_id: bytes) -> None:
        """Let go of an object's file."""
        with self._lock:
            self._forget(object_id)

    def drop_evicted(self, index: Index) -> None:
        """Let go of what was evicted, so that the file system can free it; slices that were handed out stay valid."""
        with self._lock, index.reading() as tables:
            for object_id in [found for found, file in self._mapped.items() if tables.unit(file.unit) is None]:
                self._forget(object_id)
            for unit in [unit for unit in self.slabs if tables.unit(unit) is None]:
                del self.slabs[unit]

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._let_go()
            self.slabs.clear()
            self.files.clear()
            self._mapped.clear()

    def let_go(self) -> None:
        """End what readers of single ranges hold."""
        with self._lock:
            self._let_go()

    def forget_parent(self) -> None:
        """Replace the lock, which another thread of the parent may have held; what is open stays usable."""
        self._lock = threading.Lock()

    def _let_go(self) -> None:
        for file in self._mapped.values():
            file.let_go()

    def _forget(self, object_id: bytes) -> None:
        file = self.files.pop(object_id, None)
        if file is not None:
            file.let_go()
        self._mapped.pop(object_id, None)
