"""Directories that mounts are on: what is there now, whether one may be mounted on, and taking a mount away."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from cache_runtime.mount.device import KIND, Attached, detach
from cache_runtime.mount.mountinfo import Mounted, mount_at
from ds.errors import MountBusyError, MountPointError, NotMountedError

_ANSWER_SECONDS = 3.0
_SHOWN_USERS = 5


class PointState(StrEnum):
    """What is on a directory."""

    FREE = "free"
    """No mount of ours."""
    MOUNTED = "mounted"
    """One that answers."""
    STALE = "stale"
    """One whose server died."""
    SILENT = "silent"
    """One whose server does not answer."""


def real_point(path: str | os.PathLike[str]) -> str:
    """Return a mount point as the kernel names it, without looking into what is mounted there."""
    absolute = os.path.abspath(path)
    if mount_at(absolute) is not None:
        return absolute
    return os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute)).rstrip("/") or "/"


def our_mount_at(path: str) -> Mounted | None:
    """Return our mount that is seen at a mount point."""
    seen = mount_at(path)
    return seen if seen is not None and seen.kind == KIND else None


def state_of(path: str) -> PointState:
    """Say what is on a directory; waits some seconds at most."""
    if our_mount_at(path) is None:
        return PointState.FREE
    answers: list[PointState] = []

    def look() -> None:
        try:
            os.statvfs(path)  # is asked of the server, and never kept by the kernel
        except OSError:
            answers.append(PointState.STALE)
        else:
            answers.append(PointState.MOUNTED)

    asking = threading.Thread(target=look, daemon=True)  # it cannot be ended while the server is silent
    asking.start()
    asking.join(_ANSWER_SECONDS)
    return answers[0] if answers else PointState.SILENT


def checked_point(path: str | os.PathLike[str], *, needed: list[str], repair: bool) -> str:
    """Return a directory that can be mounted on, by its real path; what is in it is hidden while something is mounted.

    Args:
        path: The directory.
        needed: Files and directories that the server itself uses: they must not be hidden.
        repair: Take away a mount whose server died.

    Raises:
        MountPointError: If it is none, or something is mounted there.
    """
    point = real_point(path)
    seen, state = our_mount_at(point), state_of(point)
    if seen is not None and state == PointState.MOUNTED:
        raise MountPointError(point, reason=f"{seen.source} is mounted there already; first: ds umount {point}")
    if state in (PointState.STALE, PointState.SILENT):
        if not repair:
            what = "its server died" if state == PointState.STALE else "its server does not answer"
            raise MountPointError(point, reason=f"a mount is left there and {what}; take it away with --repair")
        take_away(point, lazily=True)
    try:
        is_directory = stat.S_ISDIR(os.stat(point).st_mode)
    except FileNotFoundError:
        raise MountPointError(point, reason=f"there is no such directory; make it: mkdir -p {point}") from None
    except OSError as error:
        raise MountPointError(point, reason=f"{error.strerror}; name a directory that can be reached") from error
    if not is_directory:
        raise MountPointError(point, reason="it is no directory; name one")
    point = os.path.realpath(point)
    for hidden in map(os.path.realpath, needed):
        if hidden == point or hidden.startswith(point.rstrip("/") + "/"):
            raise MountPointError(
                point, reason=f"the mount would hide {hidden}, which it needs; name another directory"
            )
    return point


def take_away(point: str, *, lazily: bool) -> None:
    """Unmount what is seen at a mount point of ours.

    Raises:
        NotMountedError: If nothing of ours is there.
        MountBusyError: If it is in use, and not to be taken away lazily.
        MountError: If the kernel refuses for another reason.
    """
    seen = our_mount_at(point)
    if seen is None:
        raise NotMountedError(point)
    if not detach(Attached(point, -1, seen.device, seen.number, by_helper=False), lazily=lazily):
        raise MountBusyError(point, _users_of(point))


def _users_of(point: str) -> str:
    """Name some processes whose files or directories lie in a mount; asks the kernel only, not the mount."""
    users: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):  # inherited from who started us
            continue
        with suppress(OSError):  # it ended, or is another user's
            links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            if any(_lies_in(link, point) for link in links) or _maps(process, point):
                users.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
    more = f" and {len(users) - _SHOWN_USERS} more" if len(users) > _SHOWN_USERS else ""
    return f" by {', '.join(users[:_SHOWN_USERS])}{more}" if users else ""


def _lies_in(link: Path, point: str) -> bool:
    with suppress(OSError):
        target = os.readlink(link)
        return target == point or target.startswith(f"{point}/")
    return False


def _maps(process: Path, point: str) -> bool:
    return f" {point}/" in (process / "maps").read_text(errors="surrogateescape")
