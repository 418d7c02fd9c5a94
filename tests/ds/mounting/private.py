"""A place of its own: a namespace of mounts in which another user than root can mount, and root's files are not hidden.

What is mounted there ends with the last process in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOBODY = 65534
SECONDS = 120

PREPARE = """
set -e
work=$1; hidden=$2; prefix=$3; shift 3
mount --make-rprivate /
# The copies of other mounts would keep them alive after they are unmounted outside.
grep ' fuse' /proc/self/mounts | while read -r _ path _; do umount -l "$(printf %b "$path")" || true; done
mknod -m 666 "$work/fuse" c 10 229
mount --bind "$work/fuse" /dev/fuse
if [ -e "$work/fuse.conf" ]; then mount --bind "$work/fuse.conf" /etc/fuse.conf; fi
if [ -n "$hidden" ]; then  # the interpreter lies where others may not pass
    mkdir "$work/prefix"
    mount --bind "$prefix" "$work/prefix"
    mount -t tmpfs -o mode=755 tmpfs "$hidden"
    mkdir -p "$prefix"
    mount --bind "$work/prefix" "$prefix"
fi
exec "$@"
"""


def run_privately(
    work: Path, *command: str, uid: int | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in a namespace of mounts of its own.

    Args:
        work: An empty directory that others may pass; `fuse.conf` in it, if it is there, takes the place of /etc's.
        command: The program.
        uid: As whom; None: root.
        environment: More variables.
    """
    as_whom = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    words: Sequence[str] = ["unshare", "-m", "sh", "-c", PREPARE, "sh", os.fspath(work), *_hidden(), *as_whom, *command]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    variables |= {"HOME": os.fspath(work), "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=variables,
        cwd="/",
        stdin=subprocess.DEVNULL,
    )


def _hidden() -> tuple[str, str]:
    """Return the directory above this interpreter that others may not pass, or "", and what is needed of it."""
    prefix = Path(sys.base_prefix)
    closed = [each for each in prefix.parents if not each.stat().st_mode & 0o001]
    return (os.fspath(closed[-1]), os.fspath(prefix)) if closed else ("", "")
