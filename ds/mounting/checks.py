"""Whether this machine can mount, and how well; part of `ds cache doctor`."""

from __future__ import annotations

import os
import platform
import re
import shutil
from typing import TYPE_CHECKING

from cache_runtime.mount.capabilities import may_pass_through
from cache_runtime.mount.device import DEVICE
from ds.findings import Finding, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

_PASSTHROUGH_SINCE = (6, 9)


def check_mounting() -> Iterator[Finding]:
    """Look for what `ds mount` needs; nothing of it is a failure, since a cache works without."""
    if not os.path.exists(DEVICE):
        remedy = f"to use ds mount: modprobe fuse; in a container --device {DEVICE} --cap-add SYS_ADMIN"
        yield warning("mount", DEVICE, "is not there: nothing can be mounted", remedy)
        return
    if os.geteuid() == 0:
        yield ok("mount", DEVICE, "is there; this user mounts by itself")
    elif shutil.which("fusermount3") is None:
        yield warning("mount", "fusermount3", "is not there, and only root mounts without", "apt install fuse3")
    else:
        yield ok("mount", "fusermount3", "is there; this user mounts with its help")
    yield _check_passthrough()


def _check_passthrough() -> Finding:
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < _PASSTHROUGH_SINCE:
        remedy = "Linux 6.9 or newer reads cached files by itself; until then they are read through ds mount"
        return warning("mount", f"Linux {release}", "has no FUSE passthrough", remedy)
    if not may_pass_through():
        remedy = "mount as root to have cached files read by the kernel itself"
        return warning("mount", "passthrough", "takes CAP_SYS_ADMIN, which this process has not", remedy)
    return ok("mount", "passthrough", "the kernel can read cached files by itself")
