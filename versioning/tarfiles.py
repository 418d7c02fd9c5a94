"""The bytes around a file in a tar: POSIX ustar, and pax for names that ustar cannot hold. Pure.

All that would differ between two machines is zero (times, owners), so that equal members give equal tars. The layout
is part of the repository's format.
"""

from __future__ import annotations

from zlib import adler32

from versioning.errors import InvalidNameError

BLOCK = 512
END = bytes(2 * BLOCK)
"""What follows the last member."""
MAX_MEMBER_BYTES = 0o77777777777
"""What ustar's size field can say: 8 GiB less one."""

NAME_BYTES, _PREFIX = 100, 155  # widths of the fields, bytes
_LINK_NAME, _REST = bytes(100), bytes(12)
_PAX_NAME = b"././@PaxHeader"


def member_header(name: str, size: int) -> bytes:
    """Return what precedes a regular file's bytes: one block, or three and more when the name needs pax.

    Raises:
        InvalidNameError: If a tar cannot name the file, or it is too large for ustar.
    """
    if not name or name.endswith("/") or "\0" in name:
        raise InvalidNameError(name, what="pack member", reason="it is empty, ends in a slash or has a NUL")
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise InvalidNameError(name, what="pack member", reason=f"{size} bytes are more than a tar member can have")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise InvalidNameError(name, what="pack member", reason="it is not valid Unicode") from error
    split = _split(encoded) if encoded.isascii() else None
    if split is not None:
        return _block(split[0], split[1], size, b"0")
    record = _pax_record(b"path", encoded)
    short = encoded[:NAME_BYTES] if encoded.isascii() else name.encode("ascii", "replace")[:NAME_BYTES]
    return _block(b"", _PAX_NAME, len(record), b"x") + record + padding(len(record)) + _block(b"", short, size, b"0")


def padding(size: int) -> bytes:
    """Return the zeros that fill a member of `size` bytes up to whole blocks."""
    return bytes(-size % BLOCK)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a name at a slash into ustar's prefix and name fields; None if it does not fit."""
    if len(name) <= NAME_BYTES:
        return b"", name
    slash = name.find(b"/", max(0, len(name) - NAME_BYTES - 1))
    if slash <= 0 or slash > _PREFIX or slash == len(name) - 1:
        return None
    return name[:slash], name[slash + 1 :]


def _pax_record(keyword: bytes, value: bytes) -> bytes:
    r"""Return `"<length> <keyword>=<value>\\n"`, whose length counts its own digits."""
    rest = len(keyword) + len(value) + 3  # space, equals sign, newline
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)


_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, uid, gid
_TIME = b"00000000000\0"
_MAGIC = b"ustar\x0000" + bytes(64) + b"0000000\0" * 2  # version; user and group name; device numbers
_SUMMED = sum(_OWNER) + sum(_TIME) + 8 * ord(" ") + sum(_MAGIC)  # the checksum counts itself as spaces


def _sum(field: bytes) -> int:
    """Return the sum of some bytes, 256 at most: the lower half of Adler-32 is that and one, and has room for it."""
    return (adler32(field) & 0xFFFF) - 1


def _block(prefix: bytes, name: bytes, size: int, kind: bytes) -> bytes:
    length = b"%011o\0" % size
    checksum = b"%06o\0 " % (_SUMMED + _sum(name) + _sum(length) + kind[0] + (_sum(prefix) if prefix else 0))
    front = name.ljust(NAME_BYTES, b"\0") + _OWNER + length + _TIME + checksum + kind + _LINK_NAME + _MAGIC
    return front + prefix.ljust(_PREFIX, b"\0") + _REST
