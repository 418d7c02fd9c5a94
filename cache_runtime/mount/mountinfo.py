"""What the kernel says is mounted where, without asking a file system."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mounted(NamedTuple):
    """One mount.

    Attributes:
        number: The kernel's number of the mount: it stays the same when directories above its mount point are renamed.
            Another mount may get it afterwards.
        path: Its mount point.
        device: Major and minor, as in "0:42".
        kind: Type, "fuse.forebay".
        source: What is mounted, as its server calls it.
        options: Of mount and file system.
    """

    number: int
    path: str
    device: str
    kind: str
    source: str
    options: str


def mounts(process: int | None = None) -> list[Mounted]:
    """Return what a process sees mounted, oldest first; of two on one mount point the later one is seen."""
    text = Path(f"/proc/{process or 'self'}/mountinfo").read_text(errors="surrogateescape")
    return [_parse(line) for line in text.splitlines()]


def mount_at(path: str) -> Mounted | None:
    """Return what is seen at a mount point; `path` is absolute and has no symbolic link in it."""
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def mount_of(number: int, device: str) -> Mounted | None:
    """Return a mount wherever its mount point is now; None if it is gone, or another one covers it."""
    table = mounts()
    found = next((mount for mount in table if (mount.number, mount.device) == (number, device)), None)
    is_seen = found is not None and found == next(mount for mount in reversed(table) if mount.path == found.path)
    return found if is_seen else None


def _parse(line: str) -> Mounted:
    left, _, right = line.partition(" - ")
    fields, (kind, source, *options) = left.split(" "), right.split(" ")
    shown = ",".join([fields[5], *options])
    return Mounted(int(fields[0]), _plain(fields[4]), fields[2], kind, _plain(source), shown)


def _plain(text: str) -> str:
    """Undo the kernel's escapes of blanks and the like, byte by byte."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
