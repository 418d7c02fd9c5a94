"""The node-local store: what is cached in one directory, for all processes that use it."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakSet

import lmdb

from cache_runtime.directory import prepare_directory
from cache_runtime.errors import CacheCapacityError, CacheOffError
from cache_runtime.filling import Filler
from cache_runtime.layout import BLOCK_SHIFT, MIN_CAPACITY_BYTES, SMALL_BYTES, slot_of
from cache_runtime.shelf import Shelf
from cache_runtime.stats import ReadStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from typing_extensions import Buffer

    from cache_runtime.blockfiles import BlockFile
    from cache_runtime.tables import Entry, Tables
    from sources import Location, ObjectRef

_log = logging.getLogger(__name__)
_IDS_PER_SNAPSHOT = 4096
_MAX_RECORDS = 1 << 18  # some 60 MB in each process that reads as many small objects
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # says nothing about the disk
_WRITES_FAIL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # what is there can still be read
_NEARLY_FULL_BYTES = 16 << 20  # a fill that failed at the same moment may have given its room back
_pread = os.pread


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What a cache directory holds.

    Attributes:
        directory: Its path.
        capacity_bytes: What it may use.
        used_bytes: What it uses or has promised to fills, with the index.
        objects: Objects of which anything is cached.
        blocks: Cached blocks of large objects and records of small ones.
        off_reason: Why this process does not fill it any more, None while it does.
    """

    directory: str
    capacity_bytes: int
    used_bytes: int
    objects: int
    blocks: int
    off_reason: str | None


class BlockStore:
    """Ranges of immutable objects in one directory, safe for any number of threads and processes, without a daemon.

    Objects of up to 1 MiB are stored whole, larger ones in blocks of 4 MiB. It usually is read through `Client`, which
    fills it. Usable in children of a fork; pickling carries the directory and the limits.

    Whatever happens to the disk, `find` and the fills answer "not there" and "not stored": a failing disk turns the
    store off for this process, with one log event, a count in `stats` and a reason in `status`.

    Attributes:
        stats: What this process did; a `Client` adds its own reads.
    """

    def __init__(self, directory: str, *, capacity_bytes: int, free_floor_bytes: int = 0) -> None:
        if capacity_bytes < MIN_CAPACITY_BYTES:
            raise CacheCapacityError(capacity_bytes, minimum_bytes=MIN_CAPACITY_BYTES)
        self.directory = directory
        self.capacity_bytes = capacity_bytes
        self.free_floor_bytes = free_floor_bytes
        self.stats = ReadStats()
        self.off_reason: str | None = None
        self._unreadable = False
        self._index, visited, self.locks = prepare_directory(directory, capacity_bytes=capacity_bytes)
        self._shelf = Shelf(directory)
        self._records: dict[bytes, tuple[int, int, int, int]] = {}  # checked ones: unit, start, masked slot, size
        self._slabs, self._files = self._shelf.slabs, self._shelf.files
        self._words, self._slots, self._mask = visited.words, visited.slots, visited.mask
        self._generation = self._words[0]
        self._filler = Filler(self, self._index, visited)
        _stores.add(self)

    @classmethod
    def open(cls, directory: Path, *, capacity_bytes: int, free_floor_bytes: int = 0) -> BlockStore:
        """Open a cache directory, creating it if it is not there; what was cached before and has room is there again.

        Args:
            directory: On a local file system.
            capacity_bytes: Limit of the bytes on disk, index included; at least 32 MiB.
            free_floor_bytes: Free space of the file system that fills leave alone.

        Raises:
            CacheDirectoryError: If it cannot be created or written, or holds something that is no cache.
            CacheCapacityError: If the capacity is too small.
        """
        path = os.path.realpath(directory)
        store = cls(path, capacity_bytes=capacity_bytes, free_floor_bytes=free_floor_bytes)
        store._filler.evictor.sweep()
        store._filler.shrink()
        return store

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.directory, self.capacity_bytes, self.free_floor_bytes)

    def find(self, ref: ObjectRef, offset: int, length: int) -> memoryview | None:
        """Return a range if all of it is cached and passes its check, None otherwise.

        The memory is contiguous, read-only and stays valid for as long as it is referenced, also after eviction.

        Args:
            ref: The object.
            offset: Start of a range inside of the object; not checked again.
            length: Its length, not 0.
        """
        if self._unreadable:
            return None
        try:
            if self._words[0] != self._generation:
                self._let_go()
            record = self._records.get(ref.id)
            if record is not None and record[3] == ref.size:
                unit, start, slot, _ = record
                slab = self._slabs.get(unit)
                if slab is not None:
                    data = _pread(slab.fd, length, start + offset)
                    if len(data) == length:
                        self._slots[slot] = 1
                        return memoryview(data)
            if ref.size > SMALL_BYTES:
                return self._find_blocks(ref, offset, length)
            return self._find_record(ref, offset, length)
        except (OSError, lmdb.Error) as error:
            self.fail(error)
            return None

    def find_many(self, locations: Sequence[Location]) -> list[memoryview | None]:
        """Do `find` for many ranges, all of them non-empty and inside of their objects."""
        found: list[memoryview | None] = []
        if self._words[0] != self._generation:
            self._let_go()
        files, slots = self._files, self._slots
        for location in locations:
            ref = location.object
            offset = location.offset
            file = files.get(ref.id)
            if file is not None and file.size == ref.size and (view := file.view) is not None:
                # the usual case of `find`, without its calls: a record of a shard, in one verified block
                end = offset + location.length
                block = offset >> BLOCK_SHIFT
                if file.verified[block] and (end - 1) >> BLOCK_SHIFT == block:
                    slots[file.slot] = 1
                    found.append(view[offset:end])
                    continue
            found.append(self.find(ref, offset, location.length))
        return found

    def missing_blocks(self, ref: ObjectRef, blocks: Iterable[int]) -> list[int]:
        """Return those of some blocks of an object that are not cached; a small object has the one block 0.

        Their bytes are not checked.
        """
        return self.missing_among([(ref, blocks)])[0]

    def missing_among(self, wanted: Sequence[tuple[ObjectRef, Iterable[int]]]) -> list[list[int]]:
        """Do `missing_blocks` for many objects, on one snapshot: not more than some thousand, others wait for it."""
        if not self._unreadable:
            try:
                with self._index.reading() as tables:
                    return [_missing(tables, ref, blocks) for ref, blocks in wanted]
            except lmdb.Error as error:
                self.fail(error)
        return [list(blocks) for _, blocks in wanted]

    def admits(self, ref: ObjectRef) -> bool:
        """Say whether a fill of this object would be stored, as far as one can tell before."""
        return self.off_reason is None and self._filler.admits(ref)

    def put(self, ref: ObjectRef, first: int, data: Buffer) -> bool:
        """Store neighbouring whole blocks of an object from block `first` on; a small object has the one block 0.

        Returns:
            False if there is no room and none can be made, or the store is off.
        """
        return self._filler.put(ref, first, data)

    def missing_ids(self, object_ids: Sequence[bytes]) -> list[bytes]:
        """Return those of some objects' ids of which nothing is cached."""
        gone: list[bytes] = []
        for start in range(0, len(object_ids), _IDS_PER_SNAPSHOT):
            part = object_ids[start : start + _IDS_PER_SNAPSHOT]
            if self._unreadable:
                gone += part
                continue
            try:
                with self._index.reading() as tables:
                    gone += [object_id for object_id in part if tables.entry(object_id) is None]
            except lmdb.Error as error:
                self.fail(error)
                gone += part
        return gone

    def touch(self, object_id: bytes) -> None:
        """Mark an object as read, so that the evictor passes over it once."""
        self._slots[slot_of(object_id) & self._mask] = 1

    def budget_bytes(self) -> int:
        """Return how many bytes of objects there is room for, if nothing else is cached."""
        # less what slabs leave unused at their ends, and what is evicted beyond the need
        return self._filler.limit_bytes() - self.capacity_bytes // 32

    def status(self) -> StoreStatus:
        """Look at what is cached.

        Raises:
            CacheOffError: If the index cannot be read.
        """
        try:
            with self._index.reading() as tables:
                used = tables.counter(b"used")
                objects, _, parts = tables.totals()
        except lmdb.Error as error:
            raise CacheOffError(self.directory, str(error)) from error
        return StoreStatus(
            directory=self.directory,
            capacity_bytes=self.capacity_bytes,
            used_bytes=used + self._filler.overhead_bytes(),
            objects=objects,
            blocks=parts,
            off_reason=self.off_reason,
        )

    def close(self) -> None:
        """Let go of files; slices that were handed out stay valid, and so does the store: it opens them again."""
        self._records.clear()
        self._shelf.clear()
        self._filler.release()

    def fail(self, error: OSError | lmdb.Error) -> None:
        """Turn the store off for this process, once, for what a failing or full disk raised."""
        if isinstance(error, lmdb.ReadersFullError):
            self._index.free_dead_readers()
            return
        code = error.errno if isinstance(error, OSError) else self._errno_of(error)
        if code in _PASSING or self._unreadable:
            return
        if code in _WRITES_FAIL:
            if self.off_reason is not None:
                return
        else:
            self._unreadable = True
        self.off_reason = os.strerror(code) if code else str(error)
        self.stats.store_failures += 1
        _log.error(
            "cache turned off for this process directory=%s reason=%s readable=%s",
            self.directory,
            self.off_reason,
            not self._unreadable,
        )

    def _errno_of(self, error: lmdb.Error) -> int | None:
        """Find the system's error in LMDB's; a full map is a full disk.

        A write that a full disk cut short is an input/output error to LMDB (mdb.c, mdb_page_flush).
        """
        if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
            return errno.ENOSPC
        known = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
        code = next((code for code in known if os.strerror(code) in str(error)), None)
        if code == errno.EIO and (self.off_reason is not None or _is_nearly_full(self.directory)):
            return errno.ENOSPC
        return code

    def _find_record(self, ref: ObjectRef, offset: int, length: int) -> memoryview | None:
        """Look a small object up, and check its record."""
        with self._index.reading() as tables:
            entry = tables.entry(ref.id)
        if entry is None or entry.size != ref.size:
            return None
        try:
            slab = self._shelf.open_slab(entry.unit)
        except FileNotFoundError:  # evicted since we looked, or removed by hand
            self._index.change(lambda tables: tables.drop_entry(ref.id, entry))
            return None
        data = slab.read_record(ref.id, start=entry.start, size=entry.size)
        if data is None:
            self._records.pop(ref.id, None)
            self._quarantine(ref, lambda tables: tables.drop_entry(ref.id, entry))
            return None
        slot = entry.slot & self._mask
        self._slots[slot] = 1
        if len(self._records) >= _MAX_RECORDS:
            self._records.clear()
        self._records[ref.id] = (entry.unit, entry.start, slot, entry.size)
        return memoryview(data)[offset : offset + length]

    def _find_blocks(self, ref: ObjectRef, offset: int, length: int) -> memoryview | None:
        """Cut a range out of a mapped file, after its blocks were checked on their first read."""
        file = self._files.get(ref.id)
        if file is not None and file.size == ref.size and (view := file.cut(offset, length)) is not None:
            self._slots[file.slot] = 1
            return view
        with self._index.reading() as tables:
            entry = tables.entry(ref.id)
            if entry is None or entry.size != ref.size:
                return None
            blocks = range(offset >> BLOCK_SHIFT, ((offset + length - 1) >> BLOCK_SHIFT) + 1)
            crcs = {block: tables.part(entry.unit, block) for block in blocks}
        file = self._shelf.open_file(ref.id, entry, slot=entry.slot & self._mask)
        try:
            # checked to the end, so that one fetch replaces all that is damaged
            bad = [block for block, crc in crcs.items() if not self._is_good(ref, file, block, crc)]
            if bad:
                return None
            if not self._shelf.map_file(ref.id, file):
                raise FileNotFoundError(errno.ENOENT, "truncated", file.path)
        except FileNotFoundError:  # evicted since we looked, or removed or cut by hand
            self._drop_file(ref, entry)
            return None
        self._slots[file.slot] = 1
        return file.cut(offset, length)

    def _is_good(self, ref: ObjectRef, file: BlockFile, block: int, crc: bytes | None) -> bool:
        if crc is None:
            return False
        if file.verified[block] or file.check_block(ref.id, block, crc):
            return True
        self._quarantine(ref, lambda tables: tables.drop_part(file.unit, block))
        return False

    def _quarantine(self, ref: ObjectRef, forget: Callable[[Tables], None]) -> None:
        self._index.change(forget)
        self.stats.corrupt_blocks += 1
        _log.warning("cached bytes failed their check and are fetched anew object=%s id=%s", ref.uri, ref.id.hex())

    def _drop_file(self, ref: ObjectRef, entry: Entry) -> None:
        """Forget a large object whose file is missing or short; one that was evicted just now is forgotten already."""
        self._shelf.drop(ref.id)
        if self._filler.evictor.drop(entry.unit):
            self.stats.corrupt_blocks += 1
            _log.warning("cached file is missing or short, fetched anew object=%s id=%s", ref.uri, ref.id.hex())

    def _let_go(self) -> None:
        self._generation = self._words[0]  # first: what is evicted from here on makes us come again
        try:
            self._shelf.drop_evicted(self._index)
        except lmdb.Error as error:
            self.fail(error)

    def forget_parent(self) -> None:
        """Start anew in the child of a fork with what only one process may use; called by the fork itself."""
        self.locks.forget_parent()
        self._shelf.forget_parent()
        self._filler.forget_parent()


def _missing(tables: Tables, ref: ObjectRef, blocks: Iterable[int]) -> list[int]:
    entry = tables.entry(ref.id)
    if entry is None or entry.size != ref.size:
        return list(blocks)
    if ref.size <= SMALL_BYTES:
        return []
    return [block for block in blocks if tables.part(entry.unit, block) is None]


def _is_nearly_full(directory: str) -> bool:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize < _NEARLY_FULL_BYTES


def _reopen(directory: str, capacity_bytes: int, free_floor_bytes: int) -> BlockStore:
    return BlockStore(directory, capacity_bytes=capacity_bytes, free_floor_bytes=free_floor_bytes)


_stores: WeakSet[BlockStore] = WeakSet()


def _after_fork_in_child() -> None:
    for store in _stores:
        store.forget_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
