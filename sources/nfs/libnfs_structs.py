"""The structures of NFSv3 (RFC 1813) as libnfs 4.0 lays them out; see its libnfs-raw-nfs.h and libnfs-raw-mount.h."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_int, c_uint32, c_uint64, c_void_p
from typing import Any, ClassVar

from sources.nfs.engines import Attributes, Kind

_Fields = list[tuple[str, Any]]
_KINDS: dict[int, Kind] = {1: "file", 2: "directory", 5: "symlink"}


class Opaque(Structure):
    """Bytes that came: a file handle, or data."""

    _fields_: ClassVar[_Fields] = [("length", c_uint32), ("bytes", c_void_p)]


class Sent(Structure):
    """Bytes to be sent."""

    _fields_: ClassVar[_Fields] = [("length", c_uint32), ("bytes", c_char_p)]


class Place(Structure):
    """`diropargs3`; alone, the arguments of LOOKUP, REMOVE and RMDIR."""

    _fields_: ClassVar[_Fields] = [("directory", Sent), ("name", c_char_p)]


class Time(Structure):
    """`nfstime3`."""

    _fields_: ClassVar[_Fields] = [("seconds", c_uint32), ("nanoseconds", c_uint32)]


class FileAttributes(Structure):
    """`fattr3`."""

    _fields_: ClassVar[_Fields] = [
        ("type", c_uint32),
        ("mode", c_uint32),
        ("links", c_uint32),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("size", c_uint64),
        ("used", c_uint64),
        ("device", c_uint32 * 2),
        ("fsid", c_uint64),
        ("fileid", c_uint64),
        ("atime", Time),
        ("mtime", Time),
        ("ctime", Time),
    ]

    def value(self) -> Attributes:
        """Return them, as libnfs's memory is soon gone."""
        mtime, ctime = self.mtime, self.ctime
        return Attributes(
            _KINDS.get(self.type, "other"),
            self.size,
            mtime.seconds * 1_000_000_000 + mtime.nanoseconds,
            ctime.seconds * 1_000_000_000 + ctime.nanoseconds,
            self.fileid,
        )


class MaybeAttributes(Structure):
    """`post_op_attr`."""

    _fields_: ClassVar[_Fields] = [("follow", c_uint32), ("attributes", FileAttributes)]

    def value(self) -> Attributes | None:
        """Return them if the server sent them."""
        return self.attributes.value() if self.follow else None


class MaybeHandle(Structure):
    """`post_op_fh3`."""

    _fields_: ClassVar[_Fields] = [("follows", c_uint32), ("handle", Opaque)]


class Before(Structure):
    """`pre_op_attr`."""

    _fields_: ClassVar[_Fields] = [("follow", c_uint32), ("size", c_uint64), ("mtime", Time), ("ctime", Time)]


class Change(Structure):
    """`wcc_data`."""

    _fields_: ClassVar[_Fields] = [("before", Before), ("after", MaybeAttributes)]


class FileArguments(Structure):
    """Arguments of GETATTR and FSINFO."""

    _fields_: ClassVar[_Fields] = [("file", Sent)]


class RangeArguments(Structure):
    """`READ3args` and `COMMIT3args`."""

    _fields_: ClassVar[_Fields] = [("file", Sent), ("offset", c_uint64), ("count", c_uint32)]


class WriteArguments(Structure):
    """`WRITE3args`."""

    _fields_: ClassVar[_Fields] = [
        ("file", Sent),
        ("offset", c_uint64),
        ("count", c_uint32),
        ("stable", c_uint32),
        ("data", Sent),
    ]


class ListArguments(Structure):
    """`READDIRPLUS3args`."""

    _fields_: ClassVar[_Fields] = [
        ("directory", Sent),
        ("cookie", c_uint64),
        ("verifier", c_uint32 * 2),
        ("names_bytes", c_uint32),
        ("bytes", c_uint32),
    ]


class RenameArguments(Structure):
    """`RENAME3args`."""

    _fields_: ClassVar[_Fields] = [("source", Place), ("target", Place)]


class NewAttributes(Structure):
    """`sattr3`: mode and size are set, or not; the rest is not."""

    _fields_: ClassVar[_Fields] = [
        ("sets_mode", c_uint32),
        ("mode", c_uint32),
        ("owner", c_uint32 * 4),
        ("sets_size", c_uint32),
        ("size", c_uint64),
        ("times", c_uint32 * 6),
    ]


class CreateArguments(Structure):
    """`CREATE3args`, mode UNCHECKED: what is there is truncated."""

    _fields_: ClassVar[_Fields] = [("place", Place), ("mode", c_uint32), ("attributes", NewAttributes)]


class DirectoryArguments(Structure):
    """`MKDIR3args`."""

    _fields_: ClassVar[_Fields] = [("place", Place), ("attributes", NewAttributes)]


class Looked(Structure):
    """`LOOKUP3res`, where it succeeded."""

    _fields_: ClassVar[_Fields] = [("status", c_uint32), ("object", Opaque), ("attributes", MaybeAttributes)]


class Got(Structure):
    """`GETATTR3res`."""

    _fields_: ClassVar[_Fields] = [("status", c_uint32), ("attributes", FileAttributes)]


class Read(Structure):
    """`READ3res`."""

    _fields_: ClassVar[_Fields] = [
        ("status", c_uint32),
        ("attributes", MaybeAttributes),
        ("count", c_uint32),
        ("eof", c_uint32),
        ("data", Opaque),
    ]


class Created(Structure):
    """`CREATE3res`."""

    _fields_: ClassVar[_Fields] = [("status", c_uint32), ("object", MaybeHandle)]


class Written(Structure):
    """`WRITE3res`."""

    _fields_: ClassVar[_Fields] = [
        ("status", c_uint32),
        ("change", Change),
        ("count", c_uint32),
        ("stable", c_uint32),
        ("verifier", c_uint32 * 2),
    ]


class Committed(Structure):
    """`COMMIT3res`."""

    _fields_: ClassVar[_Fields] = [("status", c_uint32), ("change", Change), ("verifier", c_uint32 * 2)]


class Entry(Structure):
    """`entryplus3`."""


Entry._fields_ = [
    ("fileid", c_uint64),
    ("name", c_char_p),
    ("cookie", c_uint64),
    ("attributes", MaybeAttributes),
    ("handle", MaybeHandle),
    ("next", POINTER(Entry)),
]


class Listed(Structure):
    """`READDIRPLUS3res`."""

    _fields_: ClassVar[_Fields] = [
        ("status", c_uint32),
        ("attributes", MaybeAttributes),
        ("verifier", c_uint32 * 2),
        ("entries", POINTER(Entry)),
        ("eof", c_uint32),
    ]


class Sizes(Structure):
    """`FSINFO3res`, its beginning."""

    _fields_: ClassVar[_Fields] = [
        ("status", c_uint32),
        ("attributes", MaybeAttributes),
        ("read_max", c_uint32),
        ("read_preferred", c_uint32),
        ("read_multiple", c_uint32),
        ("write_max", c_uint32),
    ]


class Mounted(Structure):
    """`mountres3`."""

    _fields_: ClassVar[_Fields] = [("status", c_int), ("handle", Opaque)]


class Export(Structure):
    """`exportnode`."""


Export._fields_ = [("path", c_char_p), ("groups", c_void_p), ("next", POINTER(Export))]


def sent(data: bytes) -> Sent:
    """Wrap bytes; they live as long as the result."""
    return Sent(len(data), data)


def bytes_of(opaque: Opaque) -> bytes:
    """Copy them."""
    return ctypes.string_at(opaque.bytes, opaque.length)
