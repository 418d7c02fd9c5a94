"""Writing into the store: room first, then the bytes, then one transaction that makes them visible."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import lmdb

from cache_runtime.errors import CacheError
from cache_runtime.store.blockfiles import block_checksum, file_path, write_blocks, writing
from cache_runtime.store.layout import BLOCK_BYTES, SMALL_BYTES, Unit, block_span, disk_bytes, slab_bytes, slot_of
from cache_runtime.store.locks import EVICT_LOCK
from cache_runtime.store.rooms import EVICT_SECONDS, TRIES, Rooms
from cache_runtime.store.shares import Fill, Grade, Share
from cache_runtime.store.sidecars import FileOwner, sidecar_bytes, sidecar_path, write_attribute, write_sidecar
from cache_runtime.store.slabs import MAX_RECORDS, Record, SlabWriter, SlabWriters
from cache_runtime.store.tables import Entry, NoRoomError, Room, UnitGoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from typing_extensions import Buffer

    from cache_runtime.store.blockstore import BlockStore
    from cache_runtime.store.eviction import KeptRecord
    from cache_runtime.store.index import Index
    from cache_runtime.store.layout import BlockRun
    from cache_runtime.store.visited import VisitedMap
    from sources import ObjectRef

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 5.0  # after a lock was not free in time, reads go straight to the origin for their exact range


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
        self._numbers: dict[Share, int] = {}
        self._numbers_of: object = None
        self._paused_until = 0.0
        self._slab_bytes = slab_bytes(store.capacity_bytes)
        self._writers = SlabWriters(self._new_writer)
        self.rooms = Rooms(store, index, visited, keep=self._keep)
        self.refusals, self.evictor = self.rooms.refusals, self.rooms.evictor

    def admits(self, ref: ObjectRef, share: Share, length: int) -> bool:
        """See `BlockStore.admits`."""
        with self.guarding():
            fill = self._fill_for(share, ref.id)
            if self._may_try(fill, ref.size):
                return True
            self.refusals.count(fill, [ref.id], length)
        return False

    @contextmanager
    def admitting(self, ref: ObjectRef, run: BlockRun, *, share: Share, guest: bool) -> Iterator[int]:
        """See `BlockStore.admitting`."""
        beside = disk_bytes(sidecar_bytes(ref.size))
        parts = [run._replace(last=last) for last in range(run.last, run.first - 1, -1)]
        charges = [disk_bytes(block_span(part, ref.size)[1]) + beside for part in parts]
        with ExitStack() as stack:
            charge = 0
            with self.guarding():
                fill = self._fill_for(share, ref.id, guest=guest)
                charge = stack.enter_context(self.rooms.promising(fill, charges, lambda: self._may_try(fill, ref.size)))
            yield len(parts) - charges.index(charge) if charge else 0

    def put(
        self, ref: ObjectRef, first: int, data: Buffer, *, share: Share, guest: bool, crcs: Sequence[int] | None
    ) -> bool:
        """See `BlockStore.put`."""
        if ref.size <= SMALL_BYTES:
            return self.put_many([(ref, data)], share=share, guest=guest, crcs=crcs) == 1
        view = memoryview(data).cast("B")
        done = 0
        if self._store.off_reason is not None:
            return False
        with self.guarding():
            fill = self._fill_for(share, ref.id, guest=guest)
            if self._may_try(fill, ref.size):
                known = dict(enumerate(crcs, first)) if crcs is not None else _checksums(ref, first, view)
                done = self._attempt(fill, partial(self._write_blocks, ref, fill, known, view))
            if not done:
                self.refusals.count(fill, [ref.id], len(view))
        return done > 0

    def put_many(
        self, items: Sequence[tuple[ObjectRef, Buffer]], *, share: Share, guest: bool, crcs: Sequence[int] | None
    ) -> int:
        """See `BlockStore.put_many`."""
        stored = 0
        if self._store.off_reason is not None:
            return 0
        with self.guarding():
            records = [
                Record(ref.id, data, None if crcs is None else crcs[number]) for number, (ref, data) in enumerate(items)
            ]
            for fill, graded in self._by_grade(records, share, guest):
                stored += self.append_all(fill, graded)
        return stored

    def append_all(self, fill: Fill, records: Sequence[Record]) -> int:
        """Do `append` in pieces that one call to the system and one transaction can take; return for how many."""
        return sum(self._append_batch(fill, batch) for batch in self._cut(records))

    def _append_batch(self, fill: Fill, records: Sequence[Record]) -> int:
        """Store small objects; return for how many, from the first one on, there was room."""
        rest = records
        while rest and self._may_try(fill, 0):
            done = self._attempt(fill, partial(self._append, fill, rest))
            if not done:
                break
            rest = rest[done:]
        if rest:
            refused = sum(memoryview(record.data).nbytes for record in rest)
            self.refusals.count(fill, [record.object_id for record in rest], refused)
        return len(records) - len(rest)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Let no failure of the cache be one of the reader: a timed-out lock pauses fills, a failing disk ends them."""
        try:
            yield
        except CacheError as error:  # before OSError: a time-out is one, and says nothing about the disk
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            _log.warning("not cached for %g s: %s", _PAUSE_SECONDS, error)
        except (OSError, lmdb.Error) as error:
            self._store.fail(error)

    def evict(self, object_ids: Sequence[bytes], *, share: str | None, need_bytes: int) -> int:
        """See `BlockStore.evict`."""
        freed = 0
        with self._store.locks.fixed(EVICT_LOCK, seconds=EVICT_SECONDS):
            self.release()  # what this process has open for writing could not go
            if object_ids:
                freed += self.evictor.evict_objects(object_ids)
            if share is not None:
                with self._index.reading() as tables:
                    number = tables.share_number(share)
                freed += self.evictor.evict_share(number) if number is not None else 0
            if need_bytes > freed:
                freed += self.evictor.evict(need_bytes - freed)
        self._store.stats.evicted_bytes += freed
        return freed

    def release(self) -> None:
        """Unlock the slabs that this process writes."""
        self._writers.release()

    def forget_parent(self) -> None:
        """Leave the slabs to the parent of a fork."""
        self._writers.forget_parent()
        self.rooms.forget_parent()

    def number_of(self, share: Share) -> int:
        """Return a share's number; its first use in this process sets its terms."""
        if self._numbers_of is not self._index.objects:  # the handle is a new one when another file was opened
            self._numbers_of, self._numbers = self._index.objects, {}
        number = self._numbers.get(share)
        if number is None:
            number = self._numbers[share] = self._index.change(lambda tables: tables.enlist(share))
        return number

    def _fill_for(self, share: Share, object_id: bytes, *, guest: bool = False) -> Fill:
        number = self.number_of(share)
        with self._index.reading() as tables:
            is_pinned = tables.counter(b"pins") > 0 and tables.is_pinned(object_id)
        grade = Grade.PINNED if is_pinned else Grade.GUEST if guest else Grade.NORMAL
        return Fill(number, share, grade, object_id)

    def _by_grade(
        self, records: Sequence[Record], share: Share, guest: bool
    ) -> Iterator[tuple[Fill, Sequence[Record]]]:
        grade = Grade.GUEST if guest else Grade.NORMAL
        fill = Fill(self.number_of(share), share, grade, records[0].object_id if records else b"")
        with self._index.reading() as tables:
            any_pins = tables.counter(b"pins") > 0
            pinned = {record.object_id for record in records if any_pins and tables.is_pinned(record.object_id)}
        if pinned:
            firm = [record for record in records if record.object_id in pinned]
            records = [record for record in records if record.object_id not in pinned]
            yield fill._replace(grade=Grade.PINNED), firm
        yield fill, records

    def _cut(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        first = size = 0
        for number, record in enumerate(records):
            length = memoryview(record.data).nbytes
            if number > first and (size + length > self._slab_bytes // 16 or number - first >= MAX_RECORDS):
                yield records[first:number]
                first, size = number, 0
            size += length
        if first < len(records):
            yield records[first:]

    def _may_try(self, fill: Fill, size: int) -> bool:
        """Say whether it is worth to look for room."""
        if self._store.off_reason is not None or time.monotonic() < self._paused_until:
            return False
        quota = fill.share.quota_bytes
        # an object that is larger than the cache would evict all else, then itself
        if size and (size > self.rooms.limit_bytes() or (quota is not None and size > quota)):
            return False
        return not self.refusals.holds(fill)

    def _attempt(self, fill: Fill, write: Callable[[], int]) -> int:
        """Write, making room where there is none; return what `write` does, 0 if there is none to be made."""
        self.rooms.compact_if_due()
        for _ in range(TRIES):
            try:
                done = write()
            except NoRoomError as error:
                if not self.rooms.find(error, fill):
                    return 0
            except UnitGoneError:
                continue
            else:
                self._store.stats.fills += done
                return done
        return 0

    def _new_writer(self, share: int, grade: int) -> SlabWriter:
        with self._index.reading() as tables:
            name = tables.share_row(share).share.name
        return SlabWriter(
            self._store.directory,
            self._index,
            slab_bytes=self._slab_bytes,
            room=self.rooms.room,
            home=(share, grade, name),
        )

    def _append(self, fill: Fill, records: Sequence[Record]) -> int:
        places = self._writers.writer(fill.number, fill.grade).append(records)
        entries = [
            (record.object_id, Entry(*place, slot=slot_of(record.object_id), size=memoryview(record.data).nbytes))
            for record, place in zip(records, places, strict=False)  # those that fit into the slab
        ]
        # the index may grow into half of its margin before it is something to evict for
        room = Room(self.rooms.limit_bytes() + self.rooms.margin_bytes // 2, self._store.capacity_bytes)
        self._index.change(lambda tables: tables.publish_records(places[0].unit, entries, room))
        if fill.share.cycle_bytes:
            for _, entry in entries:
                self._visited.set(entry.slot)
        return len(entries)

    def _keep(self, kept: KeptRecord) -> None:
        self._append(Fill(kept.share, Share(), Grade(kept.grade)), [kept.record])

    def _write_blocks(self, ref: ObjectRef, fill: Fill, crcs: Mapping[int, int], data: memoryview) -> int:
        room = self.rooms.room()
        entry = Entry(Unit(0), 0, 0, slot=slot_of(ref.id), size=ref.size)
        charge = disk_bytes(len(data))
        if fill.share.cycle_bytes:  # first: from its charge on it would be evicted as what nobody reads
            self._visited.set(entry.slot)
        with self.rooms.charging(fill):
            unit = self._index.change(
                lambda tables: tables.charge_file(ref.id, entry, charge, room, share=fill.number, grade=fill.grade)
            )
        path = file_path(self._store.directory, unit, ref.id)
        try:
            with writing(path, size=ref.size) as fd:
                if not self._is_charged(unit):
                    raise UnitGoneError
                write_blocks(fd, data, first=next(iter(crcs)))
                owner = FileOwner(ref.id, ref.size, fill.share.name, fill.grade)
                is_whole = len(data) == ref.size
                if not (is_whole and write_attribute(fd, owner, crcs.values())):
                    write_sidecar(sidecar_path(self._store.directory, unit, ref.id), owner, crcs)
                self._index.change(lambda tables: tables.publish_blocks(unit, crcs))
                for block in crcs:  # the page cache has what the sums were computed of
                    self._store.family_marks.add(unit, block)
        except BlockingIOError as error:
            raise UnitGoneError from error
        except UnitGoneError:
            with suppress(FileNotFoundError):
                os.unlink(path)  # perhaps created after it was evicted; no unit has this number again
            raise
        return 1

    def _is_charged(self, unit: Unit) -> bool:
        """Look whether the evictor came between the charge and the lock."""
        with self._index.reading() as tables:
            return tables.unit(unit) is not None


def _checksums(ref: ObjectRef, first: int, data: memoryview) -> dict[int, int]:
    return {
        number: block_checksum(ref.id, number, data[start : start + BLOCK_BYTES])
        for number, start in enumerate(range(0, len(data), BLOCK_BYTES), first)
    }
