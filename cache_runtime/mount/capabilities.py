"""What this process may do."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CAP_SYS_ADMIN = 21
_SOUND_KERNEL = (6, 18, 10)
"""From here on a file without an OPEN keeps its inode while the kernel reads ahead in it. Before (commit bd5603eaae0a,
in stable releases of January 2026), a server short of memory could wait for itself: some versions since 6.9."""


def may_pass_through() -> bool:
    """Return whether the kernel lets this process name backing files: CAP_SYS_ADMIN."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.partition(":")[2], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def keeps_unopened_files(release: str | None = None) -> bool:
    """Return whether the kernel is known to be sound for servers that answer no OPEN.

    Args:
        release: As `uname -r` has it; None: this machine's.
    """
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", os.uname().release if release is None else release)
    return found is not None and tuple(int(number or 0) for number in found.groups()) >= _SOUND_KERNEL
