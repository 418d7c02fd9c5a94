"""Where many members lie in one tar, and the bytes around them, made for all members at once. Pure.

The bytes are those that `tarfiles` makes one by one; this is its fast path for a whole pack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from versioning.errors import InvalidNameError
from versioning.tarfiles import BLOCK, END, MAX_MEMBER_BYTES, NAME_BYTES, member_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

pc: Any = pyarrow.compute
Int64Array = npt.NDArray[np.int64]

_SIZE, _CHECKSUM = 124, 148  # offsets of the fields in a header
_SIZE_DIGITS, _CHECKSUM_DIGITS = 11, 6
_MEMBERS = 4096  # headers that are made at once: 2 MiB, which stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class TarLayout:
    """A tar of named members of known sizes. Make one with `of`.

    Attributes:
        names: Of the members.
        sizes: Of the members, bytes.
        offsets: Where the bytes of each member begin.
        size: Of the whole tar, its end included.
    """

    names: Sequence[str]
    sizes: Int64Array
    offsets: Int64Array
    size: int
    _starts: Int64Array = field(repr=False)
    _headers: dict[int, bytes] = field(repr=False)
    _has_end: bool = field(default=True, repr=False)

    @classmethod
    def of(cls, names: Sequence[str], sizes: Int64Array) -> TarLayout:
        """Lay members out, in this order.

        Raises:
            InvalidNameError: As `tarfiles.member_header`.
        """
        short = _are_short(names)
        if len(sizes) and not 0 <= int(sizes.min()) <= int(sizes.max()) <= MAX_MEMBER_BYTES:
            short &= (sizes >= 0) & (sizes <= MAX_MEMBER_BYTES)  # the others are refused one by one
        headers = {row: member_header(names[row], int(sizes[row])) for row in np.flatnonzero(~short).tolist()}
        lengths = np.full(len(sizes), BLOCK, np.int64)
        lengths[list(headers)] = [len(header) for header in headers.values()]
        ends = np.cumsum(lengths + -(-sizes // BLOCK) * BLOCK)
        starts = np.append(0, ends[:-1]) if len(ends) else ends
        size = (int(ends[-1]) if len(ends) else 0) + len(END)
        return cls(names, sizes, starts + lengths, size, starts, headers)

    def part(self, first: int, last: int) -> TarLayout:
        """Return the members [first, last) as a layout of its own, which begins with the first one's header.

        Parts one after the other are the whole; the last one has the end.
        """
        is_last = last == len(self.sizes)
        begin = int(self._starts[first]) if first < len(self.sizes) else self.size - len(END)
        return TarLayout(
            self.names[first:last],
            self.sizes[first:last],
            self.offsets[first:last] - begin,
            (self.size if is_last else int(self._starts[last])) - begin,
            self._starts[first:last] - begin,
            {row - first: header for row, header in self._headers.items() if first <= row < last},
            is_last,
        )

    def write_frame(self, buffer: Buffer) -> None:
        """Write all that is not members' bytes: headers, padding, the end.

        Args:
            buffer: At least `size` bytes; what lies behind them stays.
        """
        blocks = np.frombuffer(memoryview(buffer), np.uint8)[: self.size].reshape(-1, BLOCK)
        ends = self.offsets + self.sizes
        blocks[ends[ends % BLOCK > 0] // BLOCK] = 0  # last blocks, which their members' bytes do not fill
        if self._has_end:
            blocks[-len(END) // BLOCK :] = 0
        rows = np.arange(len(self.sizes))
        if self._headers:
            rows = np.setdiff1d(rows, list(self._headers), assume_unique=True)
        for first in range(0, len(rows), _MEMBERS):
            some = rows[first : first + _MEMBERS]
            blocks[self._starts[some] // BLOCK] = _headers([self.names[row] for row in some], self.sizes[some])
        flat = blocks.reshape(-1)
        for row, header in self._headers.items():
            start = int(self._starts[row])
            flat[start : start + len(header)] = np.frombuffer(header, np.uint8)


def _are_short(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Say which names fit into a header's first field as they are."""
    try:
        text: Any = pa.array(names, pa.large_string())
    except UnicodeEncodeError as error:
        raise InvalidNameError(str(error.object), what="pack member", reason="it is not valid Unicode") from error
    lengths = pc.binary_length(text).to_numpy()
    odd = pc.or_(pc.ends_with(text, "/"), pc.match_substring(text, "\0"))
    plain = pc.and_not(pc.string_is_ascii(text), odd).to_numpy(zero_copy_only=False)
    found: npt.NDArray[np.bool_] = plain & (lengths > 0) & (lengths <= NAME_BYTES)
    return found


def _headers(names: list[str], sizes: Int64Array) -> npt.NDArray[np.uint8]:
    """Return a row of `BLOCK` bytes for each of some names that are short."""
    made = np.tile(np.frombuffer(_TEMPLATE, np.uint8), (len(names), 1))
    made[:, :NAME_BYTES] = np.array(names, f"S{NAME_BYTES}").view(np.uint8).reshape(-1, NAME_BYTES)
    _write_octal(made, _SIZE, sizes, _SIZE_DIGITS)
    sums = sum(_TEMPLATE) + made[:, :NAME_BYTES].sum(axis=1, dtype=np.uint32)
    sums += made[:, _SIZE : _SIZE + _SIZE_DIGITS].sum(axis=1, dtype=np.uint32) - _SIZE_DIGITS * ord("0")
    _write_octal(made, _CHECKSUM, sums, _CHECKSUM_DIGITS)
    made[:, _CHECKSUM + _CHECKSUM_DIGITS] = 0  # behind the checksum; it counted itself as eight spaces
    return made


def _write_octal(blocks: npt.NDArray[np.uint8], at: int, numbers: npt.NDArray[Any], digits: int) -> None:
    shifts = np.arange(digits - 1, -1, -1) * 3
    blocks[:, at : at + digits] = (numbers[:, None] >> shifts & 7) + ord("0")


def _template() -> bytes:
    """Return the header of a file without its name, and with spaces for its checksum."""
    header = member_header("x", 0)
    return bytes(NAME_BYTES) + header[NAME_BYTES:_CHECKSUM] + b" " * 8 + header[_CHECKSUM + 8 :]


_TEMPLATE = _template()
