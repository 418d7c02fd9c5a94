"""The order of an epoch as a pure function of (seed, epoch, position).

Nothing is shuffled in memory: a position is mapped to a sample by a keyed permutation, so any position of any epoch
costs the same, starting an epoch costs nothing, and every process that knows the few numbers computes the same order.

The permutation is an alternating Feistel network on Z_a x Z_b with a = ceil(sqrt n) and b = ceil(n / a) (Black and
Rogaway, "Ciphers with arbitrary finite domains", 2002), walked again where it leaves [0, n): at most one value in
sqrt(n) does. Its round function is the splitmix64 finaliser (Steele, Lea and Flood, 2014), written out here because
the streams of numpy's generators may change between numpy versions (NEP 19). These numbers are a format: a saved state
is resumed by a later version of this file, so what it computes never changes (`tests/loaders/test_order.py` pins it).

The order `stream`, which knows shards, is in `loaders.ordering`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

OrderMode = Literal["none", "runs", "full"]
"""How an epoch is ordered.

`none`: storage order. `full`: every order of samples is possible. `runs`: runs of 64 neighbours are permuted over the
whole data set, then samples inside windows of 64 such runs, so that data larger than memory is read in long ranges.
"""

RUN = 64
WINDOW = 64 * RUN

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_ROUNDS = 8  # four on each half; the order of ten samples already looks shuffled with six
_MAX_SAMPLES = 1 << 62

_Words = npt.NDArray[np.uint64]
_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Order:
    """The order of one epoch.

    Attributes:
        n: Number of samples; positions and samples are both [0, n).
        seed: Any integer; only its low 64 bits count.
        epoch: Epoch number, from 0.
        mode: See `OrderMode`.
    """

    n: int
    seed: int = 0
    epoch: int = 0
    mode: OrderMode = "full"

    def __post_init__(self) -> None:
        if not 0 <= self.n < _MAX_SAMPLES:
            raise ValueError(f"an order of {self.n} samples is not supported; expected 0 to 2**62")
        if self.epoch < 0:
            raise ValueError(f"epoch is {self.epoch}; epochs count from 0")
        if self.mode not in get_args(OrderMode):
            raise ValueError(f"unknown order mode {self.mode!r}; known: {', '.join(get_args(OrderMode))}")

    def indices(self, start: int, stop: int) -> _Indices:
        """Return the samples at positions [start, stop), int64 of shape (stop - start,).

        Costs O(stop - start) time and memory, wherever `start` is.

        Raises:
            ValueError: If the range leaves [0, n].
        """
        if not 0 <= start <= stop <= self.n:
            raise ValueError(f"positions [{start}, {stop}) are outside of an epoch of {self.n} samples")
        return self.at(np.arange(start, stop, dtype=np.int64))

    def at(self, positions: _Indices) -> _Indices:
        """Return the samples at some positions of [0, n), ascending, in O(len(positions)).

        Args:
            positions: int64, one dimension, ascending; not checked.
        """
        if self.mode == "none" or not positions.size:
            return positions.copy()
        words = positions.astype(np.uint64)
        if self.mode == "full":
            return permute(words, n=self.n, key=self._key(0)).astype(np.int64)
        return self._runs(self._windows(words)).astype(np.int64)

    def _key(self, *parts: int) -> int:
        return stream_key(self.seed, self.epoch, *parts)

    def _windows(self, positions: _Words) -> _Words:
        """Permute ascending positions inside each window of WINDOW positions; the last one is shorter."""
        windows = range(int(positions[0]) // WINDOW, int(positions[-1]) // WINDOW + 1)
        edges = np.arange(windows.start + 1, windows.stop, dtype=np.uint64) * np.uint64(WINDOW)
        parts = np.split(positions, np.searchsorted(positions, edges))
        for number, (window, part) in enumerate(zip(windows, parts, strict=True)):
            first = np.uint64(window * WINDOW)
            size = min(WINDOW, self.n - window * WINDOW)
            parts[number] = permute(part - first, n=size, key=self._key(2, window)) + first
        return np.concatenate(parts)

    def _runs(self, positions: _Words) -> _Words:
        """Permute whole runs. The short run at the end of the data is put between two others, at a hashed place."""
        whole, rest = divmod(self.n, RUN)
        begin = (self._key(3) % (whole + 1)) * RUN
        in_rest = (positions >= begin) & (positions < begin + rest)
        others = np.where(positions >= begin + rest, positions - np.uint64(rest), positions)
        slot = np.where(in_rest, np.uint64(0), others // np.uint64(RUN))
        run = permute(slot, n=whole, key=self._key(1)) if whole else slot
        tail = np.uint64(whole * RUN) + (positions - np.uint64(begin))
        return np.where(in_rest, tail, run * np.uint64(RUN) + others % np.uint64(RUN))


def stream_key(*parts: int) -> int:
    """Fold integers into one 64-bit key; the order of the parts matters."""
    key = 0
    for part in parts:
        key = _mix_int((key + _GOLDEN + (part & _MASK)) & _MASK)
    return key


def permute(values: _Words, *, n: int, key: int) -> _Words:
    """Map each value of [0, n) to its place in the keyed permutation of [0, n).

    Args:
        values: uint64, any shape of one dimension, each < n; not changed.
        n: Size of the domain, at least 1.
        key: 64 bits; another key is another permutation.
    """
    rows = isqrt(n - 1) + 1 if n > 1 else 1
    columns = -(-n // rows)
    keys = [np.uint64(stream_key(key, round_)) for round_ in range(_ROUNDS)]
    result = _feistel(values, rows, columns, keys)
    outside = np.flatnonzero(result >= n)
    while outside.size:
        result[outside] = _feistel(result[outside], rows, columns, keys)
        outside = outside[result[outside] >= n]
    return result


def _feistel(values: _Words, rows: int, columns: int, keys: list[np.uint64]) -> _Words:
    row, column = np.divmod(values, np.uint64(columns))
    for round_, key in enumerate(keys):
        if round_ % 2:
            column = _added(column, _scaled(mix(row, key), columns), columns)
        else:
            row = _added(row, _scaled(mix(column, key), rows), rows)
    return row * np.uint64(columns) + column


def _added(left: _Words, right: _Words, size: int) -> _Words:
    """Add modulo `size`; both terms are below it, so one subtraction is enough."""
    total = left + right
    return np.where(total >= size, total - np.uint64(size), total)


def _scaled(words: _Words, size: int) -> _Words:
    """Map hashes to [0, size) by multiplying their high half; size <= 2**31, so nothing overflows."""
    return ((words >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32)


def mix(words: _Words, key: np.uint64) -> _Words:
    """Hash each word with a key, by the splitmix64 finaliser."""
    mixed = words * np.uint64(_GOLDEN) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _mix_int(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
