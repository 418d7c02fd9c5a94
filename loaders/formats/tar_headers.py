"""The headers of a tar's members: those of `versioning.tarfiles`, made in a third of the time for many alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loaders.errors import SampleError
from versioning import InvalidNameError
from versioning.tarfiles import member_header

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME_BYTES = 100
_KEPT_SIZES = 4096
_PLAIN = member_header("x", 0)
_OWNER, _TIME, _REST = _PLAIN[100:124], _PLAIN[136:148], _PLAIN[156:]  # around the size and the checksum
_SUMMED = sum(_OWNER) + sum(_TIME) + sum(_REST) + 8 * ord(" ")  # the checksum counts itself as spaces
_HEADER = b"%b%b%b" + _TIME + b"%06o\0 %b"  # one step for all parts: joining them takes twice as long


class TarHeaders:
    """Makes headers; remembers what it knows of fields and sizes."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, int], tuple[bytes, int]] = {}
        self._sizes: dict[int, tuple[bytes, int]] = {}

    def of_sample(self, key: str, fields: Sequence[str], values: Sequence[bytes]) -> list[bytes]:
        """Return the headers of a sample's members.

        Raises:
            SampleError: If a tar cannot hold one.
        """
        if not key.isascii():
            return [self.header(f"{key}.{field}", len(value)) for field, value in zip(fields, values, strict=True)]
        front = key.encode()
        front_sum, length = sum(front), len(front)
        headers: list[bytes] = []
        for field, value in zip(fields, values, strict=True):
            end, end_sum = self._ends.get((field, length)) or self._end(field, length)
            if not end:
                headers.append(self.header(f"{key}.{field}", len(value)))
                continue
            digits, digits_sum = self._sizes.get(len(value)) or self._size(len(value), field)
            headers.append(_HEADER % (front, end, digits, front_sum + end_sum + digits_sum, _REST))
        return headers

    def _end(self, field: str, length: int) -> tuple[bytes, int]:
        """Return what follows a key of some length up to the size, and its sum; nothing if the name is no plain one."""
        name = f".{field}".encode()
        left = _NAME_BYTES - length - len(name)
        if left < 0 or not field.isascii():
            self._ends[field, length] = b"", 0
        else:
            self._ends[field, length] = b"".join((name, bytes(left), _OWNER)), sum(name) + _SUMMED
        return self._ends[field, length]

    def _size(self, size: int, field: str) -> tuple[bytes, int]:
        digits = self.header(f"x.{field}", size)[124:136] if size >= 1 << 33 else b"%011o\0" % size
        if len(self._sizes) >= _KEPT_SIZES:
            self._sizes.clear()
        self._sizes[size] = digits, sum(digits)
        return self._sizes[size]

    def header(self, name: str, size: int) -> bytes:
        """Return the header of any member.

        Raises:
            SampleError: If a tar cannot hold it.
        """
        try:
            return member_header(name, size)
        except InvalidNameError as error:
            raise SampleError(f"a tar cannot hold {name!r}: {error}") from error
