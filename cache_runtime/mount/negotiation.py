"""INIT: what kernel and server agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cache_runtime.mount.protocol import (
    INIT_IN,
    INIT_OUT,
    INIT_OUT_MAJOR,
    MAJOR,
    MAX_PAGES,
    MINOR,
    OLDEST_MINOR,
    PAGE_BYTES,
    InitFlag,
)

_WANTED = (
    InitFlag.INIT_EXT
    | InitFlag.ASYNC_READ
    | InitFlag.MAX_PAGES
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.DO_READDIRPLUS
    | InitFlag.EXPLICIT_INVAL_DATA
)
_BACKGROUND = 64
"""Most reads that nobody waits for, readahead, that the kernel has on their way at a time."""
_CONGESTED = 48
_NO_STACK, _STACK = 0, 1


@dataclass(frozen=True)
class Agreement:
    """What both can do.

    Attributes:
        minor: Revision of the protocol.
        flags: Of `InitFlag`, as far as they are used.
        max_readahead: Bytes that the kernel reads ahead.
    """

    minor: int
    flags: InitFlag
    max_readahead: int

    @property
    def passthrough(self) -> bool:
        """Whether the kernel reads backing files by itself."""
        return bool(self.flags & InitFlag.PASSTHROUGH)

    @property
    def zero_message_open(self) -> bool:
        """Whether files are opened without asking the server: then no file can be read past it."""
        return bool(self.flags & InitFlag.NO_OPEN_SUPPORT) and not self.passthrough

    def answer(self) -> bytes:
        """Return the body of the answer to INIT."""
        return INIT_OUT.pack(
            MAJOR,
            self.minor,
            self.max_readahead,
            self.flags & 0xFFFFFFFF,
            _BACKGROUND,
            _CONGESTED,
            PAGE_BYTES,  # max_write: there are no writes
            1,  # times are exact to the nanosecond
            MAX_PAGES,
            0,
            self.flags >> 32,
            _STACK if self.passthrough else _NO_STACK,
            0,  # the kernel ends no request for its age
            0,
        )


class Wishes(NamedTuple):
    """What a server would like of the kernel.

    Attributes:
        zero_message_opendir: Directories are opened without asking it.
        zero_message_open: Files, too, unless the kernel reads backing files by itself.
        passthrough: The kernel reads backing files by itself.
    """

    zero_message_opendir: bool
    zero_message_open: bool
    passthrough: bool


def agree(body: memoryview, wishes: Wishes) -> Agreement | bytes | None:
    """Read an INIT.

    Args:
        body: Of the request.
        wishes: What to ask for.

    Returns:
        The agreement; or the answer to a kernel that speaks a newer major version and will ask again; or None for a
        kernel that is too old.
    """
    major, minor, max_readahead, low, high = INIT_IN.unpack_from(body.tobytes().ljust(INIT_IN.size, b"\0"))
    if major > MAJOR:
        return INIT_OUT_MAJOR.pack(MAJOR, MINOR)
    if major < MAJOR or minor < OLDEST_MINOR:
        return None
    wanted = _WANTED
    if wishes.zero_message_opendir:
        wanted |= InitFlag.NO_OPENDIR_SUPPORT
    if wishes.zero_message_open:
        wanted |= InitFlag.NO_OPEN_SUPPORT
    if wishes.passthrough:
        wanted |= InitFlag.PASSTHROUGH
    offered = low | (high << 32 if low & InitFlag.INIT_EXT else 0)
    return Agreement(min(minor, MINOR), InitFlag(wanted & offered), max_readahead)
