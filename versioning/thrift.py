"""Reading Thrift's compact protocol, in which Parquet describes itself; nothing in it is believed.

pyarrow ends the process on some damaged descriptions (a C++ exception that nobody catches), and tells nothing of pages.
"""

from __future__ import annotations

from typing import Any

_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_MAX_DEPTH = 12
_MAX_LENGTH = 1 << 20


class Compact:
    """Reads structs, one after the other.

    Args:
        data: What they are in.
        position: Where the first begins; then where the last one ended.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of the next struct by number: integers, lists and structs; texts and others as None.

        Raises:
            ValueError: If it is none, or goes beyond the data.
        """
        if depth > _MAX_DEPTH:
            raise ValueError("a description is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self._integer()
            if number in fields:  # others may believe the first one, and we the last
                raise ValueError("a description has a field twice")
            fields[number] = kind == 1 if kind in _BOOLEANS else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _LISTS:
            return self._list(depth)
        if kind not in (_BINARY, _DOUBLE, _BYTE, *_BOOLEANS):  # maps: Parquet has none
            raise ValueError("a description has a field of an unknown type")
        skipped = self._varint() if kind == _BINARY else 8 if kind == _DOUBLE else 1
        self.position += skipped
        return None

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._varint()
        if length > _MAX_LENGTH:
            raise ValueError("a list in a description is too long")
        return [self._value(head & 15, depth + 1) for _ in range(length)]

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number in a description is too long")

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise ValueError("a description goes beyond the file")
        self.position += 1
        return self._data[self.position - 1]
