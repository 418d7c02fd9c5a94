"""Blocks of one object as they arrive, from one worker after another: what came, and what of it is proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

from cache_runtime.store.blockfiles import block_checksum
from cache_runtime.store.layout import BLOCK_BYTES, SMALL_BYTES, BlockRun, block_span, checksum

if TYPE_CHECKING:
    from cache_runtime.protocol import BlockSums
    from sources import ObjectRef


class Download:
    """A buffer for neighbouring blocks, filled from its start.

    Attributes:
        ref: The object.
        run: The blocks.
        offset, length: Their place in the object, bytes.
        data: The buffer.
        received: Bytes of it that have come.
        proven: Bytes of it, whole blocks, that have passed their check.
        crcs: Checksums of the proven blocks, in order, as `NodeStore.put` takes them.
        single: Whether to ask for one block at a time, because the worker knows no more checksums before it sends.
    """

    def __init__(self, ref: ObjectRef, run: BlockRun) -> None:
        self.ref = ref
        self.run = run
        self.offset, self.length = block_span(run, ref.size)
        # not a bytearray, which would be written with zeros first
        self.data = numpy.empty(self.length, numpy.uint8).data
        self.received = 0
        self.proven = 0
        self.crcs: list[int] = []
        self.single = False
        self._sums: dict[int, int] = {}

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come and is proven."""
        return self.proven == self.length

    def next_range(self) -> tuple[int, int]:
        """Return offset and length, in the object, of what to ask for next."""
        stop = self.length
        if self.single:
            stop = min(stop, (self.received // BLOCK_BYTES + 1) * BLOCK_BYTES)
        return self.offset + self.received, stop - self.received

    def note(self, sums: BlockSums | None) -> None:
        """Remember what the blocks' checksums are said to be."""
        if sums is not None:
            self._sums.update(enumerate(sums.crcs, start=sums.first))

    def lacks_sums(self) -> bool:
        """Say whether a block has come whole whose checksum is not known."""
        first = self.run.first + self.proven // BLOCK_BYTES
        return any(block not in self._sums for block in range(first, first + self._whole_blocks()))

    def prove(self) -> bool:
        """Check what has come, as far as checksums are known; False if a block is not what it should be.

        From the first block that is bad or unknown on, what has come counts as not received.
        """
        good = True
        for _ in range(self._whole_blocks()):
            block = self.run.first + self.proven // BLOCK_BYTES
            expected = self._sums.get(block)
            data = self.data[self.proven : self.proven + BLOCK_BYTES]
            if expected is None:
                self.received = self.proven
                break
            if self._sum(block, data) != expected:
                del self._sums[block]
                self.received = self.proven
                good = False
                break
            self.crcs.append(expected)
            self.proven += len(data)
        return good

    def keep_proven(self) -> None:
        """Forget what is not proven: the next ones give it no checksum that would fit."""
        self.received = self.proven

    def _whole_blocks(self) -> int:
        """Count blocks that have come whole and are not proven."""
        fresh = self.received - self.proven
        return -(-fresh // BLOCK_BYTES) if self.received == self.length else fresh // BLOCK_BYTES

    def _sum(self, block: int, data: memoryview) -> int:
        if self.ref.size <= SMALL_BYTES:
            return checksum(data, self.ref.id)
        return block_checksum(self.ref.id, block, data)
