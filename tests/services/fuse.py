"""File systems of our own: the kernel's /dev/fuse, fusermount3 for who is not root, and rsync, which reads a mount."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tests.services.install import install_packages

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES = {"fusermount3": "fuse3", "rsync": "rsync"}


def missing() -> str | None:
    """Say what keeps a test from mounting, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse: {error.strerror} (modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    for program, package in _PACKAGES.items():
        if shutil.which(program) is None:
            return f"no {program} (Debian package {package})"
    return None


def install(cache: Path) -> None:
    """Install Debian's packages, as root; `cache` is not used.

    Raises:
        RuntimeError: If apt-get fails.
    """
    del cache
    install_packages(*_PACKAGES.values())
