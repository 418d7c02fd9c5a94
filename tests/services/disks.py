"""Small and read-only disks, as mounts of the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """Mount with these options of `mount` at a new directory; skips the test, loudly, where that is not allowed."""
    path.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full or read-only disk needs root to mount one")
    made = subprocess.run(["mount", *options, os.fspath(path)], capture_output=True, text=True, timeout=20, check=False)
    if made.returncode != 0:
        pytest.skip(f"NOT TESTED: mounting is not allowed here: {made.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", os.fspath(path)], timeout=20, check=True)
