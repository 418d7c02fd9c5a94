"""Checks of a cache directory from outside: what it lies on, whose it is, and who uses it."""

from __future__ import annotations

import os
import resource
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cache_runtime.store.layout import FORMAT
from ds.findings import failure, ok, warning
from ds.output import human_bytes, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dataset_controller.runtime_model import Tier
    from ds.findings import Finding

_MEMORY = frozenset({"tmpfs", "ramfs"})
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "lustre", "glusterfs", "gpfs", "beegfs", "afs"})
_MIN_FILES = 4096
_MIN_INODES = 10_000
_AHEAD_SECONDS = 60.0
_STAMPED = ("FORMAT", "boot", "index.lmdb", "visited.map")


class MountPoint(NamedTuple):
    """A mounted file system."""

    path: str
    kind: str
    read_only: bool


def check_directory(tier: Tier) -> Iterator[Finding]:
    """Check a cache directory; opens no file of it."""
    path = os.path.realpath(tier.path)
    try:
        found = os.stat(path)
    except OSError as error:
        yield failure("directory", path, f"cannot be used: {error.strerror}", "create it, or run ds apply again")
        return
    yield _check_rights(path, found)
    mount = find_mount(path, Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    if mount is not None:
        yield _check_mount(path, mount)
    yield from check_space(path, tier)
    yield _check_format(path)
    yield _check_stamps(path)


def check_open_files() -> Finding:
    """Check how many files this user's processes may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    if soft != resource.RLIM_INFINITY and soft < _MIN_FILES:
        more = f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}; for services LimitNOFILE="
        return warning("open files", "this user", f"{shown} at most: readers of many large objects need more", more)
    return ok("open files", "this user", f"{shown} at most")


def _check_rights(path: str, found: os.stat_result) -> Finding:
    mode, owner = stat.S_IMODE(found.st_mode), found.st_uid
    what = f"mode {mode:o}, owner uid {owner}"
    if not stat.S_ISDIR(found.st_mode):
        return failure("directory", path, "is no directory", "name a directory in spec.tiers[].path")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        me = os.geteuid()
        return failure("directory", path, f"{what}: not usable by uid {me}", f"chown or chmod it for uid {me}")
    if mode & stat.S_IWOTH:
        return warning("directory", path, f"{what}: everybody may replace what is cached", f"chmod o-w {path}")
    return ok("directory", path, what)


def find_mount(path: str, mountinfo: str) -> MountPoint | None:
    """Return the file system that a path lies on, from the text of /proc/self/mountinfo; see proc(5)."""
    best: MountPoint | None = None
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        point = fields[4].encode().decode("unicode_escape") if "\\" in fields[4] else fields[4]
        inside = path == point or path.startswith(f"{point.rstrip('/')}/")
        if inside and (best is None or len(point) >= len(best.path)):  # of two at one place the later one is seen
            options = {*fields[5].split(","), *rest[2].split(",")}
            best = MountPoint(point, rest[0], "ro" in options)
    return best


def _check_mount(path: str, mount: MountPoint) -> Finding:
    what = f"{mount.kind} at {mount.path}"
    if mount.read_only:
        return failure(
            "file system", path, f"{what}: mounted read-only", "remount it, or look for a failed disk: dmesg"
        )
    if mount.kind in _NETWORK or mount.kind.startswith("fuse."):
        remedy = "use a directory of a local disk: the index is shared memory, which a network cannot share"
        return failure("file system", path, f"{what}: not a local file system", remedy)
    if mount.kind in _MEMORY:
        remedy = "use a disk, unless you mean it: the cache is lost on a restart and takes the jobs' memory"
        return warning("file system", path, f"{what}: this is memory", remedy)
    if mount.kind == "overlay":
        remedy = "mount a volume there: what is cached goes with the container"
        return warning("file system", path, f"{what}: a container's own layer", remedy)
    return ok("file system", path, what)


def check_space(path: str, tier: Tier) -> Iterator[Finding]:
    """Check whether the disk of a cache directory can hold the capacity."""
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize
    used = allocated_bytes(path)
    wanted = tier.capacity + tier.free_floor
    what = f"{human_bytes(free)} free, {human_bytes(used)} used of {human_bytes(tier.capacity)}"
    if free < tier.free_floor:
        remedy = "free space: the cache takes no more until its free floor is kept"
        yield warning("space", path, f"{what}; the free floor is {human_bytes(tier.free_floor)}", remedy)
    elif free + used < wanted:
        remedy = f"lower spec.tiers[].capacity to {human_bytes(max(0, free + used - tier.free_floor))}, or free space"
        yield warning("space", path, f"{what}: the disk cannot hold the capacity", remedy)
    else:
        yield ok("space", path, what)
    if disk.f_files > 0 and disk.f_favail < _MIN_INODES:
        yield warning("space", path, f"only {disk.f_favail:,} inodes are free", "delete small files of this disk")


def allocated_bytes(directory: str) -> int:
    """Return what the files below a directory take on the disk; files that vanish meanwhile take nothing."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _check_format(path: str) -> Finding:
    index = Path(path, "index.lmdb")
    try:
        found = Path(path, "FORMAT").read_text(encoding="utf-8", errors="replace").strip()
        size = index.stat().st_blocks * 512
    except FileNotFoundError:
        return ok("index", path, "not made yet")
    except OSError as error:
        return failure("index", path, f"cannot be read: {error.strerror}", "look for a failed disk: dmesg")
    if found != str(FORMAT):
        remedy = "nothing: it is rebuilt when it is next opened; keep one version of Forebay on a node"
        return warning("index", path, f"of format {found!r}, this version writes {FORMAT}", remedy)
    return ok("index", path, f"format {FORMAT}, {human_bytes(size)}")


def _check_stamps(path: str) -> Finding:
    newest = 0.0
    for name in _STAMPED:
        try:
            newest = max(newest, os.stat(os.path.join(path, name)).st_mtime)
        except FileNotFoundError:
            continue
    ahead = newest - time.time()
    if ahead > _AHEAD_SECONDS:
        remedy = "set the clock (chronyc, timedatectl); S3 refuses requests that are 15 minutes off"
        return warning("clock", path, f"files are {plural(round(ahead), 'second')} in the future", remedy)
    return ok("clock", path, "no file is in the future")
