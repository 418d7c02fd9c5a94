"""The on-disk format: names, sizes and the bytes of each row.

    FORMAT               the format's number in ASCII
    index.lmdb[-lock]    objects, units, parts, meta (below)
    index.lmdb-clean     the mark of a flushed index, see `cleanmark.py`
    boot                 the kernel's boot id when the index was opened last: unflushed pages end with a boot
    slabs/<unit>.slab    records of whole objects, appended: RECORD_HEADER, then the object's bytes; a full slab ends
                         with a footer, see `footers.py`
    files/<aa>/<unit>-<object id>   one sparse file for each larger object, filled block by block
    checksums/<aa>/<unit>-<object id>   what is known of that file, see `sidecars.py`
    visited.map          generation and mark, 8 bytes each (padded to a page); one byte per entry slot; ghosts, see
                         `ghosts.py`
    pins                 what is pinned, for the day on which the index is lost, see `pinfile.py`
    announced/<name>     what a process reads next, see `coming.py`; some 200 KiB for each one that announces
    locks                no bytes; ranges of it are locked (see `locks.py`)

Other names are not the cache's: it neither counts nor removes what they name.

A unit is what is evicted at once: a slab, or the file of one large object. Its number is never used again, so a path
names the same bytes for ever.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, NewType

import google_crc32c
import numpy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Buffer

FORMAT = 3
SMALL_BYTES = 1 << 20
"""Objects up to this size are cached whole, in a slab."""
BLOCK_SHIFT = 22
BLOCK_BYTES = 1 << BLOCK_SHIFT
"""Larger objects are cached in blocks of this size; the last one may be shorter."""
RUN_BLOCKS = 4
"""Most neighbouring blocks that one origin request fetches (16 MiB)."""
MAX_SLAB_BYTES = 64 << 20
MIN_CAPACITY_BYTES = 32 << 20
_PAGE_BYTES = 4096

Unit = NewType("Unit", int)

SLAB, SEALED_SLAB, FILE, CONDEMNED = 0, 1, 2, 3
"""Kinds of a unit: a slab that may grow, a slab that is full, the file of one large object, and what is charged to an
evicted one until its file is unlinked."""

RECORD_HEADER = Struct("<4s16sII4x")
"""Magic, object id, length, crc32c of object id and bytes."""
RECORD_MAGIC = b"FBR1"

ENTRY = Struct("<QIIIQ")
"""Row of `objects`, keyed by object id: unit, the record's offset and that of its bytes (0 in a file), slot, size."""
PART_KEY = Struct(">QI")
"""Key of `parts`: unit, and the record's offset (value: object id) or the block's number (value: CRC)."""
CRC = Struct("<I")
UNIT_KEY = Struct(">Q")
UNIT_ROW = Struct("<BQ16sHB")
"""Row of `units`: kind, bytes charged to the capacity, object id (zeros for a slab), share's number, grade."""
COUNTER = Struct("<Q")
"""Value of the counters in `meta`: `used` (bytes charged, all units), `next` (unit), `hand...` (the evictor's next
unit, one for each class of units), `refused` (bytes since the last tick), `ticks` (of the visited map), `pins` (rows),
and `settled` (whether the clean mark may be there)."""
SHARE_KEY = Struct(">5sH")
"""Key in `meta` of a share's row (see `shares.ShareRow`): "share" and its number."""
PIN_PREFIX = b"pin:"
"""Keys in `meta` of pins: this, the object id, the label; no value."""


class BlockRun(NamedTuple):
    """Blocks `first` to `last`, both included, of one object."""

    first: int
    last: int


def checksum(data: Buffer, *seed: bytes) -> int:
    """Return the crc32c of the seed and the bytes, without copying them.

    The seed ties the bytes to their place, so that intact bytes of another object or block fail the check.
    """
    crc = google_crc32c.value(b"".join(seed))
    # the extension takes no memoryview; numpy lends it the same memory
    return int(
        google_crc32c.extend(crc, data if type(data) is bytes else numpy.frombuffer(memoryview(data), numpy.uint8))
    )


def checksums_in(data: Buffer) -> Callable[[int, int, bytes], int]:
    """Return a function that does `checksum` for parts of some memory: start, end, seed; for many parts of it."""
    array = numpy.frombuffer(memoryview(data), numpy.uint8)
    extend, value = google_crc32c.extend, google_crc32c.value
    return lambda start, end, seed: int(extend(value(seed), array[start:end]))


def pins_path(directory: str) -> str:
    """Return the path of the file of pins."""
    return f"{directory}/pins"


def slot_of(object_id: bytes) -> int:
    """Return the object's place in `visited.map`, before it is masked to the map's size."""
    return int.from_bytes(object_id[:4], "little")


def disk_bytes(size: int) -> int:
    """Return what a file system allocates for bytes that begin at a block border."""
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES


def slab_bytes(capacity_bytes: int) -> int:
    """Return how large slabs get: small caches have small ones, so that evicting one does not empty the cache."""
    return min(MAX_SLAB_BYTES, capacity_bytes // 16)


def block_span(run: BlockRun, size: int) -> tuple[int, int]:
    """Return the offset and the length in bytes of blocks of an object of `size` bytes."""
    start = run.first * BLOCK_BYTES
    return start, min((run.last + 1) * BLOCK_BYTES, size) - start


def join_blocks(blocks: Iterable[int], *, limit: int = RUN_BLOCKS) -> Iterator[BlockRun]:
    """Join neighbours among ascending block numbers into runs of at most `limit` blocks."""
    first = last = -1
    for block in blocks:
        if first >= 0 and (block != last + 1 or block - first >= limit):
            yield BlockRun(first, last)
            first = block
        elif first < 0:
            first = block
        last = block
    if first >= 0:
        yield BlockRun(first, last)
