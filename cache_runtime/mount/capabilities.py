"""What this process may do."""

from __future__ import annotations

from pathlib import Path

_CAP_SYS_ADMIN = 21


def may_pass_through() -> bool:
    """Return whether the kernel lets this process name backing files: CAP_SYS_ADMIN."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.partition(":")[2], 16) >> _CAP_SYS_ADMIN & 1)
    return False
