"""The lending half of a store's reading: bytes for a socket, which go to the kernel or are copied once."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cache_runtime.store.layout import RECORD_HEADER, SMALL_BYTES
from cache_runtime.store.reading import StoreReader
from cache_runtime.store.shelf import Lent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sources import ObjectRef

_preadv = os.preadv
_IF_IN_MEMORY = os.RWF_NOWAIT
_HEADER_BYTES = RECORD_HEADER.size


class StoreLender(StoreReader):
    """What of `BlockStore` serves others: a worker's answers."""

    def lend_records(self, object_ids: Sequence[bytes], sizes: Sequence[int]) -> list[memoryview] | None:
        """Return what `copy_records` copies, in mappings of the slabs, or None.

        Give them to the kernel, and never look into them: a file that was cut ends the process that does. Whether they
        are in memory is not known.
        """
        records, slabs, generation = self._records, self._slabs, self._words[0]
        lent = []
        try:
            for object_id, size in zip(object_ids, sizes, strict=True):
                unit, start, found, marked = records[object_id]
                if marked != generation or found != size:
                    return None
                slab, end = slabs[unit], start + size
                view = slab.view
                if (view is None or len(view) < end) and (view := slab.map(end)) is None:
                    return None
                lent.append(view[start - _HEADER_BYTES : end])
        except KeyError:
            return None
        return lent

    def copy_records(self, object_ids: Sequence[bytes], sizes: Sequence[int], into: memoryview) -> int:
        """Copy the records of whole small objects, one after the other, if that takes microseconds: for an event loop.

        A record is its header (`layout.RECORD_HEADER`), with the checksum that it was stored with, and the object's
        bytes. This process checked it once, but not now: that is up to whoever gets it.

        Args:
            object_ids: Of small objects.
            sizes: Theirs.
            into: Room for all of them.

        Returns:
            Bytes that were copied; 0 unless each was read here since something was evicted last, and is in memory.
        """
        records, slabs, generation = self._records, self._slabs, self._words[0]
        end = 0
        try:
            for object_id, size in zip(object_ids, sizes, strict=True):
                unit, start, found, marked = records[object_id]
                if marked != generation or found != size:
                    return 0
                slab = slabs[unit]  # held, as in `recall`
                begin, end = end, end + _HEADER_BYTES + size
                if _preadv(slab.fd, (into[begin:end],), start - _HEADER_BYTES, _IF_IN_MEMORY) != end - begin:
                    return 0
        except (KeyError, BlockingIOError):
            return 0
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # some file systems have no such reads
                self.fail(error)
            return 0
        return end

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
