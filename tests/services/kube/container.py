"""Turns into a container's process: `python -m tests.services.kube.container SPEC.json`, as root.

It sees this machine's files under a layer of its own, so that what it writes at the root is gone with it, and the
mounts of its specification on top. Its host name is its own; it shares the network and the processes. A Python of
this machine is its image.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

_CLONE_NEWNS, _CLONE_NEWUTS = 0x00020000, 0x04000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1
_SHARED = ("dev", "proc", "sys")
"""Of this machine."""


def main(spec: dict[str, Any]) -> None:
    """Become the container.

    Args:
        spec: `root`: an empty directory; `mounts`: `{source, target, read_only}` each; `command`, `environment`,
            `directory`, `user`, `group`.
    """
    libc = ctypes.CDLL("libc.so.6", use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
        names = [None if name is None else os.fsencode(name) for name in (source, target, kind, data)]
        if libc.mount(names[0], names[1], names[2], flags, names[3]):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(target))

    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS):
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(spec["environment"]["HOSTNAME"])
    mount("none", Path("/"), None, _MS_REC | _MS_PRIVATE)
    base = Path(spec["root"])
    # what is written lies in memory: a layer of `/` cannot itself be below `/`
    mount("tmpfs", base, "tmpfs", 0, "mode=755")
    root = base / "root"
    for name in ("upper", "work", "root"):
        (base / name).mkdir()
    mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={base}/upper,workdir={base}/work")
    for name in _SHARED:
        mount(f"/{name}", root / name, None, _MS_BIND | _MS_REC)
    sources = [os.open(each["source"], os.O_PATH | os.O_CLOEXEC) for each in spec["mounts"]]
    is_dir = [Path(each["source"]).is_dir() for each in spec["mounts"]]
    os.chroot(root)  # before its paths are walked: links of `root` mean its own files
    for each, source, has_children in zip(spec["mounts"], sources, is_dir, strict=True):
        target = Path(each["target"])
        (target if has_children else target.parent).mkdir(parents=True, exist_ok=True)
        if not has_children:
            target.touch()
        mount(f"/proc/self/fd/{source}", target, None, _MS_BIND | _MS_REC)
        if each["read_only"]:
            mount("none", target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    os.chdir(spec["directory"])
    if spec["group"] is not None:
        os.setgroups([])
        os.setgid(spec["group"])
    if spec["user"] is not None:
        os.setuid(spec["user"])
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of the user clears it
    os.execvpe(spec["command"][0], spec["command"], spec["environment"])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
