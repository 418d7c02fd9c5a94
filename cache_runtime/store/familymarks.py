"""Which blocks were checked by this process and its relatives by fork: a forked worker need not check them again."""

from __future__ import annotations

import mmap

_SLOTS = 1 << 18  # 2 MiB of addresses; memory only for the pages that are used
_BLOCK_BITS = 24
_WORD = 0xFFFFFFFFFFFFFFFF
_MULTIPLIER = 0x9E3779B97F4A7C15  # of Fibonacci hashing: neighbours go to slots that are far apart


class FamilyMarks:
    """Marks in memory that forks share, made by the process that opened the store; never on a disk, never pickled.

    What a mark says is what `BlockFile.verified` says: that the block's bytes, in the page cache that all of them
    read, had the checksum of the index: one of them checked it, or wrote it. Two blocks may want one slot: then one of
    them is checked once more.
    """

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots = memoryview(mmap.mmap(-1, 8 * _SLOTS)).cast("Q")

    def has(self, unit: int, block: int) -> bool:
        """Say whether one of the family has checked a block."""
        mark = _mark(unit, block)
        return self._slots[_slot(mark)] == mark

    def add(self, unit: int, block: int) -> None:
        """Tell the family that a block was checked."""
        mark = _mark(unit, block)
        self._slots[_slot(mark)] = mark  # one aligned word: others see all of it or nothing

    def discard(self, unit: int, block: int) -> None:
        """Take a mark back: the block was found damaged, and other bytes may come to its place."""
        mark = _mark(unit, block)
        if self._slots[_slot(mark)] == mark:
            self._slots[_slot(mark)] = 0


def _mark(unit: int, block: int) -> int:
    return (unit << _BLOCK_BITS | block) + 1 & _WORD


def _slot(mark: int) -> int:
    return (mark * _MULTIPLIER & _WORD) >> 46
