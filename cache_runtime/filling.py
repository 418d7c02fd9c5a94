"""Writing into the store: room first, then the bytes, then one transaction that makes them visible."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import lmdb

from cache_runtime.blockfiles import block_checksum, file_path, write_all, writing
from cache_runtime.errors import CacheError, CacheFullError
from cache_runtime.eviction import Evictor
from cache_runtime.layout import BLOCK_BYTES, SMALL_BYTES, Unit, disk_bytes, slab_bytes, slot_of
from cache_runtime.locks import EVICT_LOCK
from cache_runtime.slabs import SlabWriter
from cache_runtime.tables import Entry, NoRoomError, Room, UnitGoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from cache_runtime.eviction import KeptRecord
    from cache_runtime.index import Index
    from cache_runtime.store import BlockStore
    from cache_runtime.visited import VisitedMap
    from sources import ObjectId, ObjectRef

_log = logging.getLogger(__name__)
_EVICT_SECONDS = 30.0
_INDEX_MARGIN_BYTES = 1 << 20  # kept free for the index to grow between two charges
_MAX_SLACK_BYTES = 64 << 20  # evicted beyond the need, so that not every fill has to evict
_FULL_SECONDS = 5.0  # after a failed search for room, reads go straight to the origin for their exact range
_TRIES = 4  # a unit may be evicted under a fill, or another process take the room that was made


class Filler:
    """The writing half of a `BlockStore`.

    Args:
        store: The store; its limits, counters and locks are used.
        index: Its index.
        visited: Its visited map.
    """

    def __init__(self, store: BlockStore, index: Index, visited: VisitedMap) -> None:
        self._store = store
        self._index = index
        self._visited = visited
        self._full_until = 0.0
        size = slab_bytes(store.capacity_bytes)
        self._writer = SlabWriter(store.directory, index, slab_bytes=size, room=self.room)
        self.evictor = Evictor(store.directory, index, visited, keep=self._keep)

    def admits(self, ref: ObjectRef) -> bool:
        """See `BlockStore.admits`."""
        # an object that is larger than the cache would evict all else, then itself
        return time.monotonic() >= self._full_until and ref.size <= self.limit_bytes()

    def put(self, ref: ObjectRef, first: int, data: Buffer) -> bool:
        """See `BlockStore.put`."""
        if not self.admits(ref):
            return False
        if ref.size <= SMALL_BYTES:
            return self._attempt(lambda: self._append(ref.id, data))
        return self._attempt(lambda: self._write_blocks(ref, first, memoryview(data).cast("B")))

    def overhead_bytes(self) -> int:
        """Return what the index and the map take from the capacity, bytes."""
        return self._index.pages_bytes() + self._visited.file_bytes

    def limit_bytes(self) -> int:
        """Return how much may be charged in all."""
        return self._store.capacity_bytes - self.overhead_bytes() - _INDEX_MARGIN_BYTES

    def room(self) -> Room:
        """Tell what may be charged now, from the capacity and from the floor of free space."""
        free = self._store.capacity_bytes
        if self._store.free_floor_bytes:
            disk = os.statvfs(self._store.directory)
            free = disk.f_bavail * disk.f_frsize - self._store.free_floor_bytes
        return Room(self.limit_bytes(), free)

    def shrink(self) -> None:
        """Evict what is beyond a capacity that was lowered since."""
        with self._index.reading() as tables:
            used = tables.counter(b"used")
        excess = used - self.limit_bytes()
        if excess > 0:
            try:
                self._make_room(NoRoomError(excess, used_bytes=used))
            except CacheError as error:  # others write or evict: the next fill goes on
                _log.warning("capacity still exceeded directory=%s reason=%s", self._store.directory, error)

    def release(self) -> None:
        """Unlock the slab that this process writes."""
        self._writer.release()

    def forget_parent(self) -> None:
        """Leave the slab to the parent of a fork."""
        self._writer.forget_parent()

    def _attempt(self, write: Callable[[], None]) -> bool:
        """Write, making room where there is none; False if there is none to be made, or the disk fails."""
        if self._store.off_reason is not None:
            return False
        try:
            for _ in range(_TRIES):
                try:
                    write()
                except NoRoomError as error:
                    self._make_room(error)
                except UnitGoneError:
                    continue
                else:
                    self._store.stats.fills += 1
                    return True
        except CacheError as error:  # full, or the evictor is stopped: the bytes are served all the same
            self._full_until = time.monotonic() + _FULL_SECONDS
            _log.warning("not cached for %g s: %s", _FULL_SECONDS, error)
            return False
        except (OSError, lmdb.Error) as error:
            self._store.fail(error)
        return False

    def _append(self, object_id: ObjectId, data: Buffer) -> None:
        place = self._writer.append(object_id, data)
        entry = Entry(*place, slot=slot_of(object_id), size=memoryview(data).nbytes)
        self._index.change(lambda tables: tables.publish_record(object_id, entry))

    def _keep(self, record: KeptRecord) -> None:
        self._append(record.object_id, record.data)

    def _write_blocks(self, ref: ObjectRef, first: int, data: memoryview) -> None:
        room = self.room()
        entry = Entry(Unit(0), 0, 0, slot=slot_of(ref.id), size=ref.size)
        charge = disk_bytes(len(data))
        unit = self._index.change(lambda tables: tables.charge_file(ref.id, entry, charge, room))
        path = file_path(self._store.directory, unit, ref.id)
        crcs = {
            first + number: block_checksum(ref.id, first + number, data[start : start + BLOCK_BYTES])
            for number, start in enumerate(range(0, len(data), BLOCK_BYTES))
        }
        try:
            with writing(path, size=ref.size) as fd:
                if not self._is_charged(unit):
                    raise UnitGoneError
                write_all(fd, data, first * BLOCK_BYTES)
                self._index.change(lambda tables: tables.publish_blocks(unit, crcs))
        except BlockingIOError as error:
            raise UnitGoneError from error
        except UnitGoneError:
            with suppress(FileNotFoundError):
                os.unlink(path)  # perhaps created after it was evicted; no unit has this number again
            raise

    def _is_charged(self, unit: Unit) -> bool:
        """Look whether the evictor came between the charge and the lock."""
        with self._index.reading() as tables:
            return tables.unit(unit) is not None

    def _make_room(self, wanted: NoRoomError) -> None:
        """Evict, unless another process did while we waited for our turn.

        Raises:
            CacheFullError: If too little can be evicted.
            CacheTimeoutError: If another process evicts for half a minute.
        """
        store = self._store
        with store.locks.fixed(EVICT_LOCK, seconds=_EVICT_SECONDS):
            with self._index.reading() as tables:
                need = wanted.short_bytes - (wanted.used_bytes - tables.counter(b"used"))
            if need <= 0:
                return
            freed = self.evictor.evict(need + min(_MAX_SLACK_BYTES, store.capacity_bytes // 64))
            store.stats.evicted_bytes += freed
            if freed < need:
                raise CacheFullError(store.directory, need_bytes=need, capacity_bytes=store.capacity_bytes)
