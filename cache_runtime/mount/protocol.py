"""The kernel's FUSE protocol, as far as a read-only server speaks it: numbers and structs of linux/fuse.h, 7.45."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

MAJOR = 7
MINOR = 45
"""The newest revision that was read for this file; a newer kernel speaks it too."""
OLDEST_MINOR = 31
"""Linux 5.4, where max_pages, zero-message OPENDIR and explicit invalidation are."""

ROOT_ID = 1
BUFFER_BYTES = 1 << 16
"""For one request; the kernel wants 8 KiB at least, and answers what is longer, a too long attribute, by itself."""
PAGE_BYTES = 4096
MAX_PAGES = 256
"""Of one read: 1 MiB, more brings nothing."""
MAX_NAME_BYTES = 255
"""Of any file system of Linux. The kernel asks for longer ones too, up to 1,024."""
FOREVER_SECONDS = 1 << 31
"""A time-out that no mount lives to see; the kernel's clock of jiffies cannot hold much more."""
INTERRUPT_BIT = 1
"""Set in the `unique` of an INTERRUPT, which else is that of the request it is about."""


class Opcode(IntEnum):
    """What a request asks."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class InitFlag(IntFlag):
    """What kernel and server can do; bits from 32 on travel in `flags2`."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37


class OpenFlag(IntFlag):
    """How the kernel treats an open file (FOPEN_)."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7


class Notice(IntEnum):
    """What the server tells unasked; it stands where an answer has its error."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3
    INC_EPOCH = 8


INC_EPOCH_MINOR = 44
"""The first minor with `Notice.INC_EPOCH`."""

IN_HEADER = Struct("<IIQQIIIHH")  # length, opcode, unique, node, uid, gid, pid, length of extensions in 8 bytes, -
OUT_HEADER = Struct("<IiQ")  # length, -errno or notice, unique

INIT_IN = Struct("<IIIII")  # major, minor, max_readahead, flags, flags2
INIT_OUT = Struct("<IIIIHHIIHHIIHH20x")
# major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran, max_pages,
# map_alignment, flags2, max_stack_depth, request_timeout, -
INIT_OUT_MAJOR = Struct("<II56x")

ATTR = Struct("<QQQQQQIIIIIIIIII")
# ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags
ENTRY_HEAD = Struct("<QQQQII")  # node, generation, entry_valid, attr_valid, their nanoseconds; ATTR follows
ATTR_HEAD = Struct("<QII")  # attr_valid, its nanoseconds, -; ATTR follows
DIRENT = Struct("<QQII")  # ino, offset of the next, length of the name, type; the name follows, filled up to 8 bytes
ENTRY_BYTES = ENTRY_HEAD.size + ATTR.size

OPEN_IN = Struct("<II")  # flags, -
OPEN_OUT = Struct("<QIi")  # handle, OpenFlag, backing id
READ_IN = Struct("<QQII")  # handle, offset, size, read flags; of READDIR too
RELEASE_IN = Struct("<Q")  # handle
ACCESS_IN = Struct("<II")  # mask, -
GETXATTR_IN = Struct("<II")  # size, -
GETXATTR_OUT = Struct("<II")  # size, -
INTERRUPT_IN = Struct("<Q")  # unique of the request it is about
STATFS_OUT = Struct("<QQQQQIIII24x")  # blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, -

INVAL_INODE_OUT = Struct("<Qqq")  # node, offset, length: 0 for all
INVAL_ENTRY_OUT = Struct("<QII")  # parent, length of the name, flags; the name and a NUL follow

_IOC_WRITE, _MAGIC = 1 << 30, 229 << 8
BACKING_OPEN = _IOC_WRITE | 16 << 16 | _MAGIC | 1
"""ioctl: a file that the kernel may read by itself, as BACKING_MAP; answers its id."""
BACKING_CLOSE = _IOC_WRITE | 4 << 16 | _MAGIC | 2
"""ioctl: gives a backing id back, as BACKING_ID."""
BACKING_MAP = Struct("<iIQ")  # fd, -, -
BACKING_ID = Struct("<I")
