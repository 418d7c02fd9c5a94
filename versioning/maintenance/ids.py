"""Sets of object ids that stay small: sixteen bytes for each, in sorted arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from versioning.columns import Mask

Ids: TypeAlias = "NDArray[np.uint8]"
"""Whole ids: one row of 32 bytes for each."""
_Words: TypeAlias = "NDArray[np.uint64]"

ID_BYTES = 32
_BUCKETS = 256
_LOOSE_IDS = 1 << 16  # so many wait outside of the buckets, or an eighth of all; each move copies every bucket
_SIZE_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that two sizes never give the same product


def ids_of(values: Iterable[bytes]) -> Ids:
    """Turn ids of 32 bytes into rows."""
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, ID_BYTES)


def ids_of_hex(values: Iterable[str]) -> Ids:
    """Turn ids of 64 hex digits into rows."""
    return ids_of(bytes.fromhex(value) for value in values)


def ids_with_sizes(ids: Ids, sizes: NDArray[np.int64]) -> Ids:
    """Mix the size of an object into its id, so that a set of ids tells both."""
    words = ids.copy().view(">u8").astype(np.uint64)
    words[:, 1] ^= sizes.astype(np.uint64) * _SIZE_FACTOR
    return words.astype(">u8").view(np.uint8)


class IdSet:
    """A set of ids. Two ids whose first 128 bits are equal count as one: nobody can make two such hashes.

    Most of it lies in one pair of sorted arrays for each first byte; what came last lies in a few sorted runs, of
    which each is at most half as long as the one before.
    """

    def __init__(self) -> None:
        empty = np.empty(0, np.uint64)
        self._buckets: list[_Run] = [_Run(empty, empty)] * _BUCKETS
        self._runs: list[_Run] = []
        self._settled = 0

    def __len__(self) -> int:
        return self._settled + sum(len(run.high) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Memory that the ids take, bytes."""
        return 16 * len(self)

    def contains(self, ids: Ids) -> Mask:
        """Say for each id whether it is in the set."""
        high, low = _words(ids)
        order = np.argsort(high)
        found = np.empty(len(high), np.bool_)
        found[order] = self._contains(high[order], low[order])
        return found

    def add(self, ids: Ids) -> Mask:
        """Put ids in; say for each whether it was new, which of equal ones only the first is."""
        high, low = _words(ids)
        order = np.lexsort((low, high))  # stable: of equal ids the first comes first
        high, low = high[order], low[order]
        new = np.ones(len(high), np.bool_)
        new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        new &= ~self._contains(high, low)
        self._append(_Run(high[new], low[new]))
        result = np.empty(len(high), np.bool_)
        result[order] = new
        return result

    def _contains(self, high: _Words, low: _Words) -> Mask:
        found = np.zeros(len(high), np.bool_)
        for run in self._runs:
            found |= run.contains(high, low)
        if self._settled:
            for bucket, start, end in _slices(high):
                found[start:end] |= self._buckets[bucket].contains(high[start:end], low[start:end])
        return found

    def _append(self, run: _Run) -> None:
        if not len(run.high):
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2].high) < 2 * len(self._runs[-1].high):
            last = self._runs.pop()
            self._runs[-1] = self._runs[-1].merged_with(last)
        if len(self) - self._settled > max(_LOOSE_IDS, self._settled // 8):
            self._settle()

    def _settle(self) -> None:
        while self._runs:
            run = self._runs.pop()
            for bucket, start, end in _slices(run.high):
                part = _Run(run.high[start:end].copy(), run.low[start:end].copy())
                self._buckets[bucket] = self._buckets[bucket].merged_with(part)
            self._settled += len(run.high)


class _Run:
    """Ids in order of their first eight bytes."""

    __slots__ = ("high", "low")

    def __init__(self, high: _Words, low: _Words) -> None:
        self.high = high
        self.low = low

    def contains(self, high: _Words, low: _Words) -> Mask:
        found = np.zeros(len(high), np.bool_)
        if not len(self.high):
            return found
        at = np.searchsorted(self.high, high)
        left = np.arange(len(high))
        while len(left):  # ends at once, unless ids share their first 64 bits
            inside = at < len(self.high)
            left, at = left[inside], at[inside]
            same = self.high[at] == high[left]
            left, at = left[same], at[same]
            hit = self.low[at] == low[left]
            found[left[hit]] = True
            left, at = left[~hit], at[~hit] + 1
        return found

    def merged_with(self, other: _Run) -> _Run:
        if not len(self.high):
            return other
        high = np.concatenate((self.high, other.high))
        order = np.argsort(high, kind="stable")  # quick on two runs
        return _Run(high[order], np.concatenate((self.low, other.low))[order])


def _words(ids: Ids) -> tuple[_Words, _Words]:
    words = np.ascontiguousarray(ids[:, :16]).view(">u8").astype(np.uint64)
    return words[:, 0].copy(), words[:, 1].copy()


def _slices(high: _Words) -> list[tuple[int, int, int]]:
    """Return bucket, start and end of each bucket that sorted words fall into."""
    first: NDArray[Any] = (high >> np.uint64(56)).astype(np.int64)
    edges = np.flatnonzero(np.diff(first)) + 1
    starts = [0, *edges.tolist()] if len(first) else []
    ends = [*edges.tolist(), len(first)]
    return [(int(first[start]), start, end) for start, end in zip(starts, ends, strict=False)]
