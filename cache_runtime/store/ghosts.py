"""Ghosts: why an object that is asked for is not there, as far as a small lossy map remembers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

GHOST_BYTES = 4
_REASON_BITS = 3


class MissReason(StrEnum):
    """Why a read found nothing in the store."""

    NEVER_CACHED = "never_cached"
    """This version of the object was never here, or so long ago that it is forgotten."""
    EVICTED = "evicted"
    NOT_ADMITTED = "not_admitted"
    """There was no room that it may take: see shares, pins and quotas."""
    CORRUPT = "corrupt"
    """Its bytes failed their check and were dropped."""
    STORE_OFF = "store_off"
    """The cache's disk failed; see the status."""


_CODES = {MissReason.EVICTED: 1, MissReason.NOT_ADMITTED: 2, MissReason.CORRUPT: 3}
_REASONS = {code: reason for reason, code in _CODES.items()}


class GhostMap:
    """One word per slot: a part of an object's id and why it is not there. Later ghosts overwrite earlier ones.

    A wrong reason is possible (one in 2^29 for objects that share a slot), a wrong byte is not: nobody decides by it.
    Words are stored at once, so processes need no lock.

    Args:
        words: Shared memory, 32 bits a word, a power of two of them.
    """

    __slots__ = ("_mask", "_words")

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._mask = len(words) - 1

    def note(self, object_ids: Iterable[bytes], reason: MissReason) -> None:
        """Remember why objects are not there."""
        code = _CODES[reason]
        words, mask = self._words, self._mask
        for object_id in object_ids:
            words[_slot(object_id) & mask] = _print(object_id) | code

    def reason(self, object_id: bytes) -> MissReason:
        """Tell why an object is not there."""
        word = self._words[_slot(object_id) & self._mask]
        found = _REASONS.get(word & 7) if word >> _REASON_BITS == _print(object_id) >> _REASON_BITS else None
        return found or MissReason.NEVER_CACHED


def _slot(object_id: bytes) -> int:
    return int.from_bytes(object_id[4:8], "little")


def _print(object_id: bytes) -> int:
    return int.from_bytes(object_id[8:12], "little") & 0xFFFFFFF8
