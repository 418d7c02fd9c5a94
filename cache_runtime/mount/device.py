"""Mounting: by the system call where this process may, else with the help of fusermount3."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache_runtime.errors import MountError
from cache_runtime.mount.mountinfo import mount_at, mount_of
from cache_runtime.mount.protocol import MAX_PAGES, PAGE_BYTES

if TYPE_CHECKING:
    from cache_runtime.mount.options import MountOptions

DEVICE = "/dev/fuse"
KIND = "fuse.forebay"
"""The type of our mounts in /proc/mounts; `mount -t fuse.forebay` and `mount.fuse` know it."""
HELPER_SECONDS = 30.0

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Attached:
    """A mount that nobody serves yet.

    Attributes:
        path: Its mount point, absolute.
        descriptor: The open /dev/fuse.
        device: Major and minor of what is mounted, "0:42".
        number: The mount's own number. Both tell it from another one on the same mount point, and find it where its
            mount point is now.
        by_helper: Whether fusermount3 mounted it, and has to unmount it.
    """

    path: str
    descriptor: int
    device: str
    number: int
    by_helper: bool


def attach(mountpoint: str | os.PathLike[str], options: MountOptions) -> Attached:
    """Mount on a directory; from here on whoever looks into it waits for answers.

    Raises:
        MountError: If it is no directory, or one of ours is mounted on it, or the kernel or fusermount3 refuses.
    """
    path = _checked(mountpoint)
    try:
        descriptor, by_helper = _attach_by_call(path, options), False
    except PermissionError as error:
        descriptor, by_helper = _attach_by_helper(path, options, error), True
    seen = mount_at(path)
    if seen is None:
        os.close(descriptor)
        raise MountError(path, "it was mounted and is not to be seen: is it in another namespace of mounts?")
    return Attached(path, descriptor, seen.device, seen.number, by_helper)


def _checked(mountpoint: str | os.PathLike[str]) -> str:
    """Return the real path of a mount point that may be mounted on."""
    path = os.path.realpath(mountpoint)
    seen = mount_at(path)
    if seen is not None and seen.kind == KIND:  # asked before `stat`, which would wait for its server
        raise MountError(
            path, f"{seen.source} is mounted there, or was until its server died; unmount it: ds umount {path}"
        )
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise MountError(path, f"{error.strerror}; name a directory that exists") from error
    if not is_directory:
        raise MountError(path, "it is no directory; name one that exists")
    return path


def _attach_by_call(path: str, options: MountOptions) -> int:
    """Mount as root does.

    Raises:
        PermissionError: If this process may not.
    """
    descriptor = _open_device(path)
    words = [f"fd={descriptor}", "rootmode=40000", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"]
    data = ",".join([*words, *_shared_words(options)])
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    if _libc.mount(options.source.encode(), path.encode(), KIND.encode(), flags, data.encode()) == 0:
        return descriptor
    number = ctypes.get_errno()
    os.close(descriptor)
    if number in (errno.EPERM, errno.EACCES):
        raise PermissionError(number, os.strerror(number))
    raise MountError(path, f"mount: {os.strerror(number)}; see dmesg")


def _open_device(path: str) -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError as error:
        raise MountError(
            path,
            f"{DEVICE}: {error.strerror}; load the module: modprobe fuse, and in a container give it "
            "--device /dev/fuse",
        ) from error


def _shared_words(options: MountOptions) -> list[str]:
    """Return the options that the system call and fusermount3 both take."""
    words = ["default_permissions", f"max_read={MAX_PAGES * PAGE_BYTES}"]
    return [*words, "allow_other"] if options.allow_other else words


def _attach_by_helper(path: str, options: MountOptions, refusal: PermissionError) -> int:
    """Have fusermount3 mount, which passes the open device through a socket."""
    helper = shutil.which("fusermount3")
    if helper is None:
        raise MountError(
            path, f"{refusal.strerror}; as another user than root it needs fusermount3: install fuse3"
        ) from refusal
    source = options.source.replace("\\", "\\\\").replace(",", "\\,")
    words = [*_shared_words(options), "ro", "nosuid", "nodev", f"fsname={source}", f"subtype={KIND.partition('.')[2]}"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [helper, "-o", ",".join(words), "--", path]
        environment = os.environ | {"_FUSE_COMMFD": str(theirs.fileno())}
        done = _help(command, path, pass_fds=(theirs.fileno(),), env=environment)
        if done.returncode != 0:
            raise MountError(path, _reason(done))
        ours.settimeout(HELPER_SECONDS)
        return _received(ours, path)


def _received(connection: socket.socket, path: str) -> int:
    descriptors = array.array("i")
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(descriptors.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: descriptors.itemsize])
            os.set_inheritable(descriptors[0], False)
            return descriptors[0]
    raise MountError(
        path, "fusermount3 mounted and passed no device; unmount it and look at its version: fusermount3 -V"
    )


def _help(command: list[str], path: str, **arguments: object) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # type: ignore[call-overload,no-any-return] # the arguments are two of its keywords
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HELPER_SECONDS, **arguments
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(path, f"{command[0]}: {error}") from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
    text = lines[-1]
    if "user_allow_other" in text:
        return f"{text}; let root write that line, or leave --allow-other out"
    return text


def detach(attached: Attached, *, lazily: bool = False) -> bool:
    """Unmount, if it is still mounted, wherever its mount point was moved to.

    Args:
        attached: The mount.
        lazily: Take it out of sight even if it is in use: who is in it goes on while the server lives.

    Returns:
        False if it is in use and therefore stays.

    Raises:
        MountError: If it is refused for another reason.
    """
    seen = mount_of(attached.number, attached.device)
    if seen is None:
        return True
    path = seen.path
    if attached.by_helper:
        return _detach_by_helper(path, lazily=lazily)
    if _libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0)) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        return False
    if number in (errno.EPERM, errno.EACCES):
        return _detach_by_helper(path, lazily=lazily)
    if number == errno.EINVAL:  # somebody was faster
        return True
    raise MountError(path, f"umount: {os.strerror(number)}")


def _detach_by_helper(path: str, *, lazily: bool) -> bool:
    helper = shutil.which("fusermount3")
    if helper is None:
        raise MountError(path, "cannot be unmounted without fusermount3: install fuse3")
    done = _help([helper, "-u", *(["-z"] if lazily else []), "--", path], path)
    if done.returncode == 0 or mount_at(path) is None:
        return True
    if "busy" in done.stderr:
        return False
    raise MountError(path, _reason(done))


def set_readahead(attached: Attached, kib: int) -> bool:
    """Have the kernel read ahead further than its 128 KiB; False if this process may not say."""
    with contextlib.suppress(OSError):  # not root, or no sysfs here: it reads ahead less
        Path(f"/sys/class/bdi/{attached.device}/read_ahead_kb").write_text(str(kib))
        return True
    return False
