"""The reading half of a store: a hit takes no lock and no transaction."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import lmdb

from cache_runtime.stats import ReadStats
from cache_runtime.store.layout import BLOCK_SHIFT, SMALL_BYTES
from cache_runtime.store.shelf import Lent, Shelf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from cache_runtime.store.blockfiles import BlockFile
    from cache_runtime.store.index import Index
    from cache_runtime.store.quarantine import Quarantine
    from cache_runtime.store.visited import VisitedMap
    from sources import Location, ObjectRef

    CheckedRecord: TypeAlias = tuple[int, int, int, int]

_MAX_RECORDS = 1 << 18  # some 60 MB in each process that reads as many small objects
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
    """

    _quarantine: Quarantine

    def __init__(self, directory: str, index: Index, visited: VisitedMap) -> None:
        self.directory = directory
        self.stats = ReadStats()
        self._index = index
        self._unreadable = False
        self._shelf = Shelf(directory)
        self._records: dict[bytes, CheckedRecord] = {}  # checked ones: unit, start, masked slot, size
        self._slabs, self._files = self._shelf.slabs, self._shelf.files
        self._words, self._slots, self._mask = visited.words, visited.slots, visited.mask
        self._visited = visited
        self._generation, self._mark = self._words[0], visited.now

    @abstractmethod
    def fail(self, error: OSError | lmdb.Error) -> None:
        """Take note of what a failing disk raised."""

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
                        self._slots[slot] = self._mark
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
        files, slots, mark = self._files, self._slots, self._mark
        for location in locations:
            ref = location.object
            offset = location.offset
            file = files.get(ref.id)
            if file is not None and file.size == ref.size and (view := file.view) is not None:
                # the usual case of `find`, without its calls: a record of a shard, in one verified block
                end = offset + location.length
                block = offset >> BLOCK_SHIFT
                if file.verified[block] and (end - 1) >> BLOCK_SHIFT == block:
                    slots[file.slot] = mark
                    found.append(view[offset:end])
                    continue
            found.append(self.find(ref, offset, location.length))
        return found

    def lend(self, ref: ObjectRef, start: int, length: int, *, checked_only: bool = False) -> Lent | None:
        """Return where a range lies on disk, for `sendfile`, if all of it is cached and its blocks pass their check.

        Counts as a read of the object. The bytes stay what they are for as long as the result lives, also after
        eviction.

        Args:
            ref: The object.
            start: Start of a range inside of the object; not checked again.
            length: Its length, not 0.
            checked_only: Answer None rather than read and check bytes for the first time: for an event loop.
        """
        if checked_only and not self._is_checked(ref, start, length):
            return None
        if self.find(ref, start, length if ref.size > SMALL_BYTES else 1) is None:
            return None
        try:
            if ref.size > SMALL_BYTES:
                file = self._files.get(ref.id)
                if file is None or file.cut(start, length) is None:  # evicted and filled anew since we looked
                    return None
                return Lent(file.lent or self._shelf.open_lent(file), start, length)
        except FileNotFoundError:  # evicted since we looked
            return None
        except OSError as error:
            self.fail(error)
            return None
        record = self._records.get(ref.id)
        slab = None if record is None else self._slabs.get(record[0])
        return None if record is None or slab is None else Lent(slab, record[1] + start, length)

    def _is_checked(self, ref: ObjectRef, start: int, length: int) -> bool:
        """Say whether this process has compared a range with its checksums, so that `find` reads no block for it."""
        if ref.size <= SMALL_BYTES:
            record = self._records.get(ref.id)
            return record is not None and record[0] in self._slabs
        file = self._files.get(ref.id)
        return file is not None and file.size == ref.size and file.cut(start, length) is not None

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
            self._quarantine.forget(ref, lambda tables: tables.drop_entry(ref.id, entry))
            return None
        slot = entry.slot & self._mask
        self._slots[slot] = self._mark
        if len(self._records) >= _MAX_RECORDS:
            self._records.clear()
        self._records[ref.id] = (entry.unit, entry.start, slot, entry.size)
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
        if file.verified[block] or file.check_block(ref.id, block, crc):
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
