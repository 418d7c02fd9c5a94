"""The reading half of a store: a hit takes no lock and no transaction.

A hit has two paths. `recall` answers for what this process has checked, and read since something was evicted last: in
as few steps as Python can take, because each costs a hundredth of the `pread`. `find` answers for all else.
"""

from __future__ import annotations

import errno
import os
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import lmdb

from cache_runtime.stats import ReadStats
from cache_runtime.store.familymarks import FamilyMarks
from cache_runtime.store.holding import Holding
from cache_runtime.store.layout import BLOCK_SHIFT, SMALL_BYTES, slot_of
from cache_runtime.store.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from cache_runtime.store.blockfiles import BlockFile
    from cache_runtime.store.index import Index
    from cache_runtime.store.quarantine import Quarantine
    from cache_runtime.store.visited import VisitedMap
    from sources import Location, ObjectRef

    CheckedRecord: TypeAlias = tuple[int, int, int, int]

_MAX_RECORDS = 1 << 18  # some 50 MB in each process that reads as many small objects
_pread = os.pread


class StoreReader(ABC):
    """What of `BlockStore` finds bytes and checks them.

    Args:
        directory: The cache directory.
        index: Its index.
        visited: Its visited map.

    Attributes:
        directory: Its path.
        stats: What this process did.
        family_marks: Blocks that this process, or another one of its family of forks, has checked.
    """

    _quarantine: Quarantine

    def __init__(self, directory: str, index: Index, visited: VisitedMap) -> None:
        self.directory = directory
        self.stats = ReadStats()
        self._index = index
        self._unreadable = False
        self._shelf = Shelf(directory)
        self.family_marks = FamilyMarks()
        # checked ones: unit, start, size, the generation in which this process last marked it as read. Tuples of
        # numbers, the first and the last two shared by many: the garbage collector passes over them, and a hit misses
        # the processor's caches seldom
        self._records: dict[bytes, CheckedRecord] = {}
        self._records_lock = threading.Lock()  # for changing what is there
        self._units: dict[int, int] = {}
        self._slabs, self._files = self._shelf.slabs, self._shelf.files
        self._words, self._slots, self._mask = visited.words, visited.slots, visited.mask
        self._visited = visited
        self._generation, self._mark = self._words[0], visited.now

    @abstractmethod
    def fail(self, error: OSError | lmdb.Error) -> None:
        """Take note of what a failing disk raised."""

    def recall(self, location: Location) -> memoryview | None:
        """Return a range as `find` does, if it is in what this process has checked before.

        None says nothing: not even that the range lies inside of its object.
        """
        ref = location.object
        if ref.size > SMALL_BYTES:
            return self._recall_block(location)
        try:
            unit, start, size, marked = self._records[ref.id]
            slab = self._slabs[unit]  # held: whatever another thread lets go of, the descriptor stays this file's
        except KeyError:
            return None
        length = location.length
        offset = location.offset
        if marked != self._words[0] or size != ref.size:
            return None
        if offset or length != size:
            if offset < 0 or length <= 0 or offset + length > size:
                return None
            start += offset
        try:
            data = _pread(slab.fd, length, start)
        except OSError as error:
            self.fail(error)
            return None
        return memoryview(data) if len(data) == length else None

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
            if ref.size > SMALL_BYTES:
                return self._find_blocks(ref, offset, length)
            record = self._records.get(ref.id)
            if record is not None and record[2] == ref.size:
                view = self._read_again(ref.id, record, offset, length)
                if view is not None:
                    return view
            return self._find_record(ref, offset, length)
        except (OSError, lmdb.Error) as error:
            self.fail(error)
            return None

    def find_checked(self, location: Location) -> memoryview | None:
        """Do `find` for what takes no check of a whole block: for an event loop.

        A range of a large object is found only if this process has checked its blocks; one of a small object is looked
        up and read, which is one read of the disk at most.
        """
        view = self.recall(location)
        ref, offset, length = location.object, location.offset, location.length
        if view is not None or offset < 0 or not 0 < length <= ref.size - offset:
            return view
        if ref.size > SMALL_BYTES and not self._is_checked(ref, offset, length):
            return None
        return self.find(ref, offset, length)

    def find_many(self, locations: Sequence[Location]) -> list[memoryview | None]:
        """Do `find` for many ranges; None also for those that are empty or outside of their objects."""
        views: list[memoryview | None] = []
        append = views.append
        records, slabs, generation = self._records, self._slabs, self._words[0]
        for location in locations:
            ref = location.object
            length = location.length
            offset = location.offset
            if ref.size <= SMALL_BYTES:
                try:  # as `recall`, without the call
                    unit, start, size, marked = records[ref.id]
                    slab = slabs[unit]
                    if marked == generation and size == ref.size and offset >= 0 and 0 < length <= size - offset:
                        data = _pread(slab.fd, length, start + offset)
                        if len(data) == length:
                            append(memoryview(data))
                            continue
                except KeyError:
                    pass
                except OSError as error:
                    self.fail(error)
            append(self._recall_block(location) if ref.size > SMALL_BYTES else None)
        left = [number for number, view in enumerate(views) if view is None]
        left.sort(key=lambda number: (locations[number].object.id, locations[number].offset))
        for number in left:  # blocks that are read from the disk for their check are read in the order they lie in
            location = locations[number]
            ref, offset, length = location.object, location.offset, location.length
            if offset >= 0 and 0 < length <= ref.size - offset:
                views[number] = self.find(ref, offset, length)
        return views

    def whole(self, ref: ObjectRef) -> memoryview | None:
        """Return all of a large object, if this process has checked every block of it, and mark it as read.

        For a batch of ranges: one call for each object, then a slice for each range. None says nothing, as of `recall`.
        """
        file = self._checked_file(ref)
        if file is None:
            return None
        if file.is_short():  # somebody cut it: who touched the mapping now would be killed
            self._shelf.drop(ref.id)
            return None
        self._slots[file.slot] = self._mark
        return file.view

    def hold(self, ref: ObjectRef) -> Holding | None:
        """Do `whole` for ranges one by one, and for as long as nothing is evicted; see `Holding`.

        The system is not asked whether somebody has cut the file: that takes longer than a range.
        """
        file = self._checked_file(ref)
        view = None if file is None else file.view
        if file is None or view is None:
            return None
        generation = self._generation  # first: a mark that the evictor clears from here on is made again
        self._slots[file.slot] = self._mark
        holding = file.holding
        if holding is None or holding.view is not view:
            holding = file.holding = Holding(view, self._words)
        holding.generation = generation
        if file.view is not view or self._unreadable:  # let go of by another thread meanwhile
            file.let_go()
            return None
        return holding

    def _checked_file(self, ref: ObjectRef) -> BlockFile | None:
        """Return a mapped file of which all blocks were checked, if nothing was evicted since we looked."""
        file = self._files.get(ref.id)
        if file is None or file.size != ref.size or self._words[0] != self._generation or self._unreadable:
            return None
        return None if file.view is None or 0 in file.verified else file

    def _is_checked(self, ref: ObjectRef, start: int, length: int) -> bool:
        """Say whether this process has compared a range with its checksums, so that `find` reads no block for it."""
        if ref.size <= SMALL_BYTES:
            record = self._records.get(ref.id)
            return record is not None and record[0] in self._slabs
        file = self._files.get(ref.id)
        return file is not None and file.size == ref.size and file.cut(start, length) is not None

    def forget_record(self, object_id: bytes) -> None:
        """Look a small object up and check it when it is read again."""
        with self._records_lock:
            self._records.pop(object_id, None)

    def forget_parent(self) -> None:
        """Replace the locks, which another thread of the parent may have held; called by a fork."""
        self._records_lock = threading.Lock()
        self._shelf.forget_parent()

    def _recall_block(self, location: Location) -> memoryview | None:
        """Do `recall` for a range of a mapped file; the usual one, a record of a shard, is in one block."""
        ref = location.object
        file = self._files.get(ref.id)
        offset = location.offset
        length = location.length
        end = offset + length
        if file is None or file.size != ref.size or offset < 0 or length <= 0 or end > file.size:
            return None
        view = file.view
        block = offset >> BLOCK_SHIFT
        if view is None or not file.verified[block] or self._words[0] != self._generation or self._unreadable:
            return None
        if (end - 1) >> BLOCK_SHIFT == block:
            view = view[offset:end]
        elif (view := file.cut(offset, length)) is None:
            return None
        self._slots[file.slot] = self._mark
        return view

    def _read_again(self, object_id: bytes, record: CheckedRecord, offset: int, length: int) -> memoryview | None:
        """Read a small object that was checked before something was evicted, and mark it as read."""
        unit, start, size, marked = record
        slab = self._slabs.get(unit)
        if slab is None:
            return None
        data = _pread(slab.fd, length, start + offset)
        if len(data) != length:
            return None
        if marked != self._generation:
            generation = self._generation  # first: a mark that the evictor clears from here on is made again
            self._slots[slot_of(object_id) & self._mask] = self._mark
            with self._records_lock:
                if self._records.get(object_id) is record:  # not forgotten meanwhile
                    self._records[object_id] = (unit, start, size, generation)
        return memoryview(data)

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
            self.forget_record(ref.id)
            self._quarantine.forget(ref, lambda tables: tables.drop_entry(ref.id, entry))
            return None
        generation = self._generation
        self._slots[entry.slot & self._mask] = self._mark
        with self._records_lock:
            if len(self._records) >= _MAX_RECORDS:
                self._records.clear()
                self._units.clear()
            unit = self._units.setdefault(entry.unit, entry.unit)
            self._records[ref.id] = (unit, entry.start, ref.size, generation)
        return memoryview(data)[offset : offset + length]

    def _find_blocks(self, ref: ObjectRef, offset: int, length: int) -> memoryview | None:
        """Cut a range out of a mapped file, after its blocks were checked on their first read."""
        file = self._files.get(ref.id)
        if file is not None and file.size == ref.size and (view := file.cut(offset, length)) is not None:
            self._slots[file.slot] = self._mark
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
            self._quarantine.forget_file(ref, entry)
            return None
        self._slots[file.slot] = self._mark
        return file.cut(offset, length)

    def _is_good(self, ref: ObjectRef, file: BlockFile, block: int, crc: bytes | None) -> bool:
        if crc is None:
            return False
        if file.verified[block]:
            return True
        if self.family_marks.has(file.unit, block):
            file.trust(block, crc)
            return True
        if file.check_block(ref.id, block, crc):
            self.family_marks.add(file.unit, block)
            return True
        self._quarantine.forget(ref, lambda tables: tables.drop_part(file.unit, block))
        return False

    def _let_go(self) -> None:
        self._generation = self._words[0]  # first: what is evicted from here on makes us come again
        self._mark = self._visited.now
        try:
            self._index.refresh()  # another process may have made a new one
            self._shelf.drop_evicted(self._index)
        except (OSError, lmdb.Error) as error:
            self.fail(error)
