"""The members of a tar, found by walking its headers: ustar, pax and GNU long names. Pure.

As `tarfile` reads one, with these differences: what is damaged or cut short is an error wherever it is, and sparse
members and global pax headers that rename members are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

import numpy as np

from loaders.errors import ShardFormatError

if TYPE_CHECKING:
    import builtins

BLOCK = 512
_ZERO = bytes(BLOCK)
_FILES = frozenset(b"\x007" + b"0")  # old and new regular files, contiguous files
_NO_DATA = frozenset(b"123456")  # links, devices, directories, FIFOs: their size field does not count
_LONG_NAME, _LONG_LINK, _SPARSE = b"LKS"
_PAX = frozenset(b"xX")
_GLOBAL = ord("g")
_MAX_EXTENSION_BYTES = 1 << 20
"""Of a pax header or a long name: paths are 4 KiB at most, and a damaged size must not take all memory."""
_OCTAL = b"01234567"
_NO_SUM = 1 << 40  # more than any block sums to
_CHECKED = 2048  # headers whose checksums are compared at once


class Sliceable(Protocol):
    """Bytes with random access, such as `bytes` or a map; a slice beyond the end is short."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: builtins.slice, /) -> bytes: ...


class Members(NamedTuple):
    """The regular files of a tar in their order: names, where their bytes begin, and how many there are."""

    names: list[str]
    offsets: list[int]
    sizes: list[int]


def walk_tar(data: Sliceable, uri: str) -> Members:
    """Find every regular file; reads the headers only.

    Args:
        data: The whole tar.
        uri: Names it in errors.

    Raises:
        ShardFormatError: If it is damaged, ends before its end mark, or has members that have no plain bytes.
    """
    return _Walk(data, uri).run()


class _Walk:
    def __init__(self, data: Sliceable, uri: str) -> None:
        self._data = data
        self._uri = uri
        self._size = len(data)
        self._found = Members([], [], [])
        self._heads: list[bytes] = []  # not compared yet, with where they lie and the sums that they name
        self._places: list[int] = []
        self._sums: list[int] = []

    def run(self) -> Members:
        data, size = self._data, self._size
        names, offsets, sizes = self._found
        position = 0
        while True:
            head = data[position : position + BLOCK]
            if head == _ZERO:
                break
            if len(head) < BLOCK:
                self._check_sums()  # what led here may be damaged
                self._fail(position, "it ends without the two empty blocks that end a tar: it was cut short")
            start = position + BLOCK
            if head[156] in _FILES and head[345] == 0:
                digits = head[124:135]
                try:  # nearly always: eleven octal digits, and a name in UTF-8; `int` takes signs and underscores, too
                    length = self._number(head, 124, position) if digits.strip(_OCTAL) else int(digits, 8)
                    name = head[:100].partition(b"\0")[0].decode()
                except ValueError:
                    length, name = self._number(head, 124, position), _text(head[:100])
                self._note(head, position)
                position = start + (length + 511 & -512)
                if length < 0 or position > size:
                    self._beyond(start, length, name)
                if name[-1:] != "/":  # as old tars write directories
                    names.append(name)
                    offsets.append(start)
                    sizes.append(length)
            else:
                position = self._unusual(head, position)
        self._check_sums()
        return self._found

    def _unusual(self, head: bytes, position: int) -> int:
        """Take a member with extensions, a prefix or no bytes; return where the next one begins."""
        name: str | None = None
        length: int | None = None
        while True:
            self._note(head, position)
            kind, start, stored = head[156], position + BLOCK, self._number(head, 124, position)
            if kind == _SPARSE:
                self._fail(
                    position, "it has a sparse member, whose bytes do not lie in one piece; write it with plain tar"
                )
            if kind not in _PAX and kind not in (_GLOBAL, _LONG_NAME, _LONG_LINK):
                break
            extension = self._extension(position, stored)
            position = start + (stored + 511 & -512)
            if kind == _LONG_NAME:
                name = _text(extension)
            elif kind != _LONG_LINK:
                records = self._records(extension, start, is_global=kind == _GLOBAL)
                name = records["path"].rstrip("/") if "path" in records else name
                length = self._pax_size(records, start, length)
            head = self._data[position : position + BLOCK]
            if kind == _GLOBAL and head == _ZERO:
                return position
            if len(head) < BLOCK or head == _ZERO:
                self._check_sums()
                self._fail(position, "a member's header is missing: it was cut short")
        length = stored if length is None else length
        if kind in _NO_DATA:
            return start
        end = start + (length + 511 & -512)
        name = _ustar_name(head) if name is None else name
        if length < 0 or end > self._size:
            self._beyond(start, length, name)
        if kind in _FILES and name[-1:] != "/":
            self._found.names.append(name)
            self._found.offsets.append(start)
            self._found.sizes.append(length)
        return end

    def _extension(self, position: int, length: int) -> bytes:
        if not 0 <= length <= _MAX_EXTENSION_BYTES:
            self._check_sums()
            self._fail(position, f"a header of {length} bytes for one member; at most {_MAX_EXTENSION_BYTES} are read")
        extension = self._data[position + BLOCK : position + BLOCK + length]
        if len(extension) < length:
            self._beyond(position + BLOCK, length, "pax header")
        return extension

    def _records(self, data: bytes, position: int, *, is_global: bool) -> dict[str, str]:
        """Read pax records: `LENGTH KEYWORD=VALUE` and a newline, LENGTH counting all of them."""
        records: dict[str, str] = {}
        at = 0
        while at < len(data) and data[at] != 0:
            digits, space, _ = data[at : at + 20].partition(b" ")
            length = int(digits) if digits.isdigit() and space else 0
            record = data[at + len(digits) + 1 : at + length]
            keyword, equals, value = record.partition(b"=")
            if length < len(digits) + 3 or at + length > len(data) or not equals or not keyword or value[-1:] != b"\n":
                self._check_sums()
                self._fail(position + at, "a pax header is not made of records")
            records[_text(keyword, whole=True)] = _text(value[:-1], whole=True)
            at += length
        if any(keyword.startswith("GNU.sparse") for keyword in records):
            self._fail(position, "it has a sparse member, whose bytes do not lie in one piece; write it with plain tar")
        if is_global and records.keys() & {"path", "size"}:
            self._fail(position, "a global pax header renames members or changes their sizes")
        return records

    def _pax_size(self, records: dict[str, str], position: int, before: int | None) -> int | None:
        text = records.get("size")
        if text is None:
            return before
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            self._fail(position, f"a pax header says size={text[:20]}")
        return int(text)

    def _number(self, head: bytes, at: int, position: int) -> int:
        """Read a size or checksum field: octal digits, or binary with its first bit set."""
        field = head[at : at + (12 if at == 124 else 8)]
        if field[0] == 0o200:
            return int.from_bytes(field[1:], "big")
        digits = field.partition(b"\0")[0].strip()
        if digits and not digits.strip(_OCTAL):
            return int(digits, 8)
        if digits:
            self._fail(position, "a header has no number where one belongs")
        return 0

    def _note(self, head: bytes, position: int) -> None:
        """Put a header down for `_check_sums`; a sum for each alone would take longer than all the rest."""
        digits = head[148:154]
        named = self._number(head, 148, position) if digits.strip(_OCTAL) else int(digits, 8)
        self._sums.append(min(named, _NO_SUM))
        self._heads.append(head)
        self._places.append(position)
        if len(self._heads) >= _CHECKED:
            self._check_sums()

    def _check_sums(self) -> None:
        heads = np.frombuffer(b"".join(self._heads), np.uint8).reshape(-1, BLOCK)
        found = heads.sum(axis=1, dtype=np.int64) - heads[:, 148:156].sum(axis=1, dtype=np.int64) + 8 * ord(" ")
        for number in np.flatnonzero(found != np.array(self._sums, dtype=np.int64)).tolist():
            signed = heads[number].view(np.int8)  # as some old writers sum
            other = int(signed.sum(dtype=np.int64) - signed[148:156].sum(dtype=np.int64)) + 8 * ord(" ")
            if other != self._sums[number]:
                self._fail(self._places[number], "a header's checksum is wrong")
        self._heads, self._places, self._sums = [], [], []

    def _beyond(self, start: int, length: int, name: str) -> NoReturn:
        self._check_sums()
        self._fail(
            start, f"{name[:200]} has {length} bytes there, the tar {self._size}: it was cut short or is damaged"
        )

    def _fail(self, position: int, what: str) -> NoReturn:
        raise ShardFormatError(
            f"{self._uri} is no whole tar, at byte {position}: {what}", uri=self._uri, offset=position
        )


def _ustar_name(head: bytes) -> str:
    name = _text(head[:100])
    is_gnu = head[257:265] == b"ustar  \0"  # keeps times where ustar has the prefix
    prefix = "" if is_gnu else _text(head[345:500])
    return f"{prefix}/{name}" if prefix else name


def _text(data: bytes, *, whole: bool = False) -> str:
    r"""Decode up to a NUL; bytes that are not UTF-8 are written as `\xNN`: any name is some name."""
    return (data if whole else data.partition(b"\0")[0]).decode("utf-8", "backslashreplace")
