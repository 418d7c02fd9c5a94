"""A whole permutation at once, by sorting hashes: a tenth of what `loaders.order.permute` costs, in O(size) memory."""

from __future__ import annotations

from math import gcd

import numpy as np
import numpy.typing as npt

from loaders.order import mix

Indices = npt.NDArray[np.int64]

SHORT = 1 << 16
"""Up to so many elements, one pass over 16 bits of hash tells nearly all of them apart."""


_CHUNK = 1 << 14  # fits a core's cache: half of the time of hashing a million at once


def hashed_order(size: int, key: int) -> Indices:
    """Return a permutation of [0, size), by sorting numbers by 16 bits of their hash, equal ones by the number.

    It is a radix sort, which numpy has for 16 bits; its other sorts take four times as long. With more than `SHORT`
    elements many are equal, and what was sorted are places in a stride through the elements: they are not neighbours.

    Args:
        size: Number of elements.
        key: 64 bits; another key is another permutation.
    """
    order = coarse_order(size, key)
    if size <= SHORT:
        return order
    stride = size * 5 // 8 + key % (size // 8)
    while gcd(stride, size) > 1:
        stride += 1
    return order * stride % size


def coarse_order(size: int, key: int) -> Indices:
    """Return a permutation by 16 bits of hash, however many elements there are; equal ones keep their order.

    Good enough to deal shards out into lanes, which shuffle again.

    Args:
        size: Number of elements.
        key: 64 bits; another key is another permutation.
    """
    high = np.empty(size, dtype=np.uint16)
    for start in range(0, size, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, size), dtype=np.uint64)
        high[start : start + _CHUNK] = mix(numbers, np.uint64(key)) >> np.uint64(48)
    return np.argsort(high, kind="stable")
