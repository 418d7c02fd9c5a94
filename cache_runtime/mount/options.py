"""How a mount is to be."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MountOptions:
    """What a user may choose."""

    source: str = "forebay"
    """What is mounted, as /proc/mounts and `df` show it."""

    uid: int = field(default_factory=os.geteuid)
    """Whose the files are: who mounts, as with FUSE file systems of any kind."""

    gid: int = field(default_factory=os.getegid)
    """Their group."""

    allow_other: bool = False
    """Whether other users, root among them, may look into it: the kernel's default is no. As another user than root,
    /etc/fuse.conf must allow it."""

    passthrough: bool = True
    """Whether the kernel may read fully cached files by itself, where it can and this process has CAP_SYS_ADMIN."""

    small_files: bool | None = None
    """Whether files are opened without asking the server, with whatever kernel, instead of `passthrough`. None: where
    no file is there for passthrough, and the kernel is known to be sound. Not if it `follows`."""

    follows: bool = False
    """Whether `MountServer.follow` will be called: then the kernel tells when a directory is opened."""

    readahead_kib: int = 1024
    """How far the kernel reads ahead of a stream: one request of 1 MiB. Only root can set it; else it is 128."""

    init_seconds: float = 10.0
    """How long the kernel may take for its first request."""

    leave_seconds: float = 5.0
    """How long who is inside may go on after an unmount, before the server ends and they get ENOTCONN."""
