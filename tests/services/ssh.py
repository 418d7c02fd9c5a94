"""`ssh-keygen`, which signs commits and checks signatures."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.services.install import install_packages

if TYPE_CHECKING:
    from pathlib import Path


def missing() -> str | None:
    """Say what keeps it from running, or None."""
    return None if shutil.which("ssh-keygen") else "ssh-keygen is not installed"


def install(cache: Path) -> None:
    """Install it; nothing is downloaded to `cache`."""
    install_packages("openssh-client")
