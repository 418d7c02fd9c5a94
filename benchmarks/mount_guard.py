"""What a killed benchmark of mounts leaves is taken away: mounts first, then the scratch directory.

The servers end with the process that started them (`tests.services.processes`), but a mount whose server is gone stays,
and nobody can remove a directory with one in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cache_runtime.mount.mountinfo import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIES = 20


@contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Have a process of its own wait for the end of this one, however it ends."""
    command = [sys.executable, "-m", "benchmarks.mount_guard", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        try:
            yield
        finally:
            assert guard.stdin is not None
            guard.stdin.close()  # ours; and the kernel closes it for a process that was killed
            guard.wait(60)


def clear(directory: Path) -> None:
    """Unmount what is mounted below a directory, and remove it."""
    for _ in range(_TRIES):
        points = [mount.path for mount in mounts() if mount.path.startswith(f"{directory}/")]
        for point in reversed(points):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
        if not points and not directory.exists():
            return
        time.sleep(0.5)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    clear(Path(sys.argv[1]))
